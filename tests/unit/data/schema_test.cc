// SPDX-License-Identifier: Apache-2.0
#include "data/schema.h"

#include <gtest/gtest.h>

namespace meander::data {
namespace {

TEST(Schema, WordsOfRolesTypesAndUnitsAreRead) {
  EXPECT_EQ(parse_role("context").value(), ColumnRole::kContext);
  EXPECT_EQ(parse_type("string").value(), ColumnType::kString);
  EXPECT_EQ(parse_time_unit("us").value(), TimeUnit::kMicroseconds);
}

TEST(Schema, UnknownWordIsRefusedWithTheKnownOnes) {
  const auto role = parse_role("usr");
  ASSERT_FALSE(role.ok());
  EXPECT_EQ(role.status().code(), Code::kInvalid);
  EXPECT_EQ(role.status().message(),
            "unknown role 'usr'; known: user, item, category, time, numeric, context, label, "
            "session, ignore");
}

TEST(Schema, TimesAreMillisecondsOfUtc) {
  EXPECT_EQ(parse_time_ms("1970-01-01").value(), 0);
  EXPECT_EQ(parse_time_ms("2017-10-13").value(), 1507852800000);
  EXPECT_EQ(parse_time_ms("2017-10-08T06:00:00").value(), 1507442400000);
  EXPECT_EQ(parse_time_ms("2017-10-08T06:00:00.125Z").value(), 1507442400125);
  EXPECT_EQ(parse_time_ms("1507442400125").value(), 1507442400125);
  EXPECT_EQ(parse_time_ms("-5").value(), -5);
}

TEST(Schema, WhatIsNoTimeIsRefused) {
  for (const char* text : {"", "yesterday", "2017-13-01", "2017-02-30", "2017-10-08T25:00:00",
                           "2017-10-08T06:00", "2017-10-08T06:00:00.", "12x", "2017-10-08junk"}) {
    EXPECT_FALSE(parse_time_ms(text).ok()) << text;
  }
}

TEST(Schema, NeedsOneUserAndOneItem) {
  Schema schema;
  EXPECT_FALSE(check_schema(schema).ok());
  schema.columns = {{"u", ColumnRole::kUser, ColumnType::kInt},
                    {"i", ColumnRole::kItem, ColumnType::kInt}};
  EXPECT_TRUE(check_schema(schema).ok());
  schema.columns.push_back({"u", ColumnRole::kIgnore, ColumnType::kInt});
  EXPECT_EQ(check_schema(schema).message(), "schema: column 'u' is named twice");
  schema.columns.back() = {"v", ColumnRole::kUser, ColumnType::kInt};
  EXPECT_FALSE(check_schema(schema).ok());
  schema.columns.back() = {"v", ColumnRole::kItem, ColumnType::kFloat};
  EXPECT_FALSE(check_schema(schema).ok());
}

TEST(Schema, HashOfAnIdIsStable) {
  EXPECT_EQ(hash_id("news/42"), hash_id("news/42"));
  EXPECT_NE(hash_id("news/42"), hash_id("news/43"));
  EXPECT_EQ(hash_id("abc"), 0xdd490490804b508ull) << "written into prepared logs: must not change";
}

}  // namespace
}  // namespace meander::data
