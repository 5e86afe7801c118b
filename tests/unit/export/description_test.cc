// SPDX-License-Identifier: Apache-2.0
#include "export/description.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace meander::artefact {
namespace {

using testing::HasSubstr;

Description full() {
  Description d;
  d.job = "globo-dien";
  d.generation = 12;
  d.digest = "0123456789abcdef";
  d.model.kind = "dien";
  d.model.slots = {{"item", 0, 18, true}, {"user", 1, 8, false}};
  d.slot_sources = {"item", "user"};
  d.model.numeric_features = 2;
  d.model.attention = {80, 40};
  d.model.head = {};
  d.model.dice = "moving";
  d.model.auxiliary_weight = 0.25f;
  d.model.click_weight = 0.5f;
  d.model.second_weight = 2;
  d.second_label = "stay";
  d.tables = {{"item", 18, 100, 90, "rows/item.safetensors"}};
  d.model_file = "globo/1/model.onnx";
  d.history = 20;
  d.candidates = "recent";
  d.recent_ms = 60'000;
  d.newest_ms = 1'507'852'799'441;
  d.repeats = true;
  d.items = 1;
  d.users = 2;
  d.behaviours = 3;
  return d;
}

TEST(Description, SurvivesItsText) {
  const auto read = decode_description(encode_description(full()), "export.json");
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(encode_description(read.value()), encode_description(full()));
  EXPECT_EQ(read.value().model.slots[1].name, "user");
  EXPECT_EQ(read.value().model.auxiliary_weight, 0.25f);
  EXPECT_EQ(read.value().model.second_weight, 2);
  EXPECT_EQ(read.value().second_label, "stay");
  EXPECT_EQ(read.value().newest_ms, 1'507'852'799'441);
}

TEST(Description, OfBeforeThereWereSecondTasksIsRead) {
  Description d = full();
  d.model.click_weight = 1;
  d.model.second_weight = 0;
  d.second_label.clear();
  std::string text = encode_description(d);
  const std::string weights = "\"click_weight\":1E0,\"second_weight\":0E0,";
  ASSERT_NE(text.find(weights), std::string::npos) << text;
  text.erase(text.find(weights), weights.size());
  const auto read = decode_description(text, "export.json");
  ASSERT_TRUE(read.ok()) << read.status().message();
  EXPECT_EQ(encode_description(read.value()), encode_description(d));
}

TEST(Description, AnotherVersionIsRefusedWithWhatToDo) {
  std::string text = encode_description(full());
  text.replace(text.find("\"version\":2"), 11, "\"version\":9");
  const auto read = decode_description(text, "export.json");
  EXPECT_EQ(read.status().code(), Code::kInvalid);
  EXPECT_THAT(read.status().message(), HasSubstr("export again"));
}

TEST(Description, OtherJsonIsNoExport) {
  EXPECT_EQ(decode_description("{\"a\":1}", "x").status().code(), Code::kInvalid);
  EXPECT_EQ(decode_description("[]", "x").status().code(), Code::kCorrupt);
  EXPECT_EQ(decode_description("", "x").status().code(), Code::kCorrupt);
}

TEST(Description, AMissingOrIllTypedFieldIsCorrupt) {
  const std::string whole = encode_description(full());
  const std::pair<const char*, const char*> damages[] = {
      {"\"digest\"", "\"digesT\""}, {"\"history\":20", "\"history\":-2"}, {"[80,40]", "[80,{}]"}};
  for (const auto& [from, to] : damages) {
    std::string text = whole;
    ASSERT_NE(text.find(from), text.npos) << from;
    text.replace(text.find(from), std::string(from).size(), to);
    const auto read = decode_description(text, "export.json");
    ASSERT_FALSE(read.ok()) << to;
    EXPECT_EQ(read.status().code(), Code::kCorrupt);
    EXPECT_THAT(read.status().message(), HasSubstr("export.json"));
  }
}

}  // namespace
}  // namespace meander::artefact
