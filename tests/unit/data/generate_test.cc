// SPDX-License-Identifier: Apache-2.0
#include "data/generate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "tests/unit/data/support.h"

namespace meander::data {
namespace {

GenerateOptions some_options() {
  GenerateOptions options;
  options.out = "made";
  options.users = 200;
  options.items = 300;
  options.events = 6000;
  options.categories = 10;
  return options;
}

Schema made_schema() {
  Schema schema;
  schema.columns = {{"time_ms", ColumnRole::kTime, ColumnType::kInt},
                    {"user", ColumnRole::kUser, ColumnType::kInt},
                    {"item", ColumnRole::kItem, ColumnType::kInt},
                    {"category", ColumnRole::kCategory, ColumnType::kInt}};
  return schema;
}

std::shared_ptr<const PreparedLog> prepare_made(Storage& storage, Format format) {
  PrepareOptions options;
  options.format = format;
  options.in = {"made"};
  options.out = "log";
  options.schema = made_schema();
  return prepare_log(storage, options);
}

// interest.npy as floats behind its header.
std::vector<float> read_interest(Storage& storage) {
  const std::string bytes = read_file(storage, "made/truth/interest.npy");
  const std::size_t header =
      10 + static_cast<unsigned char>(bytes[8]) + 256 * static_cast<unsigned char>(bytes[9]);
  EXPECT_EQ(header % 64, 0u);
  std::vector<float> values((bytes.size() - header) / sizeof(float));
  std::memcpy(values.data(), bytes.data() + header, values.size() * sizeof(float));
  return values;
}

TEST(Generate, LogIsReadByItsOwnSchemaInFull) {
  for (const bool jsonl : {false, true}) {
    auto storage = make_memory_storage();
    GenerateOptions options = some_options();
    options.jsonl = jsonl;
    const auto report = generate(*storage, options);
    ASSERT_TRUE(report.ok()) << report.status().message();
    const auto log = prepare_made(*storage, jsonl ? Format::kJsonl : Format::kCsv);
    ASSERT_TRUE(log);
    EXPECT_EQ(log->events(), 6000u);
    EXPECT_EQ(log->users(), report->users);
    EXPECT_EQ(report->users, 200u);
    EXPECT_EQ(log->items().size(), report->items);
    for (const ItemEntry& item : log->items()) EXPECT_EQ(item.category, (item.item - 1) % 10);
  }
}

TEST(Generate, SameSeedSameBytes) {
  auto a = make_memory_storage(), b = make_memory_storage();
  GenerateOptions options = some_options();
  ASSERT_TRUE(generate(*a, options).ok());
  ASSERT_TRUE(generate(*b, options).ok());
  EXPECT_EQ(read_file(*a, "made/events.csv"), read_file(*b, "made/events.csv"));
  EXPECT_EQ(read_file(*a, "made/truth/interest.npy"), read_file(*b, "made/truth/interest.npy"));
  options.seed = 2;
  ASSERT_TRUE(generate(*b, options).ok());
  EXPECT_NE(read_file(*a, "made/events.csv"), read_file(*b, "made/events.csv"));
}

TEST(Generate, OracleKnowsMoreTheMoreFocusedTheUsersAre) {
  auto storage = make_memory_storage();
  GenerateOptions options = some_options();
  options.users = 3000;
  options.events = 30'000;
  std::vector<double> auc;
  for (const double focus : {0.0, 1.0, 3.0}) {
    options.focus = focus;
    auc.push_back(generate(*storage, options).value().oracle_auc);
  }
  EXPECT_NEAR(auc[0], 0.5, 0.08);  // nobody wants anything, but for what they have not seen yet
  EXPECT_GT(auc[1], 0.65);
  EXPECT_GT(auc[2], auc[1] + 0.1);
  EXPECT_LT(auc[2], 1);
}

TEST(Generate, InterestDriftsSlowlyAndJumpsAtTheShift) {
  auto storage = make_memory_storage();
  GenerateOptions options = some_options();
  options.shift_at = 0.5;
  options.checkpoints = 101;
  options.drift = 0.02;
  ASSERT_TRUE(generate(*storage, options).ok());
  const auto interest = read_interest(*storage);
  const std::size_t row = options.users * options.categories;
  ASSERT_EQ(interest.size(), 103 * row);
  std::vector<double> moved;  // mean absolute change between checkpoints
  for (std::size_t t = 1; t < 103; ++t) {
    double sum = 0;
    for (std::size_t i = 0; i < row; ++i) {
      sum += std::abs(interest[t * row + i] - interest[(t - 1) * row + i]);
    }
    moved.push_back(sum / double(row));
  }
  const std::size_t jump = std::max_element(moved.begin(), moved.end()) - moved.begin();
  EXPECT_EQ(jump, 50u);  // between the two checkpoints around event 3000
  std::sort(moved.begin(), moved.end());
  EXPECT_GT(moved.back(), 20 * moved[moved.size() - 2]);
}

TEST(Generate, InterestIsAProbabilityOverCategories) {
  auto storage = make_memory_storage();
  ASSERT_TRUE(generate(*storage, some_options()).ok());
  const auto interest = read_interest(*storage);
  for (std::size_t at = 0; at < interest.size(); at += 10) {
    double sum = 0;
    for (std::size_t c = 0; c < 10; ++c) sum += interest[at + c];
    ASSERT_NEAR(sum, 1, 1e-5);
  }
}

TEST(Generate, BadOptionsAreRefusedAndNothingIsOverwritten) {
  auto storage = make_memory_storage();
  const auto refused = [&](auto change) {
    GenerateOptions options = some_options();
    change(options);
    return generate(*storage, options).status().code();
  };
  EXPECT_EQ(refused([](auto& o) { o.users = 0; }), Code::kInvalid);
  EXPECT_EQ(refused([](auto& o) { o.categories = 301; }), Code::kInvalid);
  EXPECT_EQ(refused([](auto& o) { o.shift_at = 1; }), Code::kInvalid);
  EXPECT_EQ(refused([](auto& o) { o.out = ""; }), Code::kInvalid);
  EXPECT_FALSE(storage->exists("made"));
  write_file(*storage, "made/mine.txt", "x");
  EXPECT_EQ(refused([](auto&) {}), Code::kInvalid);
  EXPECT_EQ(read_file(*storage, "made/mine.txt"), "x");
}

}  // namespace
}  // namespace meander::data
