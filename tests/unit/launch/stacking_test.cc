// SPDX-License-Identifier: Apache-2.0
#include "launch/stacking.h"

#include <gtest/gtest.h>

#include <cmath>

#include "common/metrics.h"
#include "common/rng.h"

namespace meander::launch {
namespace {

struct Drawn {
  std::vector<std::vector<float>> logits;
  std::vector<float> labels;
};

// Members see the truth through noise; a label is drawn by sigmoid(1.5 truth - 0.7).
Drawn draw(std::size_t samples, const std::vector<double>& noise, std::uint64_t seed) {
  Rng rng(seed);
  const auto normal = [&] {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += rng.uniform();
    return sum;
  };
  Drawn drawn;
  drawn.logits.resize(noise.size());
  for (std::size_t i = 0; i < samples; ++i) {
    const double truth = normal();
    for (std::size_t m = 0; m < noise.size(); ++m) {
      drawn.logits[m].push_back(static_cast<float>(truth + noise[m] * normal()));
    }
    drawn.labels.push_back(rng.uniform() < 1 / (1 + std::exp(0.7 - 1.5 * truth)) ? 1.0f : 0.0f);
  }
  return drawn;
}

double log_loss(const Stack& stack, const Drawn& drawn) {
  const std::vector<float> logits = stack.apply(drawn.logits);
  ScoreSums sums;
  for (std::size_t i = 0; i < logits.size(); ++i) sums.add(logits[i], drawn.labels[i] > 0);
  return sums.log_loss();
}

TEST(Stacking, FindsTheWeightsThatLabelsWereDrawnBy) {
  const Drawn drawn = draw(40'000, {0, 3}, 1);  // the second is the first and noise
  const Stack stack = fit_stack(drawn.logits, drawn.labels).value();
  EXPECT_NEAR(stack.weights[0], 1.5, 0.06);
  EXPECT_NEAR(stack.weights[1], 0, 0.02);
  EXPECT_NEAR(stack.bias, -0.7, 0.05);
}

TEST(Stacking, IsNotWorseThanTheMeanWhereItWasFitted) {
  for (std::uint64_t seed = 1; seed <= 50; ++seed) {
    const Drawn drawn = draw(200, {0.2 * static_cast<double>(seed % 7), 1, 2}, seed);
    const Stack stack = fit_stack(drawn.logits, drawn.labels).value();
    EXPECT_LE(log_loss(stack, drawn), log_loss(Stack::mean(3), drawn) + 1e-7) << "seed " << seed;
  }
}

// At the minimum of a smooth loss nothing near is better.
TEST(Stacking, NoOtherWeightsAreBetter) {
  const Drawn drawn = draw(3000, {0.5, 0.7, 1}, 4);
  const Stack stack = fit_stack(drawn.logits, drawn.labels).value();
  const double least = log_loss(stack, drawn);
  for (std::size_t w = 0; w < 4; ++w) {
    for (const double by : {-0.02, 0.02}) {
      Stack other = stack;
      (w < 3 ? other.weights[w] : other.bias) += by;
      EXPECT_GT(log_loss(other, drawn), least) << w;
    }
  }
}

TEST(Stacking, AlikeMembersShareTheWeight) {
  Drawn drawn = draw(2000, {0.5}, 5);
  drawn.logits = {drawn.logits[0], drawn.logits[0], drawn.logits[0]};
  const Stack stack = fit_stack(drawn.logits, drawn.labels).value();
  EXPECT_NEAR(stack.weights[0], stack.weights[1], 1e-6);
  EXPECT_NEAR(stack.weights[1], stack.weights[2], 1e-6);
  EXPECT_GT(stack.weights[0], 0.1);
}

// Members that tell the classes apart without error have no best weights: any larger are better.
TEST(Stacking, SeparableLabelsEnd) {
  Drawn drawn;
  drawn.logits.resize(2);
  for (int i = 0; i < 100; ++i) {
    drawn.labels.push_back(i % 2 == 0 ? 1.0f : 0.0f);
    for (auto& member : drawn.logits) member.push_back(i % 2 == 0 ? 3.0f : -3.0f);
  }
  const Stack stack = fit_stack(drawn.logits, drawn.labels).value();
  EXPECT_TRUE(std::isfinite(stack.weights[0]));
  EXPECT_LT(log_loss(stack, drawn), log_loss(Stack::mean(2), drawn));
}

TEST(Stacking, WhatCannotBeFittedIsRefused) {
  Drawn drawn = draw(50, {0.5, 1}, 6);
  const std::vector<float> ones(50, 1.0f);
  EXPECT_EQ(fit_stack(drawn.logits, ones).status().code(), Code::kInvalid);
  drawn.logits[1][7] = NAN;
  EXPECT_EQ(fit_stack(drawn.logits, drawn.labels).status().code(), Code::kInvalid);
}

}  // namespace
}  // namespace meander::launch
