// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/lstm.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/nn/op_harness.h"

namespace meander::nn {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

struct State {
  std::vector<double> h, c;
};

// One step by the book.
State lstm_step(const OpHarness& harness, const OpHarness::Numbers& numbers,
                const std::string& name, const double* x, std::int32_t in, const State& before) {
  const std::int32_t h = static_cast<std::int32_t>(before.h.size());
  const double* kernel = &numbers.dense[harness.place(name + "/kernel")];
  const double* bias = &numbers.dense[harness.place(name + "/bias")];
  std::vector<double> p(4 * h);
  for (std::int32_t j = 0; j < 4 * h; ++j) {
    p[j] = bias[j];
    for (std::int32_t i = 0; i < in; ++i) p[j] += x[i] * kernel[i * 4 * h + j];
    for (std::int32_t i = 0; i < h; ++i) p[j] += before.h[i] * kernel[(in + i) * 4 * h + j];
  }
  State after = before;
  for (std::int32_t j = 0; j < h; ++j) {
    after.c[j] = sigmoid(p[2 * h + j] + 1) * before.c[j] + sigmoid(p[j]) * std::tanh(p[h + j]);
    after.h[j] = sigmoid(p[3 * h + j]) * std::tanh(after.c[j]);
  }
  return after;
}

// The whole op in float64. `tail_x` may be kNoTensor.
void naive_lstm(const OpHarness& harness, OpHarness::Numbers& numbers, const std::string& name,
                TensorId x, std::int32_t in, std::int32_t hidden, TensorId tail_x,
                const LstmOutputs& out) {
  const std::int32_t k = harness.layout.candidates;
  for (std::int32_t g = 0; g < harness.layout.groups; ++g) {
    State state{std::vector<double>(hidden), std::vector<double>(hidden)};
    for (std::int32_t t = 0; t < harness.lengths()[g]; ++t) {
      const std::int32_t row = harness.row(t, g);
      state = lstm_step(harness, numbers, name, &numbers.tensors[x][row * in], in, state);
      std::ranges::copy(state.h, numbers.tensors[out.states].begin() + row * hidden);
    }
    std::ranges::copy(state.h, numbers.tensors[out.last].begin() + g * hidden);
    for (std::int32_t s = g * k; tail_x != kNoTensor && s < (g + 1) * k; ++s) {
      const State tail =
          lstm_step(harness, numbers, name, &numbers.tensors[tail_x][s * in], in, state);
      std::ranges::copy(tail.h, numbers.tensors[out.tail].begin() + s * hidden);
    }
  }
}

TEST(Lstm, MatchesNaiveFormAndItsDifferences) {
  for (const std::int32_t hidden : {3, 18}) {
    OpHarness harness({4, 3, 3, 1}, 2);
    const TensorId x = harness.input(Rows::kHistory, 5);
    const LstmOutputs out = lstm(harness.graph, "lstm", x, hidden);
    EXPECT_EQ(out.tail, kNoTensor);
    harness.build({out.states, out.last});
    harness.expect_matches(
        [&](OpHarness::Numbers& numbers) {
          naive_lstm(harness, numbers, "lstm", x, 5, hidden, kNoTensor, out);
          return 0.0;
        },
        hidden < 16 ? 1 : 13);
  }
}

TEST(Lstm, TailMatchesNaiveFormAndItsDifferences) {
  for (const std::int32_t candidates : {1, 2, 3}) {
    OpHarness harness({4, 3, 3, 1}, candidates);
    const TensorId x = harness.input(Rows::kHistory, 5);
    const TensorId tail = harness.input(Rows::kSample, 5);
    const LstmOutputs out = lstm(harness.graph, "lstm", x, 4, {.tail = tail});
    harness.build({out.states, out.last, out.tail});
    harness.expect_matches([&](OpHarness::Numbers& numbers) {
      naive_lstm(harness, numbers, "lstm", x, 5, 4, tail, out);
      return 0.0;
    });
  }
}

TEST(Lstm, TwoLayersWithTailAreOneSequenceWithTheTargetAppended) {
  OpHarness harness({3, 1}, 2);
  const TensorId x = harness.input(Rows::kHistory, 4);
  const TensorId tail = harness.input(Rows::kSample, 4);
  const LstmOutputs first = lstm(harness.graph, "lstm1", x, 5, {.tail = tail});
  const LstmOutputs second = lstm(harness.graph, "lstm2", first.states, 3, {.tail = first.tail});
  harness.build({second.tail});
  harness.expect_matches([&](OpHarness::Numbers& numbers) {
    naive_lstm(harness, numbers, "lstm1", x, 4, 5, tail, first);
    naive_lstm(harness, numbers, "lstm2", first.states, 5, 3, first.tail, second);
    return 0.0;
  });
}

TEST(Lstm, HistoryDoesNotDependOnItsCompany) {
  const std::vector<std::int32_t> lengths = {9, 7, 7, 2, 1};
  const auto build = [](OpHarness& harness) {
    const TensorId x = harness.input(Rows::kHistory, 36);
    const TensorId tail = harness.input(Rows::kSample, 36);
    const LstmOutputs out = lstm(harness.graph, "lstm", x, 64, {.tail = tail});
    harness.build({out.states, out.last, out.tail});
  };
  OpHarness together(lengths, 2);
  build(together);
  for (std::int32_t g = 0; g < together.layout.groups; ++g) {
    OpHarness alone({lengths[g]}, 2);
    build(alone);
    together.expect_group_equals(g, alone);
  }
}

TEST(Lstm, RefusesTailOfAnotherWidth) {
  OpHarness harness({2}, 1);
  const TensorId x = harness.input(Rows::kHistory, 4);
  const TensorId tail = harness.input(Rows::kSample, 3);
  EXPECT_DEATH(lstm(harness.graph, "lstm", x, 4, {.tail = tail}), "lstm");
}

}  // namespace
}  // namespace meander::nn
