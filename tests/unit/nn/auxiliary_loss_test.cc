// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/auxiliary_loss.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/nn/op_harness.h"

namespace meander::nn {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

constexpr std::int32_t kState = 4, kBehaviour = 5;

struct Net {
  const OpHarness& harness;
  const OpHarness::Numbers& numbers;
  const AuxiliaryLossOptions& options;

  std::vector<double> layer(const char* name, const std::vector<double>& x,
                            std::int32_t units) const {
    const double* kernel = &numbers.dense[harness.place(std::string("aux/") + name + "/kernel")];
    const double* bias = &numbers.dense[harness.place(std::string("aux/") + name + "/bias")];
    std::vector<double> out(bias, bias + units);
    for (std::size_t i = 0; i < x.size(); ++i) {
      for (std::int32_t j = 0; j < units; ++j) out[j] += x[i] * kernel[i * units + j];
    }
    return out;
  }

  // Probability of a click: the first of two softmax columns.
  double click(const double* state, const double* behaviour) const {
    std::vector<double> x(state, state + kState);
    x.insert(x.end(), behaviour, behaviour + kBehaviour);
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = numbers.dense[harness.place("aux/scale/gamma") + i] * x[i] / std::sqrt(1.001) +
             numbers.dense[harness.place("aux/scale/beta") + i];
    }
    x = layer("dense1", x, options.hidden1);
    for (double& v : x) v = sigmoid(v);
    x = layer("dense2", x, options.hidden2);
    for (double& v : x) v = sigmoid(v);
    x = layer("dense3", x, 2);
    return std::exp(x[0]) / (std::exp(x[0]) + std::exp(x[1]));
  }
};

struct Loss {
  Loss(std::vector<std::int32_t> lengths, AuxiliaryLossOptions with)
      : harness(std::move(lengths), 2), options(with) {
    states = harness.input(Rows::kHistory, kState);
    history = harness.input(Rows::kHistory, kBehaviour);
    negatives = harness.input(Rows::kHistory, kBehaviour);
    auxiliary_loss(harness.graph, "aux", states, history, negatives, options);
    harness.build({});
  }

  double naive(const OpHarness::Numbers& numbers) const {
    const Net net{harness, numbers, options};
    double sum = 0, rows = 0;
    for (std::int32_t g = 0; g < harness.layout.groups; ++g) {
      for (std::int32_t t = 1; t < harness.lengths()[g]; ++t) {
        const std::int32_t row = harness.row(t, g);
        if (harness.valid[row] == 0) continue;
        const double* state = &numbers.tensors[states][harness.row(t - 1, g) * kState];
        ++rows;
        sum -= std::log(net.click(state, &numbers.tensors[history][row * kBehaviour]));
        sum -= std::log(1 - net.click(state, &numbers.tensors[negatives][row * kBehaviour]));
      }
    }
    const double padded = harness.layout.batch_groups * (harness.layout.batch_longest - 1.0);
    return options.weight * sum / (options.real_rows ? rows : padded);
  }

  OpHarness harness;
  AuxiliaryLossOptions options;
  TensorId states, history, negatives;
};

TEST(AuxiliaryLoss, MatchesNaiveFormAndItsDifferences) {
  Loss loss({4, 3, 3, 1}, {.hidden1 = 6, .hidden2 = 3, .weight = 0.7f});
  loss.harness.valid[loss.harness.row(2, 1)] = 0;
  loss.harness.expect_matches([&](OpHarness::Numbers& numbers) { return loss.naive(numbers); });
}

TEST(AuxiliaryLoss, AddsUpOverTiles) {
  Loss loss({40, 37, 37, 5, 1}, {.hidden1 = 4, .hidden2 = 3});
  loss.harness.valid[loss.harness.row(2, 1)] = 0;
  loss.harness.valid[loss.harness.row(30, 0)] = 0;
  loss.harness.expect_matches([&](OpHarness::Numbers& numbers) { return loss.naive(numbers); }, 61);
}

TEST(AuxiliaryLoss, RealRowsAreCountedOverTheBatch) {
  Loss loss({4, 3, 3, 1}, {.hidden1 = 6, .hidden2 = 3, .real_rows = true});
  loss.harness.valid[loss.harness.row(1, 0)] = 0;
  loss.harness.layout.batch_negatives = 6;
  loss.harness.expect_matches([&](OpHarness::Numbers& numbers) { return loss.naive(numbers); });
}

TEST(AuxiliaryLoss, SharesOfPartsAddToTheLossOfTheBatch) {
  const AuxiliaryLossOptions options{.hidden1 = 6, .hidden2 = 3};
  Loss part({3, 2}, options);
  const double alone = part.harness.forward();
  part.harness.layout.batch_groups = 8;
  part.harness.layout.batch_longest = 5;
  EXPECT_NEAR(part.harness.forward(), alone * (2 * 2) / (8 * 4), 1e-6);
}

TEST(AuxiliaryLoss, HistoriesOfOneBehaviourHaveNone) {
  Loss loss({1, 1}, {});
  EXPECT_EQ(loss.harness.forward(), 0);
  loss.harness.backward();
  for (float d : loss.harness.ddense) EXPECT_EQ(d, 0);
}

TEST(AuxiliaryLoss, IsSilentAtInference) {
  Loss loss({3, 2}, {});
  EXPECT_EQ(loss.harness.forward(false), 0);
}

TEST(AuxiliaryLoss, AsksForNegatives) {
  Loss loss({2}, {});
  EXPECT_TRUE(loss.harness.graph.needs_negatives());
}

TEST(AuxiliaryLoss, ConfidentNetStaysFinite) {
  Loss loss({3, 2}, {});
  for (std::size_t i = 0; i < 2; ++i) {
    loss.harness.dense[loss.harness.place("aux/dense3/bias") + i] = i == 0 ? 300.0f : -300.0f;
  }
  EXPECT_TRUE(std::isfinite(loss.harness.forward()));
  loss.harness.backward();
  for (float d : loss.harness.ddense) EXPECT_TRUE(std::isfinite(d));
}

}  // namespace
}  // namespace meander::nn
