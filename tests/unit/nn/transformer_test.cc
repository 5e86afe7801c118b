// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/transformer.h"

#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "nn/ops/dropout.h"
#include "nn/ops/layer_norm.h"
#include "nn/simd/kernels.h"
#include "tests/unit/nn/op_harness.h"

namespace meander::nn {
namespace {

using Numbers = OpHarness::Numbers;
using Doubles = std::vector<double>;

constexpr std::uint64_t kSeed = 5;

// The factor of value `number` of a place that may drop.
class Factors {
 public:
  Factors(const std::string& place, float rate, std::size_t n) {
    OpContext context;
    context.training = true;
    context.seed = kSeed;
    const std::vector<float> ones(n, 1.0f);
    of_.resize(n);
    kernels().dropout(DropPlace(place, rate).in(context), 0, ones.data(), of_.data(), n);
  }
  double operator()(std::size_t number) const { return of_[number]; }

 private:
  std::vector<float> of_;
};

Doubles norm(const Doubles& x, const double* gamma, const double* beta, double epsilon) {
  double mean = 0, variance = 0;
  for (double v : x) mean += v / x.size();
  for (double v : x) variance += (v - mean) * (v - mean) / x.size();
  Doubles y;
  for (std::size_t c = 0; c < x.size(); ++c) {
    y.push_back(gamma[c] * (x[c] - mean) / std::sqrt(variance + epsilon) + beta[c]);
  }
  return y;
}

Doubles layer(const Doubles& x, const double* kernel, const double* bias, std::size_t n) {
  Doubles y(bias, bias + n);
  for (std::size_t i = 0; i < x.size(); ++i) {
    for (std::size_t j = 0; j < n; ++j) y[j] += x[i] * kernel[i * n + j];
  }
  return y;
}

// A block, one history after another, as its header has it.
struct NaiveBlock {
  OpHarness& harness;
  TensorId x, out;
  TransformerOptions options;

  const double* param(const Numbers& n, const std::string& name) const {
    return &n.dense[harness.place("b" + name)];
  }

  double operator()(Numbers& n) const {
    const auto d = static_cast<std::size_t>(harness.graph.spec(x).width);
    const auto rows = static_cast<std::size_t>(harness.layout.history_rows);
    const auto steps = static_cast<std::size_t>(harness.layout.steps());
    const Factors weights("b/attention", options.dropout,
                          harness.lengths().size() * options.heads * steps * steps);
    const Factors hidden("b/hidden", options.dropout, rows * d);
    const Factors last("b/out", options.dropout, rows * d);
    std::size_t number = 0;
    for (std::size_t g = 0; g < harness.lengths().size(); ++g) {
      const auto length = static_cast<std::size_t>(harness.lengths()[g]);
      std::vector<Doubles> q(length), query(length), keys_values(length);
      for (std::size_t t = 0; t < length; ++t) {
        const double* from = &n.tensors[x][harness.row(t, g) * d];
        const Doubles row(from, from + d);
        q[t] = norm(row, param(n, "/attention/norm/gamma"), param(n, "/attention/norm/beta"),
                    options.epsilon);
        query[t] =
            layer(q[t], param(n, "/attention/query/kernel"), param(n, "/attention/query/bias"), d);
        keys_values[t] = layer(row, param(n, "/attention/keys_values/kernel"),
                               param(n, "/attention/keys_values/bias"), 2 * d);
      }
      for (std::size_t t = 0; t < length; ++t) {
        Doubles y = q[t];
        for (int h = 0; h < options.heads; ++h) {
          const std::size_t first = (g * options.heads + h) * steps * steps + t * steps;
          attend(query, keys_values, t, h, [&](std::size_t j) { return weights(first + j); }, y);
        }
        const Doubles z = norm(y, param(n, "/feed_forward/norm/gamma"),
                               param(n, "/feed_forward/norm/beta"), options.epsilon);
        Doubles inner = layer(z, param(n, "/feed_forward/dense1/kernel"),
                              param(n, "/feed_forward/dense1/bias"), d);
        for (std::size_t c = 0; c < d; ++c) inner[c] = std::max(inner[c], 0.0) * hidden(number + c);
        const Doubles added = layer(inner, param(n, "/feed_forward/dense2/kernel"),
                                    param(n, "/feed_forward/dense2/bias"), d);
        for (std::size_t c = 0; c < d; ++c, ++number) {
          n.tensors[out][harness.row(t, g) * d + c] = z[c] + added[c] * last(number);
        }
      }
    }
    return 0;
  }

