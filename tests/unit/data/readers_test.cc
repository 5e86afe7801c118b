// SPDX-License-Identifier: Apache-2.0
#include "data/readers.h"

#include <gtest/gtest.h>

#include "common/rng.h"
#include "data/fields.h"
#include "tests/unit/data/support.h"

namespace meander::data {
namespace {

using Fields = std::vector<std::string>;

Schema two_columns() {
  Schema schema;
  schema.delimiter = ",";
  schema.header = false;
  schema.columns = {{"user", ColumnRole::kUser, ColumnType::kString},
                    {"item", ColumnRole::kItem, ColumnType::kInt}};
  return schema;
}

// RFC 4180 on one line, letter by letter; false when a quote is not closed, or something follows
// it.
bool fields_of(const std::string& line, Fields& fields) {
  fields.assign(1, "");
  for (std::size_t i = 0; i < line.size();) {
    const bool at_start = i == 0 || (line[i - 1] == ',' && fields.back().empty());
    if (at_start && line[i] == '"') {
      for (++i;; ++i) {
        if (i >= line.size()) return false;
        if (line[i] == '"' && (i + 1 >= line.size() || line[i + 1] != '"')) break;
        if (line[i] == '"') ++i;
        fields.back() += line[i];
      }
      if (++i >= line.size()) return true;
      if (line[i] != ',') return false;
    }
    if (line[i] == ',') {
      fields.emplace_back();
    } else {
      fields.back() += line[i];
    }
    ++i;
  }
  return true;
}

struct Told {
  std::vector<std::string> records;
  std::vector<std::string> refusals;  // "a.csv:3: reason"
};

Told told_by_reader(const std::string& text) {
  auto storage = make_memory_storage();
  write_file(*storage, "a.csv", text);
  Told told;
  Intake intake(
      [&](const Record& r) {
        told.records.push_back(std::to_string(r.user) + " " + std::to_string(r.item));
      },
      1'000'000);
  auto reader = LineReader::open(*storage, "a.csv");
  EXPECT_TRUE(reader.ok());
  EXPECT_TRUE(
      read_delimited(reader.value(), two_columns(), true, nullptr, RecordKind::kOpen, intake).ok());
  for (const std::string& first : intake.first()) {
    told.refusals.push_back(first.substr(0, first.find(": '")));
  }
  return told;
}

Told told_by_letters(const std::string& text) {
  Told told;
  std::uint64_t number = 0;
  const auto refuse = [&](const std::string& why) {
    told.refusals.push_back("a.csv:" + std::to_string(number) + ": " + why);
  };
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    at = end + 1;
    ++number;
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty()) continue;
    Fields fields;
    std::uint64_t item = 0;
    if (!fields_of(line, fields)) {
      refuse("a quote is not closed");
    } else if (fields.size() != 2) {
      refuse("not 2 columns");
    } else if (fields[0].empty()) {
      refuse("user is missing");
    } else if (fields[1].empty()) {
      refuse("item is missing");
    } else if (!parse_key(fields[1], item)) {
      refuse("item is not a whole number");
    } else {
      told.records.push_back(std::to_string(hash_id(fields[0])) + " " + std::to_string(item));
    }
  }
  return told;
}

TEST(Delimited, RowsAndRefusalsAreThoseOfALookAtEachLetter) {
  Rng rng(11);
  const std::string pieces[] = {
      "ab", "7",  "123456789", "12345678901234567890", "-3", ",",  ",", ",",
      "\n", "\n", "\r\n",      "\"x,\"\"y\"",          "\"", "\r", ""};
  for (int round = 0; round < 3'000; ++round) {
    std::string text;
    for (std::uint64_t n = rng.below(40); n > 0; --n) text += pieces[rng.below(std::size(pieces))];
    const Told reader = told_by_reader(text), letters = told_by_letters(text);
    ASSERT_EQ(reader.records, letters.records) << text;
    ASSERT_EQ(reader.refusals, letters.refusals) << text;
  }
}

TEST(Delimited, RowsThatCrossPiecesOfTheFileAreWhole) {
  Rng rng(12);
  std::string text;
  while (text.size() < (std::size_t{1} << 20)) {
    text +=
        "u" + std::to_string(rng.below(1000)) + "," + std::to_string(rng.next() >> rng.below(64));
    text += rng.chance(0.2) ? "\r\n" : "\n";
    if (rng.chance(0.001)) text += "no item\n";
  }
  text += "last,1";  // without an end
  const Told reader = told_by_reader(text), letters = told_by_letters(text);
  EXPECT_EQ(reader.records, letters.records);
  EXPECT_EQ(reader.refusals, letters.refusals);
  EXPECT_GT(letters.records.size(), 10'000u);
  EXPECT_GT(letters.refusals.size(), 10u);
}

}  // namespace
}  // namespace meander::data
