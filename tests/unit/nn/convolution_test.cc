// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/convolution.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "nn/ops/click.h"
#include "nn/ops/factor_score.h"
#include "tests/unit/nn/op_harness.h"
#include "tests/unit/nn/step_check.h"

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

// Rows of two tables, some of them named by several samples of one part and of two.
TEST(FactorScore, MatchesItsFormula) {
  constexpr std::int32_t kWidth = 7;
  constexpr float kL2 = 0.3f;
  Graph graph({{"item", 0, kWidth, true}, {"user", 1, kWidth, false}}, 0);
  const TensorId out = factor_score(graph, "score", 1, 0, kL2);
  graph.set_logits(out);
  click_loss(graph, "loss", out, 1.0f);
  graph.finish();
  StepCheck check(std::move(graph), {{2, 1}, {3, 1, 1}}, 3, 5);
  const StepOutput output = check.train();
  std::size_t at = 0;
  double squares = 0;
  std::vector<float> labels;
  for (const PartInput& part : check.batch().inputs()) {
    const auto& columns = part.columns[static_cast<int>(Source::kTarget)];
    for (std::size_t r = 0; r < columns[0].size(); ++r, ++at) {
      const float* item = &check.table(0)[columns[0][r] * kWidth];
      const float* user = &check.table(1)[columns[1][r] * kWidth];
      double sum = check.dense()[0] + item[kWidth - 1] + user[kWidth - 1];
      for (std::int32_t j = 0; j + 1 < kWidth; ++j) sum += double{item[j]} * user[j];
      ASSERT_NEAR(check.logits()[at], sum, 1e-5) << at;
      for (std::int32_t j = 0; j < kWidth; ++j) squares += item[j] * item[j] + user[j] * user[j];
      labels.push_back(part.label[r]);
    }
  }
  EXPECT_NEAR(output.loss,
              binary_cross_entropy(check.logits(), labels) + kL2 * squares / 2 / double(at), 1e-5);
  check.expect_gradients_match();
}

}  // namespace
}  // namespace meander::nn