  template <class Factor>
  void attend(const std::vector<Doubles>& query, const std::vector<Doubles>& keys_values,
              std::size_t t, int head, Factor factor, Doubles& y) const {
    const std::size_t d = y.size(), width = d / options.heads, from = head * width;
    Doubles score(t + 1);
    double sum = 0;
    for (std::size_t j = 0; j <= t; ++j) {
      for (std::size_t c = from; c < from + width; ++c) score[j] += query[t][c] * keys_values[j][c];
      score[j] = std::exp(score[j] / std::sqrt(width));
      sum += score[j];
    }
    for (std::size_t j = 0; j <= t; ++j) {
      for (std::size_t c = from; c < from + width; ++c) {
        y[c] += score[j] / sum * factor(j) * keys_values[j][d + c];
      }
    }
  }
};

void expect_block_matches(std::vector<std::int32_t> lengths, std::int32_t d,
                          const TransformerOptions& options, std::size_t stride) {
  OpHarness harness(std::move(lengths), 1);
  harness.seed = kSeed;
  const TensorId x = harness.input(Rows::kHistory, d);
  const TensorId out = transformer_block(harness.graph, "b", x, options);
  harness.build({out});
  harness.expect_matches(NaiveBlock{harness, x, out, options}, stride);
}

TEST(TransformerBlock, ForwardAndGradientsMatchNaiveForm) {
  expect_block_matches({5, 3, 1, 1}, 6, {.epsilon = 1e-4f}, 1);
}

TEST(TransformerBlock, SoItDoesWithHeadsAndDropout) {
  expect_block_matches({6, 3, 3, 1}, 6, {.heads = 2, .dropout = 0.3f, .epsilon = 1e-4f}, 1);
  expect_block_matches({4, 2}, 20, {.heads = 4, .dropout = 0.5f, .epsilon = 1e-4f}, 7);
}

TEST(TransformerBlock, SoItDoesAcrossTilesAndChunks) {
  expect_block_matches({70, 65, 64, 33, 32, 31, 17, 1}, 10,
                       {.heads = 2, .dropout = 0.2f, .epsilon = 1e-4f}, 97);
}

TEST(TransformerBlock, AHistoryDoesNotDependOnOthers) {
  const std::vector<std::int32_t> lengths = {70, 40, 40, 3, 1};
  const auto build = [](OpHarness& harness) {
    const TensorId x = harness.input(Rows::kHistory, 10);
    harness.build({transformer_block(harness.graph, "b", x, {.heads = 2, .dropout = 0.5f})});
  };
  OpHarness all(lengths, 1);
  build(all);
  for (std::int32_t g = 0; g < 5; ++g) {
    OpHarness alone({lengths[g]}, 1);
    build(alone);
    all.expect_group_equals(g, alone);
  }
}

TEST(TransformerBlock, AStateDoesNotDependOnWhatComesLater) {
  OpHarness harness({50, 3}, 1);
  const TensorId x = harness.input(Rows::kHistory, 8);
  const TensorId out = transformer_block(harness.graph, "b", x, {});
  harness.build({out});
  harness.forward(false);
  const std::vector<float> before = harness.values(out);
  const std::int32_t changed = 40;
  harness.values(x)[harness.row(changed, 0) * 8] += 1;
  harness.forward(false);
  for (std::int32_t t = 0; t < 50; ++t) {
    const std::size_t at = harness.row(t, 0) * 8;
    const bool same = std::equal(&before[at], &before[at] + 8, &harness.values(out)[at]);
    EXPECT_EQ(same, t < changed) << t;
  }
}

TEST(AddPositions, NewestBehaviourHasTheLastPosition) {
  for (const std::int32_t positions : {4, 6}) {
    OpHarness harness({5, 3, 1}, 1);
    harness.seed = kSeed;
    const TensorId x = harness.input(Rows::kHistory, 3);
    const TensorId out = add_positions(harness.graph, "p", x, positions, 2.0f, 0.25f);
    harness.build({out});
    const Factors factors("p", 0.25f, 9 * 3);
    harness.expect_matches([&](Numbers& n) {
      for (std::int32_t g = 0; g < 3; ++g) {
        for (std::int32_t t = 0; t < harness.lengths()[g]; ++t) {
          const std::int32_t position = std::max(0, positions - harness.lengths()[g] + t);
          for (std::size_t c = 0; c < 3; ++c) {
            const std::size_t at = harness.row(t, g) * 3 + c;
            n.tensors[out][at] = factors(at) * (2 * n.tensors[x][at] + n.dense[position * 3 + c]);
          }
        }
      }
      return 0.0;
    });
  }
}

TEST(LayerNorm, ForwardAndGradientsMatchNaiveForm) {
  for (const std::int32_t width : {1, 4, 18, 50}) {
    OpHarness harness({4, 2, 1}, 2);
    const TensorId x = harness.input(Rows::kHistory, width);
    const TensorId out = layer_norm(harness.graph, "norm", x, 1e-3f);
    harness.build({out});
    const std::size_t gamma = harness.place("norm/gamma"), beta = harness.place("norm/beta");
    harness.expect_matches([&](Numbers& n) {
      for (std::size_t at = 0; at < n.tensors[x].size(); at += width) {
        const Doubles y = norm({&n.tensors[x][at], &n.tensors[x][at] + width}, &n.dense[gamma],
                               &n.dense[beta], 1e-3f);
        std::ranges::copy(y, n.tensors[out].begin() + at);
      }
      return 0.0;
    });
  }
}

}  // namespace
}  // namespace meander::nn
