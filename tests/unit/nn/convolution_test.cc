// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/convolution.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "nn/ops/factor_score.h"
#include "tests/unit/nn/op_harness.h"

namespace meander::nn {
namespace {

TEST(HorizontalConvolution, MatchesItsFormula) {
  constexpr std::int32_t kWidth = 5, kFilters = 3;
  const std::vector<std::int32_t> heights = {2, 4};
  OpHarness harness({7, 4, 3, 1}, 1);
  const TensorId x = harness.input(Rows::kHistory, kWidth);
  const TensorId out = horizontal_convolution(harness.graph, "conv", x, heights, kFilters);
  harness.build({out});
  harness.expect_matches([&](OpHarness::Numbers& n) {
    for (std::int32_t g = 0; g < 4; ++g) {
      for (std::int32_t i = 0; i < 2; ++i) {
        const std::string prefix = "conv/height" + std::to_string(heights[i]);
        const double* kernel = &n.dense[harness.place(prefix + "/kernel")];
        const double* bias = &n.dense[harness.place(prefix + "/bias")];
        const std::int32_t length = harness.lengths()[g], height = heights[i];
        // Windows by their begin; before a short history there are zeros.
        const std::int32_t first = std::min(0, length - height);
        for (std::int32_t f = 0; f < kFilters; ++f) {
          double best = 0;
          for (std::int32_t t = first; t + height <= length; ++t) {
            double sum = bias[f];
            for (std::int32_t s = 0; s < height; ++s) {
              for (std::int32_t c = 0; t + s >= 0 && c < kWidth; ++c) {
                sum += n.tensors[x][harness.row(t + s, g) * kWidth + c] *
                       kernel[(s * kWidth + c) * kFilters + f];
              }
            }
            best = std::max(best, sum);
          }
          n.tensors[out][g * 2 * kFilters + i * kFilters + f] = best;
        }
      }
    }
    return 0.0;
  });
}

TEST(VerticalConvolution, MatchesItsFormula) {
  constexpr std::int32_t kWidth = 6, kFilters = 2, kLength = 3;
  OpHarness harness({5, 3, 2, 1}, 1);
  const TensorId x = harness.input(Rows::kHistory, kWidth);
  const TensorId out = vertical_convolution(harness.graph, "conv", x, kLength, kFilters);
  harness.build({out});
  harness.expect_matches([&](OpHarness::Numbers& n) {
    for (std::int32_t g = 0; g < 4; ++g) {
      const std::int32_t length = harness.lengths()[g];
      for (std::int32_t v = 0; v < kFilters; ++v) {
        for (std::int32_t c = 0; c < kWidth; ++c) {
          double sum = 0;
          for (std::int32_t age = 0; age < std::min(length, kLength); ++age) {
            sum += n.dense[harness.place("conv/kernel") + v * kLength + age] *
                   n.tensors[x][harness.row(length - 1 - age, g) * kWidth + c];
          }
          n.tensors[out][(g * kFilters + v) * kWidth + c] = sum;
        }
      }
    }
    return 0.0;
  });
}

TEST(Convolution, AHistoryDoesNotDependOnTheOthers) {
  const std::vector<std::int32_t> lengths = {6, 4, 2, 1};
  OpHarness all(lengths, 1);
  const auto add = [](OpHarness& harness) {
    const TensorId x = harness.input(Rows::kHistory, 8);
    harness.build({horizontal_convolution(harness.graph, "h", x, {2, 3, 4}, 16),
                   vertical_convolution(harness.graph, "v", x, 4, 4)});
  };
  add(all);
  for (std::int32_t g = 0; g < 4; ++g) {
    OpHarness alone({lengths[g]}, 1);
    add(alone);
    all.expect_group_equals(g, alone);
  }
}

TEST(FactorScore, MatchesItsFormula) {
  OpHarness harness({2, 1}, 3);
  const TensorId a = harness.input(Rows::kSample, 7), b = harness.input(Rows::kSample, 7);
  const TensorId out = factor_score(harness.graph, "score", a, b, 0.3f);
  harness.build({out});
  harness.expect_matches([&](OpHarness::Numbers& n) {
    double squares = 0;
    for (std::int32_t r = 0; r < 6; ++r) {
      double sum = n.dense[0] + n.tensors[a][r * 7 + 6] + n.tensors[b][r * 7 + 6];
      for (std::int32_t j = 0; j < 6; ++j) sum += n.tensors[a][r * 7 + j] * n.tensors[b][r * 7 + j];
      n.tensors[out][r] = sum;
      for (std::int32_t j = 0; j < 7; ++j) {
        for (const TensorId x : {a, b}) squares += std::pow(n.tensors[x][r * 7 + j], 2);
      }
    }
    return 0.3f * squares / 2 / 6;
  });
}

}  // namespace
}  // namespace meander::nn
