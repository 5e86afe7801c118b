// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/decayed_pool.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/nn/op_harness.h"

namespace meander::nn {
namespace {

constexpr std::int32_t kWidth = 5;

struct Decay {
  explicit Decay(DecayOptions options, Rows offset_rows = Rows::kGroup)
      : harness({4, 3, 3, 1}, 2), options(options) {
    x = harness.input(Rows::kHistory, kWidth);
    if (offset_rows != Rows::kGroup) offset = harness.input(offset_rows, 1);
    this->options.offset = offset;
    out = decayed_pool(harness.graph, "decay", x, this->options);
    harness.build({out});
    for (std::int32_t r = 0; r < harness.layout.history_rows; ++r) {
      harness.age.push_back(static_cast<float>(40 - 3 * r));
    }
  }

  // The sums as they are written down, without a softmax.
  double naive(OpHarness::Numbers& n) const {
    for (std::int32_t g = 0; g < harness.layout.groups; ++g) {
      double sum = 0;
      std::vector<double> u(kWidth);
      for (std::int32_t t = 0; t < harness.lengths()[g]; ++t) {
        const std::int32_t row = harness.row(t, g);
        double rate = std::log(2.0) / options.half_life_h;
        if (options.learned) rate *= std::exp(n.dense[0]);
        if (offset != kNoTensor) {
          const bool by_row = harness.graph.spec(offset).rows == Rows::kHistory;
          rate *= std::exp(n.tensors[offset][by_row ? row : g * 2]);
        }
        const double weight = std::exp(-rate * harness.age[row]);
        sum += weight;
        for (int c = 0; c < kWidth; ++c) u[c] += weight * n.tensors[x][row * kWidth + c];
      }
      for (int c = 0; c < kWidth; ++c) n.tensors[out][g * kWidth + c] = u[c] / sum;
    }
    return 0;
  }
  void expect_matches() {
    harness.expect_matches([this](OpHarness::Numbers& n) { return naive(n); });
  }

  OpHarness harness;
  DecayOptions options;
  TensorId x = kNoTensor, offset = kNoTensor, out = kNoTensor;
};

TEST(DecayedPool, FixedRateMatchesItsFormula) { Decay({.half_life_h = 10}).expect_matches(); }

TEST(DecayedPool, LearnedRateMatchesFiniteDifferences) {
  Decay({.half_life_h = 10, .learned = true}).expect_matches();
}

TEST(DecayedPool, RateOfEachBehaviourMatchesFiniteDifferences) {
  Decay({.half_life_h = 10, .learned = true}, Rows::kHistory).expect_matches();
}

TEST(DecayedPool, RateOfEachUserMatchesFiniteDifferences) {
  Decay({.half_life_h = 10, .learned = true}, Rows::kSample).expect_matches();
}

TEST(DecayedPool, LongHalfLifeIsTheMean) {
  Decay decay({.half_life_h = 1e6f});
  decay.harness.forward(false);
  for (int c = 0; c < kWidth; ++c) {
    double sum = 0;
    for (int t = 0; t < 4; ++t) {
      sum += decay.harness.values(decay.x)[decay.harness.row(t, 0) * kWidth + c];
    }
    EXPECT_NEAR(decay.harness.values(decay.out)[c], sum / 4, 1e-4);
  }
}

// A user who comes back after a year has an interest still: that of the newest behaviours.
TEST(DecayedPool, OldHistoriesDoNotVanish) {
  Decay decay({.half_life_h = 1});
  for (float& age : decay.harness.age) age += 9000;
  decay.harness.forward(false);
  for (const float x : decay.harness.values(decay.out)) EXPECT_TRUE(std::isfinite(x));
  float most = 0;
  for (const float x : decay.harness.values(decay.out)) most = std::max(most, std::abs(x));
  EXPECT_GT(most, 0.1f);
}

}  // namespace
}  // namespace meander::nn
