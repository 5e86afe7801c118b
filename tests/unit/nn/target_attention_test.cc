// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/target_attention.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "nn/ops/add.h"
#include "tests/unit/nn/op_harness.h"

namespace meander::nn {
namespace {

using Numbers = OpHarness::Numbers;

// Keys and values of every x_j are projected, as the formula has it.
struct Naive {
  OpHarness& harness;
  TensorId query, target, history, out;
  std::int32_t d, heads;

  std::vector<double> projected(const Numbers& n, const char* kernel, const double* x) const {
    const double* w = &n.dense[harness.place(kernel)];
    std::vector<double> y(d);
    for (std::int32_t i = 0; i < d; ++i) {
      for (std::int32_t j = 0; j < d; ++j) y[j] += x[i] * w[i * d + j];
    }
    return y;
  }

  double operator()(Numbers& n) const {
    const std::int32_t k = harness.layout.candidates, width = d / heads;
    for (std::int32_t s = 0; s < harness.layout.samples(); ++s) {
      std::vector<std::vector<double>> keys, values;
      const std::int32_t length = harness.lengths()[s / k];
      for (std::int32_t t = 0; t <= length; ++t) {
        const double* x =
            t < length ? &n.tensors[history][harness.row(t, s / k) * d] : &n.tensors[target][s * d];
        keys.push_back(projected(n, "att/keys", x));
        values.push_back(projected(n, "att/values", x));
      }
      for (std::int32_t h = 0; h < heads; ++h) {
        std::vector<double> weight(keys.size());
        double sum = 0;
        for (std::size_t t = 0; t < keys.size(); ++t) {
          for (std::int32_t c = h * width; c < (h + 1) * width; ++c) {
            weight[t] += n.tensors[query][s * d + c] * keys[t][c] / std::sqrt(width);
          }
          sum += weight[t] = std::exp(weight[t]);
        }
        for (std::int32_t c = h * width; c < (h + 1) * width; ++c) {
          double& to = n.tensors[out][s * d + c] = 0;
          for (std::size_t t = 0; t < keys.size(); ++t) to += weight[t] / sum * values[t][c];
        }
      }
    }
    return 0;
  }
};

TEST(TargetAttention, MatchesNaiveFormAndItsDifferences) {
  for (const auto& [k, d, heads] : {std::tuple{1, 4, 1}, {2, 6, 2}, {3, 18, 3}}) {
    OpHarness harness({5, 3, 3, 1}, k);
    const TensorId query = harness.input(Rows::kSample, d);
    const TensorId target = harness.input(Rows::kSample, d);
    const TensorId history = harness.input(Rows::kHistory, d);
    const TensorId out = target_attention(harness.graph, "att", query, target, history, heads);
    harness.build({out});
    harness.expect_matches(Naive{harness, query, target, history, out, d, heads}, d < 10 ? 1 : 5);
  }
}

TEST(TargetAttention, OfASampleDependsOnItsOwnHistoryAlone) {
  const std::vector<std::int32_t> lengths = {40, 40, 7, 1};
  const auto build = [](OpHarness& harness) {
    const TensorId query = harness.input(Rows::kSample, 12);
    const TensorId target = harness.input(Rows::kSample, 12);
    const TensorId history = harness.input(Rows::kHistory, 12);
    harness.build({target_attention(harness.graph, "att", query, target, history, 3)});
  };
  OpHarness all(lengths, 2);
  build(all);
  for (std::int32_t g = 0; g < 4; ++g) {
    OpHarness alone({lengths[g]}, 2);
    build(alone);
    all.expect_group_equals(g, alone);
  }
}

TEST(Add, MatchesNaiveForm) {
  OpHarness harness({3, 1}, 2);
  const TensorId a = harness.input(Rows::kSample, 5), b = harness.input(Rows::kSample, 5);
  const TensorId out = add(harness.graph, "add", a, b);
  harness.build({out});
  harness.expect_matches([&](Numbers& n) {
    for (std::size_t i = 0; i < n.tensors[a].size(); ++i) {
      n.tensors[out][i] = n.tensors[a][i] + n.tensors[b][i];
    }
    return 0.0;
  });
}

}  // namespace
}  // namespace meander::nn
