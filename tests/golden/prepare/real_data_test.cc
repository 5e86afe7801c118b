// SPDX-License-Identifier: Apache-2.0
// The counts and checksums of our protocols on real logs: any change in how samples are made shows
// here. Sums of raw ids, over targets and over the items of their histories of at most 50.
#include <gtest/gtest.h>

#include "data/sampler.h"
#include "tests/unit/data/support.h"

namespace meander::data {
namespace {

struct Sums {
  std::uint64_t targets = 0, target_ids = 0, lengths = 0, history_ids = 0, full = 0;
  std::uint64_t negative_ids = 0;
};

Sums sums_of(const PreparedLog& log, bool test, std::int64_t from_ms, std::int64_t until_ms) {
  Sums sums;
  for (const Shard& shard : log.shards()) {
    const auto targets = test ? shard.test_targets : shard.train_targets;
    for (std::size_t i = 0; i < targets.size(); ++i) {
      const Sample sample = sample_of(log, shard, targets[i], test, 50);
      const std::int64_t time = log.has_time() ? shard.time_ms[targets[i].event] : 0;
      if (time < from_ms || time >= until_ms) continue;
      ++sums.targets;
      sums.target_ids += sample.item().item;
      sums.lengths += sample.length();
      sums.full += sample.length() == 50;
      for (auto e = sample.history_begin; e < sample.history_end; ++e) {
        sums.history_ids += shard.item[e];
      }
      if (test) sums.negative_ids += shard.test_negatives[i].item;
    }
  }
  return sums;
}

TEST(RealData, MovielensSamplesMatchTheProtocol) {
  const std::string data = real_data();
  if (data.empty()) GTEST_SKIP() << "no real data: set MEANDER_DATA";
  const TemporaryDirectory directory;
  auto storage = make_posix_storage();
  PrepareOptions options;
  options.format = Format::kMl1m;
  options.in = {data + "/ml1m"};
  options.out = directory / "ml1m";
  options.streams = 2;
  const auto report = prepare(*storage, options);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_EQ(report->users, 6'040u);
  EXPECT_EQ(report->items, 3'706u);
  EXPECT_EQ(report->categories, 18u);
  EXPECT_EQ(report->events, 1'000'209u);
  EXPECT_EQ(report->refused, 0u);
  const auto log = open_log(*storage, options.out);
  EXPECT_EQ(log->pool().size(), 994'169u);
  const Sums train = sums_of(*log, false, 0, 1);
  EXPECT_EQ(train.targets, 260'261u);
  EXPECT_EQ(train.target_ids, 501'349'351u);
  EXPECT_EQ(train.lengths, 10'868'433u);
  EXPECT_EQ(train.history_ids, 20'317'960'175u);
  EXPECT_EQ(train.full, 174'481u);
  const Sums test = sums_of(*log, true, 0, 1);
  EXPECT_EQ(test.targets, 6'040u);
  EXPECT_EQ(test.target_ids, 12'672'928u);
  EXPECT_EQ(test.lengths, 269'795u);
  EXPECT_EQ(test.history_ids, 516'919'463u);
  if (storage->exists(data + "/protocol/ml1m_test_neg.txt")) {
    EXPECT_EQ(report->test_negatives_listed, 6'040u);
    EXPECT_EQ(test.negative_ids, 11'487'268u);  // of the file's third column
  }
}

TEST(RealData, NewsClickSamplesMatchTheProtocol) {
  const std::string data = real_data();
  if (data.empty()) GTEST_SKIP() << "no real data: set MEANDER_DATA";
  const TemporaryDirectory directory;
  auto storage = make_posix_storage();
  PrepareOptions options;
  options.format = Format::kGlobo;
  options.in = {data + "/globo"};
  options.out = directory / "globo";
  options.streams = 2;
  const auto report = prepare(*storage, options);
  ASSERT_TRUE(report.ok()) << report.status().message();
  EXPECT_EQ(report->items, 40'750u);
  EXPECT_EQ(report->categories, 305u);
  EXPECT_EQ(report->events, 2'685'863u);
  EXPECT_EQ(report->refused, 0u);
  const auto log = open_log(*storage, options.out);
  EXPECT_EQ(log->pool().size(), 2'685'863u);
  const auto day = [](const char* text) { return parse_time_ms(text).value(); };
  const Sums train = sums_of(*log, false, day("2017-10-08"), day("2017-10-13"));
  EXPECT_EQ(train.targets, 865'555u);
  EXPECT_EQ(train.target_ids, 172'107'925'188u);
  EXPECT_EQ(train.lengths, 15'694'270u);
  EXPECT_EQ(train.history_ids, 3'026'696'879'921u);
  EXPECT_EQ(train.full, 86'500u);
  const Sums test = sums_of(*log, true, day("2017-10-13"), day("2017-10-14"));
  EXPECT_EQ(test.targets, 161'382u);
  EXPECT_EQ(test.target_ids, 30'530'658'721u);
  EXPECT_EQ(test.lengths, 3'454'247u);
  EXPECT_EQ(test.history_ids, 673'216'762'609u);
  if (storage->exists(data + "/protocol/globo_test_neg.txt.zst")) {
    EXPECT_EQ(report->test_negatives_listed, 161'382u);
    EXPECT_EQ(test.negative_ids, 30'599'200'910u);  // of the file's fifth column
  }
}

}  // namespace
}  // namespace meander::data
