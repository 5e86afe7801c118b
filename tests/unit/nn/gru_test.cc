// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/gru.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/nn/op_harness.h"

namespace meander::nn {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

using Evolve = TensorId (*)(Graph&, std::string, TensorId, TensorId, std::int32_t);

// One step by the book: the state after x, with attention a. `evolve`: what a does.
std::vector<double> gru_step(const OpHarness& harness, const OpHarness::Numbers& numbers,
                             const std::string& name, const double* x, std::int32_t in,
                             const std::vector<double>& before, double a, Evolve evolve = augru) {
  const std::int32_t h = static_cast<std::int32_t>(before.size());
  const double* gates = &numbers.dense[harness.place(name + "/gates/kernel")];
  const double* gates_bias = &numbers.dense[harness.place(name + "/gates/bias")];
  const double* kernel = &numbers.dense[harness.place(name + "/candidate/kernel")];
  const double* bias = &numbers.dense[harness.place(name + "/candidate/bias")];
  const double scale = evolve == aigru ? a : 1;
  std::vector<double> both(2 * h), after(h);
  for (std::int32_t j = 0; j < 2 * h; ++j) {
    double sum = gates_bias[j];
    for (std::int32_t i = 0; i < in; ++i) sum += scale * x[i] * gates[i * 2 * h + j];
    for (std::int32_t i = 0; i < h; ++i) sum += before[i] * gates[(in + i) * 2 * h + j];
    both[j] = sigmoid(sum);
  }
  for (std::int32_t j = 0; j < h; ++j) {
    double sum = bias[j];
    for (std::int32_t i = 0; i < in; ++i) sum += scale * x[i] * kernel[i * h + j];
    for (std::int32_t i = 0; i < h; ++i) sum += both[i] * before[i] * kernel[(in + i) * h + j];
    const double u = evolve == aigru ? both[h + j] : evolve == agru ? 1 - a : (1 - a) * both[h + j];
    after[j] = u * before[j] + (1 - u) * std::tanh(sum);
  }
  return after;
}

TEST(Gru, MatchesNaiveFormAndItsDifferences) {
  for (const std::int32_t hidden : {3, 18}) {
    OpHarness harness({4, 3, 3, 1}, 2);
    const std::int32_t in = 5;
    const TensorId x = harness.input(Rows::kHistory, in);
    const TensorId out = gru(harness.graph, "gru", x, hidden);
    harness.build({out});
    harness.expect_matches(
        [&](OpHarness::Numbers& numbers) {
          for (std::int32_t g = 0; g < harness.layout.groups; ++g) {
            std::vector<double> state(hidden);
            for (std::int32_t t = 0; t < harness.lengths()[g]; ++t) {
              const std::int32_t row = harness.row(t, g);
              state =
                  gru_step(harness, numbers, "gru", &numbers.tensors[x][row * in], in, state, 0);
              std::ranges::copy(state, numbers.tensors[out].begin() + row * hidden);
            }
          }
          return 0.0;
        },
        hidden < 16 ? 1 : 13);
  }
}

TEST(Gru, HistoryDoesNotDependOnItsCompany) {
  const std::vector<std::int32_t> lengths = {9, 7, 7, 2, 1};
  const auto build = [](OpHarness& harness) {
    const TensorId x = harness.input(Rows::kHistory, 36);
    harness.build({gru(harness.graph, "gru", x, 36)});
  };
  OpHarness together(lengths, 1);
  build(together);
  for (std::int32_t g = 0; g < together.layout.groups; ++g) {
    OpHarness alone({lengths[g]}, 1);
    build(alone);
    together.expect_group_equals(g, alone);
  }
}

void expect_evolution_matches(Evolve evolve) {
  for (const std::int32_t candidates : {1, 2, 3}) {
    OpHarness harness({4, 3, 3, 1}, candidates);
    const std::int32_t in = 5, hidden = 4;
    const TensorId x = harness.input(Rows::kHistory, in);
    const TensorId attention = harness.input(Rows::kHistorySample, 1);
    const TensorId out = evolve(harness.graph, "cell", x, attention, hidden);
    harness.build({out});
    for (float& a : harness.values(attention)) a = std::abs(a);
    harness.expect_matches([&](OpHarness::Numbers& numbers) {
      for (std::int32_t s = 0; s < harness.layout.samples(); ++s) {
        const std::int32_t g = s / candidates;
        std::vector<double> state(hidden);
        for (std::int32_t t = 0; t < harness.lengths()[g]; ++t) {
          const std::int32_t row = harness.row(t, g);
          const double a = numbers.tensors[attention][row * candidates + s % candidates];
          state = gru_step(harness, numbers, "cell", &numbers.tensors[x][row * in], in, state, a,
                           evolve);
        }
        std::ranges::copy(state, numbers.tensors[out].begin() + s * hidden);
      }
      return 0.0;
    });
  }
}

TEST(Augru, MatchesNaiveFormAndItsDifferences) { expect_evolution_matches(augru); }
TEST(Agru, MatchesNaiveFormAndItsDifferences) { expect_evolution_matches(agru); }
TEST(Aigru, MatchesNaiveFormAndItsDifferences) { expect_evolution_matches(aigru); }

TEST(Augru, WithoutAttentionItIsAGru) {
  const std::vector<std::int32_t> lengths = {6, 5, 1};
  OpHarness plain(lengths, 2), attentive(lengths, 2);
  const TensorId plain_x = plain.input(Rows::kHistory, 8);
  const TensorId states = gru(plain.graph, "gru", plain_x, 8);
  plain.build({states});
  const TensorId x = attentive.input(Rows::kHistory, 8);
  const TensorId attention = attentive.input(Rows::kHistorySample, 1);
  const TensorId last = augru(attentive.graph, "gru", x, attention, 8);
  attentive.build({last});
  attentive.values(x) = plain.values(plain_x);
  attentive.dense = plain.dense;
  std::ranges::fill(attentive.values(attention), 0.0f);
  plain.forward();
  attentive.forward();
  for (std::int32_t s = 0; s < 6; ++s) {
    for (std::int32_t j = 0; j < 8; ++j) {
      EXPECT_EQ(attentive.values(last)[s * 8 + j],
                plain.values(states)[plain.layout.last_row(s / 2) * 8 + j]);
    }
  }
}

void expect_sample_is_independent(Evolve evolve) {
  const std::vector<std::int32_t> lengths = {9, 7, 7, 2, 1};
  const auto build = [evolve](OpHarness& harness) {
    const TensorId x = harness.input(Rows::kHistory, 36);
    const TensorId attention = harness.input(Rows::kHistorySample, 1);
    harness.build({evolve(harness.graph, "cell", x, attention, 36)});
  };
  OpHarness together(lengths, 2);
  build(together);
  for (std::int32_t g = 0; g < together.layout.groups; ++g) {
    OpHarness alone({lengths[g]}, 2);
    build(alone);
    together.expect_group_equals(g, alone);
  }
}

TEST(Augru, SampleDoesNotDependOnItsCompany) { expect_sample_is_independent(augru); }
TEST(Agru, SampleDoesNotDependOnItsCompany) { expect_sample_is_independent(agru); }
TEST(Aigru, SampleDoesNotDependOnItsCompany) { expect_sample_is_independent(aigru); }

TEST(Gru, RefusesInputOfSamples) {
  OpHarness harness({2}, 1);
  const TensorId x = harness.input(Rows::kSample, 4);
  EXPECT_DEATH(gru(harness.graph, "gru", x, 4), "gru");
}

}  // namespace
}  // namespace meander::nn
