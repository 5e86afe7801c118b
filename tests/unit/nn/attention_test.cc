// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/attention.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/nn/op_harness.h"

namespace meander::nn {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

std::vector<double> layer(const OpHarness& harness, const OpHarness::Numbers& numbers,
                          const std::string& name, const std::vector<double>& x,
                          std::int32_t units) {
  const double* kernel = &numbers.dense[harness.place(name + "/kernel")];
  const double* bias = &numbers.dense[harness.place(name + "/bias")];
  std::vector<double> out(bias, bias + units);
  for (std::size_t i = 0; i < x.size(); ++i) {
    for (std::int32_t j = 0; j < units; ++j) out[j] += x[i] * kernel[i * units + j];
  }
  return out;
}

double score(const OpHarness& harness, const OpHarness::Numbers& numbers, const double* q,
             const double* k, std::int32_t e, AttentionOptions options) {
  std::vector<double> x;
  for (std::int32_t i = 0; i < e; ++i) x.push_back(q[i]);
  for (std::int32_t i = 0; i < e; ++i) x.push_back(k[i]);
  for (std::int32_t i = 0; i < e; ++i) x.push_back(q[i] - k[i]);
  for (std::int32_t i = 0; i < e; ++i) x.push_back(q[i] * k[i]);
  x = layer(harness, numbers, "att/dense1", x, options.hidden1);
  for (double& v : x) v = sigmoid(v);
  x = layer(harness, numbers, "att/dense2", x, options.hidden2);
  for (double& v : x) v = sigmoid(v);
  return layer(harness, numbers, "att/dense3", x, 1)[0];
}

TEST(AttentionWeights, MatchNaiveFormAndItsDifferences) {
  const AttentionOptions options{.hidden1 = 7, .hidden2 = 5};
  for (const std::int32_t k : {1, 2, 3}) {
    OpHarness harness({4, 3, 3, 1}, k);
    const std::int32_t e = 5;
    const TensorId query = harness.input(Rows::kSample, e);
    const TensorId keys = harness.input(Rows::kHistory, e);
    const TensorId out = attention_weights(harness.graph, "att", query, keys, options);
    harness.build({out});
    harness.expect_matches(
        [&](OpHarness::Numbers& numbers) {
          for (std::int32_t s = 0; s < harness.layout.samples(); ++s) {
            const std::int32_t g = s / k, steps = harness.lengths()[g];
            std::vector<double> weight;
            double sum = 0;
            for (std::int32_t t = 0; t < steps; ++t) {
              const double* key = &numbers.tensors[keys][harness.row(t, g) * e];
              weight.push_back(std::exp(
                  score(harness, numbers, &numbers.tensors[query][s * e], key, e, options)));
              sum += weight.back();
            }
            for (std::int32_t t = 0; t < steps; ++t) {
              numbers.tensors[out][harness.row(t, g) * k + s % k] = weight[t] / sum;
            }
          }
          return 0.0;
        },
        k == 2 ? 1 : 7);
  }
}

TEST(AttentionWeights, OfOneSampleAddToOneAlsoOverManyTiles) {
  OpHarness harness({120, 50, 50, 1}, 2);
  const TensorId query = harness.input(Rows::kSample, 36);
  const TensorId keys = harness.input(Rows::kHistory, 36);
  const TensorId out = attention_weights(harness.graph, "att", query, keys);
  harness.build({out});
  for (float& x : harness.values(keys)) x *= 50;  // scores far apart
  harness.forward();
  for (std::int32_t g = 0; g < 4; ++g) {
    for (std::int32_t c = 0; c < 2; ++c) {
      double sum = 0;
      for (std::int32_t t = 0; t < harness.lengths()[g]; ++t) {
        sum += harness.values(out)[harness.row(t, g) * 2 + c];
      }
      EXPECT_NEAR(sum, 1, 1e-5);
    }
  }
}

TEST(AttentionWeights, DoNotDependOnCompanyOrTile) {
  const std::vector<std::int32_t> lengths = {60, 55, 7, 2, 1};
  const auto build = [](OpHarness& harness) {
    const TensorId query = harness.input(Rows::kSample, 36);
    const TensorId keys = harness.input(Rows::kHistory, 36);
    const TensorId weights = attention_weights(harness.graph, "att", query, keys);
    harness.build({weights, attention_pool(harness.graph, "pool", weights, keys)});
  };
  OpHarness together(lengths, 2);
  build(together);
  for (std::int32_t g = 0; g < together.layout.groups; ++g) {
    OpHarness alone({lengths[g]}, 2);
    build(alone);
    together.expect_group_equals(g, alone);
  }
}

TEST(AttentionWeights, GradientsAddUpOverTiles) {
  OpHarness harness({60, 60, 55, 3}, 2);
  const std::int32_t e = 3, k = 2;
  const AttentionOptions options{.hidden1 = 4, .hidden2 = 3};
  const TensorId query = harness.input(Rows::kSample, e);
  const TensorId keys = harness.input(Rows::kHistory, e);
  const TensorId weights = attention_weights(harness.graph, "att", query, keys, options);
  const TensorId out = attention_pool(harness.graph, "pool", weights, keys);
  harness.build({out});
  harness.expect_matches(
      [&](OpHarness::Numbers& numbers) {
        for (std::int32_t s = 0; s < harness.layout.samples(); ++s) {
          const std::int32_t g = s / k;
          double sum = 0;
          std::vector<double> pooled(e);
          for (std::int32_t t = 0; t < harness.lengths()[g]; ++t) {
            const double* key = &numbers.tensors[keys][harness.row(t, g) * e];
            const double weight =
                std::exp(score(harness, numbers, &numbers.tensors[query][s * e], key, e, options));
            sum += weight;
            for (std::int32_t i = 0; i < e; ++i) pooled[i] += weight * key[i];
          }
          for (std::int32_t i = 0; i < e; ++i) numbers.tensors[out][s * e + i] = pooled[i] / sum;
        }
        return 0.0;
      },
      31);
}

TEST(AttentionPool, MatchesNaiveFormAndItsDifferences) {
  for (const std::int32_t k : {1, 2, 3}) {
    OpHarness harness({4, 3, 3, 1}, k);
    const std::int32_t e = 21;
    const TensorId weights = harness.input(Rows::kHistorySample, 1);
    const TensorId keys = harness.input(Rows::kHistory, e);
    const TensorId out = attention_pool(harness.graph, "pool", weights, keys);
    harness.build({out});
    harness.expect_matches([&](OpHarness::Numbers& numbers) {
      std::ranges::fill(numbers.tensors[out], 0.0);
      for (std::int32_t s = 0; s < harness.layout.samples(); ++s) {
        for (std::int32_t t = 0; t < harness.lengths()[s / k]; ++t) {
          const std::int32_t row = harness.row(t, s / k);
          for (std::int32_t i = 0; i < e; ++i) {
            numbers.tensors[out][s * e + i] +=
                numbers.tensors[weights][row * k + s % k] * numbers.tensors[keys][row * e + i];
          }
        }
      }
      return 0.0;
    });
  }
}

TEST(AttentionWeights, RefuseQueryOfAnotherWidth) {
  OpHarness harness({2}, 1);
  const TensorId query = harness.input(Rows::kSample, 3);
  const TensorId keys = harness.input(Rows::kHistory, 4);
  EXPECT_DEATH(attention_weights(harness.graph, "att", query, keys), "att");
}

}  // namespace
}  // namespace meander::nn
