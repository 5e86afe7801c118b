// SPDX-License-Identifier: Apache-2.0
#include "common/ranking.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/metrics.h"

namespace meander {
namespace {

TEST(RankSums, OneTargetAUserGivesHitRateAndDiscountedGainOfItsPlace) {
  RankSums sums;
  sums.add(0, 1);
  sums.add(2, 1);
  sums.add(9, 1);
  sums.add(10, 1);
  EXPECT_EQ(sums.targets(), 4u);
  EXPECT_DOUBLE_EQ(sums.hit_rate(1), 0.25);
  EXPECT_DOUBLE_EQ(sums.hit_rate(10), 0.75);
  EXPECT_DOUBLE_EQ(sums.recall(10), 0.75);
  EXPECT_DOUBLE_EQ(sums.ndcg(10), (1 + 1 / std::log2(4.0) + 1 / std::log2(11.0)) / 4);
  EXPECT_DOUBLE_EQ(sums.reciprocal_rank(20), (1 + 1 / 3.0 + 1 / 10.0 + 1 / 11.0) / 4);
}

// Two users: one with places 0 and 3 of two targets, one with place 25 of its only one.
TEST(RankSums, SeveralTargetsOfAUserAreOneListOfIt) {
  RankSums sums;
  sums.add(0, 2);
  sums.add(3, 2);
  sums.add(25, 1);
  const double ideal = 1 + 1 / std::log2(3.0);
  EXPECT_DOUBLE_EQ(sums.recall(20), 0.5);
  EXPECT_DOUBLE_EQ(sums.ndcg(20), (1 + 1 / std::log2(5.0)) / ideal / 2);
  EXPECT_DOUBLE_EQ(sums.hit_rate(20), 2 / 3.0);
}

// A user with more targets than the list is long reaches NDCG 1 with a list full of them.
TEST(RankSums, IdealGainStopsAtTheCut) {
  RankSums sums;
  for (int rank = 0; rank < 30; ++rank) sums.add(rank, 30);
  EXPECT_NEAR(sums.ndcg(20), 1, 1e-12);
  EXPECT_NEAR(sums.ndcg(5), 1, 1e-12);
  EXPECT_NEAR(sums.recall(20), 20 / 30.0, 1e-12);
}

TEST(RankSums, NothingIsNotANumber) {
  EXPECT_TRUE(std::isnan(RankSums().hit_rate(10)));
  EXPECT_TRUE(std::isnan(RankSums().ndcg(10)));
  EXPECT_TRUE(std::isnan(RankSums().group_auc()));
}

TEST(RankSums, SurviveTheWireWithinAnAccumulatorAndMerge) {
  Accumulator one, two;
  one.head.add(0.5f, true);
  one.ranks.add(3, 1);
  one.ranks.add_group_auc(0.75);
  auto& cold = one.segments[static_cast<std::size_t>(Segment::kCold)];
  cold.ranks.add(3, 1);
  cold.scores.add(-1.0f, false);
  two.ranks.add(0, 1);
  Result<Accumulator> copy = Accumulator::decode(one.encode());
  ASSERT_TRUE(copy.ok());
  copy.value().merge(two);
  EXPECT_EQ(copy.value().ranks.targets(), 2u);
  EXPECT_DOUBLE_EQ(copy.value().ranks.hit_rate(1), 0.5);
  EXPECT_DOUBLE_EQ(copy.value().ranks.group_auc(), 0.75);
  EXPECT_EQ(copy.value().segments[0].scores.samples(), 1u);
  const Buffer whole = one.encode();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const Result<Accumulator> cut = Accumulator::decode(whole.slice(0, size));
    // What ends just before the ranks is a whole one without them.
    if (cut.ok()) {
      EXPECT_EQ(cut.value().ranks.targets(), 0u) << size;
    }
  }
}

}  // namespace
}  // namespace meander
