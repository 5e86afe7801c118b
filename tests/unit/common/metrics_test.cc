// SPDX-License-Identifier: Apache-2.0
#include "common/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "common/rng.h"

namespace meander {
namespace {

struct Sample {
  float logit;
  bool positive;
};

std::vector<Sample> draw(std::uint64_t seed, int count) {
  Rng rng(seed);
  std::vector<Sample> samples;
  for (int i = 0; i < count; ++i) {
    const bool positive = rng.chance(0.3);
    const double noise = rng.uniform() + rng.uniform() + rng.uniform() - 1.5;
    samples.push_back({static_cast<float>(2.5 * noise + (positive ? 0.4 : -0.4)), positive});
  }
  return samples;
}

ScoreSums sums_of(const std::vector<Sample>& samples) {
  ScoreSums sums;
  for (const Sample& s : samples) sums.add(s.logit, s.positive);
  return sums;
}

// The share of (positive, negative) pairs in the right order, ties half: by sorting.
double exact_auc(std::vector<Sample> samples) {
  std::sort(samples.begin(), samples.end(),
            [](const Sample& a, const Sample& b) { return a.logit < b.logit; });
  double won = 0, below = 0, positives = 0;
  for (std::size_t i = 0; i < samples.size();) {
    double positives_here = 0, negatives_here = 0;
    const float logit = samples[i].logit;
    for (; i < samples.size() && samples[i].logit == logit; ++i) {
      ++(samples[i].positive ? positives_here : negatives_here);
    }
    won += positives_here * (below + negatives_here / 2);
    below += negatives_here;
    positives += positives_here;
  }
  return won / (positives * below);
}

TEST(ScoreSums, AucIsThatOfSortingWithinABinsWidth) {
  const auto samples = draw(1, 200'000);
  EXPECT_NEAR(sums_of(samples).auc(), exact_auc(samples), 1e-5);
}

TEST(ScoreSums, TiesCountHalf) {
  EXPECT_DOUBLE_EQ(sums_of({{0.5f, true}, {0.5f, false}}).auc(), 0.5);
  EXPECT_DOUBLE_EQ(sums_of({{1.0f, true}, {0.5f, false}}).auc(), 1.0);
  EXPECT_DOUBLE_EQ(sums_of({{-99.0f, true}, {99.0f, false}}).auc(), 0.0);
}

TEST(ScoreSums, AucNeedsBothClasses) {
  EXPECT_TRUE(std::isnan(ScoreSums().auc()));
  EXPECT_TRUE(std::isnan(sums_of({{1.0f, true}}).auc()));
  EXPECT_TRUE(std::isnan(sums_of({{1.0f, false}}).auc()));
}

TEST(ScoreSums, LogLossIsTheMeanAndFiniteForHugeLogits) {
  EXPECT_NEAR(sums_of({{0.0f, true}, {0.0f, false}}).log_loss(), std::log(2.0), 1e-12);
  const double p = 1 / (1 + std::exp(-1.5));
  EXPECT_NEAR(sums_of({{1.5f, true}}).log_loss(), -std::log(p), 1e-12);
  EXPECT_NEAR(sums_of({{1.5f, false}}).log_loss(), -std::log(1 - p), 1e-12);
  EXPECT_NEAR(sums_of({{-1000.0f, true}}).log_loss(), 1000.0, 1e-9);
  EXPECT_TRUE(std::isnan(ScoreSums().log_loss()));
}

TEST(ScoreSums, AccuracyAndF1AreAtLogitZero) {
  // 2 hits, 1 miss, 1 false alarm, 2 rightly negative, one of them just below zero.
  const ScoreSums sums =
      sums_of({{1, true}, {0, true}, {-1, true}, {2, false}, {-1e-30f, false}, {-3, false}});
  EXPECT_DOUBLE_EQ(sums.accuracy(), 4.0 / 6);
  EXPECT_DOUBLE_EQ(sums.f1(), 2 * 2.0 / (2 * 2 + 1 + 1));
  EXPECT_DOUBLE_EQ(sums_of({{-1, false}}).f1(), 0.0);
}

TEST(ScoreSums, BrokenLogitsAreCountedAndShowInTheLoss) {
  const ScoreSums sums = sums_of({{std::numeric_limits<float>::quiet_NaN(), true},
                                  {std::numeric_limits<float>::infinity(), false}});
  EXPECT_EQ(sums.samples(), 2u);
  EXPECT_FALSE(std::isfinite(sums.log_loss()));
  EXPECT_DOUBLE_EQ(sums.auc(), 0.0);
}

TEST(ScoreSums, MergedPartsEqualTheWhole) {
  const auto samples = draw(2, 10'000);
  ScoreSums merged;
  merged.merge(ScoreSums());
  merged.merge(sums_of({samples.begin(), samples.begin() + 3000}));
  merged.merge(sums_of({samples.begin() + 3000, samples.end()}));
  const ScoreSums whole = sums_of(samples);
  EXPECT_EQ(merged.samples(), whole.samples());
  EXPECT_EQ(merged.positives(), whole.positives());
  EXPECT_EQ(merged.auc(), whole.auc());
  EXPECT_NEAR(merged.log_loss(), whole.log_loss(), 1e-12);
}

TEST(ScoreSums, ClearForgetsAll) {
  ScoreSums sums = sums_of(draw(3, 100));
  sums.clear();
  EXPECT_EQ(sums.samples(), 0u);
  sums.add(1, true);
  sums.add(0, false);
  EXPECT_DOUBLE_EQ(sums.auc(), 1.0);
}

TEST(ScoreSums, DecodesWhatWasEncoded) {
  for (int count : {0, 1, 10, 10'000}) {
    const ScoreSums sums = sums_of(draw(4, count));
    Result<ScoreSums> decoded = ScoreSums::decode(sums.encode());
    ASSERT_TRUE(decoded.ok()) << decoded.status().message();
    EXPECT_EQ(decoded->samples(), sums.samples());
    if (count == 0) continue;
    EXPECT_EQ(decoded->f1(), sums.f1());
    EXPECT_EQ(decoded->log_loss(), sums.log_loss());
    EXPECT_EQ(std::isnan(decoded->auc()), std::isnan(sums.auc()));
    if (count > 10) {
      EXPECT_EQ(decoded->auc(), sums.auc());
    }
  }
}

TEST(ScoreSums, EncodingGrowsWithTheBinsInUse) {
  EXPECT_LT(ScoreSums().encode().size(), 16u);
  EXPECT_LT(sums_of(draw(5, 512)).encode().size(), 512u * 6 + 16);
}

Accumulator accumulator() {
  Accumulator a;
  a.samples = 300;
  a.batches = 3;
  a.loss_sum = 1.75;
  a.head = sums_of(draw(6, 200));
  a.tail = sums_of(draw(7, 100));
  return a;
}

TEST(Accumulator, DecodesWhatWasEncodedAndMerges) {
  Accumulator sum = accumulator();
  Result<Accumulator> decoded = Accumulator::decode(sum.encode());
  ASSERT_TRUE(decoded.ok()) << decoded.status().message();
  sum.merge(decoded.value());
  EXPECT_EQ(sum.samples, 600u);
  EXPECT_EQ(sum.batches, 6u);
  EXPECT_EQ(sum.loss_sum, 3.5);
  EXPECT_EQ(sum.head.samples(), 400u);
  EXPECT_EQ(sum.tail.samples(), 200u);
  sum.clear();
  EXPECT_EQ(sum.samples + sum.batches + sum.head.samples() + sum.tail.samples(), 0u);
}

TEST(Accumulator, SecondTaskTravelsBesideTheFirst) {
  Accumulator sum = accumulator();
  sum.second_head = sums_of(draw(8, 50));
  sum.second_tail = sums_of(draw(9, 20));
  for (const bool has_ranks : {false, true}) {
    if (has_ranks) sum.ranks.add(3, 1);
    const Buffer bytes = sum.encode();
    Result<Accumulator> decoded = Accumulator::decode(bytes);
    ASSERT_TRUE(decoded.ok()) << decoded.status().message();
    EXPECT_EQ(decoded->second_head.auc(), sum.second_head.auc());
    EXPECT_EQ(decoded->second_tail.log_loss(), sum.second_tail.log_loss());
    EXPECT_EQ(decoded->ranks.targets(), sum.ranks.targets());
    EXPECT_EQ(Accumulator::decode(bytes.slice(0, bytes.size() - 1)).status().code(),
              Code::kCorrupt);
  }
  Accumulator twice = sum;
  twice.merge(sum);
  EXPECT_EQ(twice.second_head.samples(), 100u);
  EXPECT_EQ(twice.second_tail.samples(), 40u);
  twice.clear();
  EXPECT_EQ(twice.second_head.samples() + twice.second_tail.samples(), 0u);
}

TEST(Accumulator, EveryTruncationIsCorrupt) {
  const Buffer bytes = accumulator().encode();
  // One byte short, the empty curve is missing: as it was written before there were curves.
  EXPECT_TRUE(Accumulator::decode(bytes.slice(0, bytes.size() - 1)).ok());
  for (std::size_t size = 0; size + 1 < bytes.size(); ++size) {
    EXPECT_EQ(Accumulator::decode(bytes.slice(0, size)).status().code(), Code::kCorrupt) << size;
  }
  std::string longer(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  longer += '\0';
  EXPECT_FALSE(Accumulator::decode(Buffer::copy_of(longer.data(), longer.size())).ok());
}

TEST(Accumulator, RandomBytesAreRefusedOrHarmless) {
  Rng rng(8);
  Accumulator sum = accumulator();
  const Buffer good = sum.encode();
  for (int i = 0; i < 500; ++i) {
    Buffer bytes = Buffer::copy_of(good.data(), good.size());
    if (i % 2 == 0) {
      bytes = Buffer::allocate(rng.below(200));
      for (std::size_t b = 0; b < bytes.size(); ++b) bytes.data()[b] = std::byte(rng.next());
    } else {
      for (int flips = 0; flips < 3; ++flips) {
        bytes.data()[rng.below(i % 4 == 1 ? 40 : bytes.size())] = std::byte(rng.next());
      }
    }
    Result<Accumulator> decoded = Accumulator::decode(bytes);
    if (decoded.ok()) {
      sum.merge(decoded.value());
      EXPECT_LE(sum.head.positives(), sum.head.samples());
    } else {
      EXPECT_EQ(decoded.status().code(), Code::kCorrupt);
    }
  }
}

}  // namespace
}  // namespace meander
