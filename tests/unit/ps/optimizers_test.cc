// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "common/rng.h"
#include "ps/optimizer.h"
#include "ps/table.h"

namespace meander::ps {
namespace {

constexpr std::uint32_t kWidthsMax = 70;  // every width up to here, so every tail of a kernel
constexpr int kSteps = 12;

wire::TableSpec spec_of(wire::Optimizer::Kind kind, std::uint32_t width) {
  wire::TableSpec spec;
  spec.set_name("item");
  spec.set_width(width);
  spec.set_init_range(0.1f);
  spec.set_seed(7);
  wire::Optimizer& o = *spec.mutable_optimizer();
  o.set_kind(kind);
  o.set_rate(0.05f);
  o.set_beta1(0.9f);
  o.set_beta2(0.999f);
  o.set_epsilon(1e-3f);
  o.set_initial_accumulator(0.1f);
  o.set_l2(0.01f);
  o.set_beta(1);
  if (kind == wire::Optimizer::ADAMW) o.set_weight_decay(0.1f);
  return spec;
}

// One row as the papers have it, in double precision.
struct Reference {
  wire::Optimizer o;
  std::vector<double> w, first, second;
  double row_sum = 0;
  float clip = 0;

  Reference(const wire::Optimizer& optimizer, std::span<const float> weights)
      : o(optimizer), w(weights.begin(), weights.end()), first(w.size()), second(w.size()) {
    const bool has_sums = o.kind() == wire::Optimizer::ADAGRAD || o.kind() == wire::Optimizer::FTRL;
    if (has_sums) first.assign(w.size(), o.initial_accumulator());
    row_sum = o.initial_accumulator();
    // z is where the closed form gives the first weights.
    for (std::size_t i = 0; i < w.size(); ++i) {
      if (o.kind() == wire::Optimizer::FTRL && w[i] != 0) {
        second[i] = -w[i] * closed_form_divisor(i) - (w[i] > 0 ? 1 : -1) * o.l1();
      }
    }
  }

  double closed_form_divisor(std::size_t i) const {
    return (o.beta() + std::sqrt(first[i])) / o.rate() + o.l2();
  }

  void step(std::span<const float> gradient, int t) {
    double norm = 0;
    for (const double x : gradient) norm += x * x;
    const double scale = clip > 0 ? std::min(1.0, clip / std::sqrt(norm)) : 1;
    const bool is_ftrl = o.kind() == wire::Optimizer::FTRL;
    std::vector<double> g(w.size());
    for (std::size_t i = 0; i < w.size(); ++i) {
      g[i] = scale * gradient[i] + (is_ftrl ? 0 : double{o.l2()} * w[i]);
    }
    double squares = 0;
    for (const double x : g) squares += x * x;
    row_sum += squares / static_cast<double>(w.size());
    for (std::size_t i = 0; i < w.size(); ++i) {
      if (is_ftrl) {
        w[i] = ftrl(i, g[i]);
      } else {
        w[i] -= change(i, g[i], t);
        const double by = o.l1() * per_gradient(i);
        w[i] = w[i] > by ? w[i] - by : w[i] < -by ? w[i] + by : 0;
      }
    }
  }

  // What SGD and the Adagrads multiply the gradient by.
  double per_gradient(std::size_t i) const {
    if (o.kind() == wire::Optimizer::ADAGRAD) return o.rate() / (std::sqrt(first[i]) + o.epsilon());
    if (o.kind() == wire::Optimizer::ROWWISE_ADAGRAD) {
      return o.rate() / (std::sqrt(row_sum) + o.epsilon());
    }
    return o.rate();
  }

  double change(std::size_t i, double g, int t) {
    switch (o.kind()) {
      case wire::Optimizer::ADAGRAD:
        first[i] += g * g;
        [[fallthrough]];
      case wire::Optimizer::SGD:
      case wire::Optimizer::ROWWISE_ADAGRAD:
        return per_gradient(i) * g;
      case wire::Optimizer::MOMENTUM:
        first[i] = 0.9 * first[i] + g;
        return o.rate() * first[i];
      case wire::Optimizer::RMSPROP:
        first[i] = 0.999 * first[i] + 0.001 * g * g;
        return o.rate() * g / (std::sqrt(first[i]) + o.epsilon());
      case wire::Optimizer::ADAMW: {
        const double decayed = w[i] * o.rate() * o.weight_decay();
        return decayed + adam(i, g, t);
      }
      default:
        return adam(i, g, t);
    }
  }

  // McMahan et al., 2013, algorithm 1: first is n, second is z.
  double ftrl(std::size_t i, double g) {
    const double sigma = (std::sqrt(first[i] + g * g) - std::sqrt(first[i])) / o.rate();
    second[i] += g - sigma * w[i];
    first[i] += g * g;
    if (std::abs(second[i]) <= o.l1()) return 0;
    return -(second[i] - (second[i] > 0 ? 1 : -1) * o.l1()) / closed_form_divisor(i);
  }

  double adam(std::size_t i, double g, int t) {
    first[i] = 0.9 * first[i] + 0.1 * g;
    second[i] = 0.999 * second[i] + 0.001 * g * g;
    const double share1 = 1 - std::pow(0.9, t), share2 = 1 - std::pow(0.999, t);
    if (o.epsilon_hat()) {
      return o.rate() * std::sqrt(share2) / share1 * first[i] /
             (std::sqrt(second[i]) + o.epsilon());
    }
    return o.rate() * (first[i] / share1) / (std::sqrt(second[i] / share2) + o.epsilon());
  }
};

std::vector<float> random_floats(std::uint64_t seed, std::size_t n) {
  Rng rng(seed);
  std::vector<float> out(n);
  for (float& x : out) x = static_cast<float>(2 * rng.uniform() - 1);
  return out;
}

void expect_follows_reference(const wire::TableSpec& spec) {
  SCOPED_TRACE(spec.ShortDebugString());
  Table table(0, spec);
  const std::uint64_t keys[] = {11, 0, ~std::uint64_t{0}};
  std::vector<float> rows(3 * spec.width());
  table.pull(keys, rows.data());
  std::vector<Reference> references;
  for (std::size_t k = 0; k < 3; ++k) {
    references.emplace_back(spec.optimizer(),
                            std::span(rows).subspan(k * spec.width(), spec.width()));
    references.back().clip = spec.clip_row();
  }
  for (int t = 1; t <= kSteps; ++t) {
    // The third key is touched in even steps only: its moments must not move in between.
    const std::size_t n = t % 2 == 0 ? 3 : 2;
    const auto gradients = random_floats(100 + t, n * spec.width());
    table.push(std::span(keys, n), gradients.data());
    for (std::size_t k = 0; k < n; ++k) {
      references[k].step(std::span(gradients).subspan(k * spec.width(), spec.width()), t);
    }
  }
  table.pull(keys, rows.data());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const double expected = references[i / spec.width()].w[i % spec.width()];
    ASSERT_NEAR(rows[i], expected, 3e-6) << "element " << i;
  }
}

constexpr wire::Optimizer::Kind kKinds[] = {
    wire::Optimizer::SGD,     wire::Optimizer::ADAGRAD, wire::Optimizer::ROWWISE_ADAGRAD,
    wire::Optimizer::ADAM,    wire::Optimizer::ADAMW,   wire::Optimizer::MOMENTUM,
    wire::Optimizer::RMSPROP, wire::Optimizer::FTRL};
static_assert(std::size(kKinds) == wire::Optimizer::Kind_ARRAYSIZE);

constexpr wire::Optimizer::Kind kKindsWithL1[] = {wire::Optimizer::SGD, wire::Optimizer::ADAGRAD,
                                                  wire::Optimizer::ROWWISE_ADAGRAD,
                                                  wire::Optimizer::FTRL};

TEST(Optimizers, FollowDoublePrecisionReferencesAtEveryWidth) {
  for (const auto kind : kKinds) {
    for (std::uint32_t width = 1; width <= kWidthsMax; ++width) {
      expect_follows_reference(spec_of(kind, width));
    }
    expect_follows_reference(spec_of(kind, 256));
  }
}

TEST(Optimizers, FollowReferencesWithoutL2AtEveryWidth) {
  for (const auto kind : kKinds) {
    for (std::uint32_t width = 1; width <= kWidthsMax; ++width) {
      wire::TableSpec spec = spec_of(kind, width);
      spec.mutable_optimizer()->set_l2(0);
      expect_follows_reference(spec);
    }
  }
}

TEST(Optimizers, L1FollowsReferencesAtEveryWidth) {
  for (const auto kind : kKindsWithL1) {
    for (std::uint32_t width = 1; width <= kWidthsMax; ++width) {
      wire::TableSpec spec = spec_of(kind, width);
      spec.mutable_optimizer()->set_l1(0.3f);
      expect_follows_reference(spec);
    }
  }
}

TEST(Optimizers, L1GivesExactZeros) {
  for (const auto kind : kKindsWithL1) {
    wire::TableSpec spec = spec_of(kind, 2);
    spec.set_init_range(0);
    spec.mutable_optimizer()->set_l1(1);
    Table table(0, spec);
    const std::uint64_t key = 1;
    const float gradient[] = {0.5f, -3};  // the first is weaker than l1
    float weights[2];
    table.push({&key, 1}, gradient);
    table.pull({&key, 1}, weights);
    EXPECT_EQ(weights[0], 0) << kind;
    EXPECT_GT(weights[1], 0) << kind;
  }
}

TEST(Optimizers, ClippedRowsFollowReferencesAtEveryWidth) {
  for (const auto kind : kKinds) {
    for (std::uint32_t width = 1; width <= kWidthsMax; ++width) {
      wire::TableSpec spec = spec_of(kind, width);
      spec.set_clip_row(0.55f * std::sqrt(static_cast<float>(width)));  // some rows, not all
      expect_follows_reference(spec);
    }
  }
}

TEST(Optimizers, ClippingLeavesShorterGradientsAndNotANumberAsTheyAre) {
  wire::TableSpec spec = spec_of(wire::Optimizer::SGD, 2);
  spec.set_init_range(0);
  spec.set_clip_row(5);
  spec.mutable_optimizer()->set_rate(1);
  spec.mutable_optimizer()->set_l2(0);
  Table table(0, spec);
  const std::uint64_t keys[] = {1, 2, 3};
  const float gradients[] = {3, 4, 6, 8, std::nanf(""), 1};
  float weights[6];
  table.push(keys, gradients);
  table.pull(keys, weights);
  for (const std::size_t row : {0u, 1u}) {
    EXPECT_EQ(weights[2 * row], -3);
    EXPECT_EQ(weights[2 * row + 1], -4);
  }
  EXPECT_TRUE(std::isnan(weights[4]));
}

// What others pushed since the pull is made up for, before the optimizer sees the gradient.
TEST(Optimizers, DelayIsCompensatedAtEveryWidthAndOptimizer) {
  constexpr float kLambda = 0.7f;
  for (const auto kind : kKinds) {
    for (const std::uint32_t width : {1u, 5u, 16u, 36u}) {
      wire::TableSpec spec = spec_of(kind, width), plain = spec;
      spec.mutable_optimizer()->set_delay_compensation(kLambda);
      Table compensates(0, spec), reference(0, plain);
      constexpr std::size_t kKeys = 19;
      std::vector<std::uint64_t> keys(kKeys);
      for (std::size_t i = 0; i < kKeys; ++i) keys[i] = 100 + i;
      std::vector<float> pulled(kKeys * width), now(kKeys * width), other(kKeys * width);
      compensates.pull(keys, pulled.data());
      const auto first = random_floats(1, kKeys * width), second = random_floats(2, kKeys * width);
      compensates.push(keys, first.data(), {}, pulled.data());  // nothing has changed so far
      reference.push(keys, first.data());
      compensates.pull(keys, now.data());
      reference.pull(keys, other.data());
      ASSERT_EQ(now, other);
      std::vector<float> made_up(second);
      for (std::size_t i = 0; i < made_up.size(); ++i) {
        made_up[i] += kLambda * second[i] * second[i] * (now[i] - pulled[i]);
      }
      compensates.push(keys, second.data(), {}, pulled.data());
      reference.push(keys, made_up.data());
      compensates.pull(keys, now.data());
      reference.pull(keys, other.data());
      for (std::size_t i = 0; i < now.size(); ++i) {
        ASSERT_NEAR(now[i], other[i], 1e-6f * (1 + std::abs(other[i]))) << kind << " " << width;
      }
    }
  }
}

TEST(Optimizers, FtrlLeavesAWeightWithoutGradientWhereItWas) {
  wire::TableSpec spec = spec_of(wire::Optimizer::FTRL, 36);
  spec.mutable_optimizer()->set_l1(0.5f);
  Table table(0, spec);
  const std::uint64_t key = 5;
  std::vector<float> before(36), after(36);
  const std::vector<float> nothing(36);
  table.pull({&key, 1}, before.data());
  table.push({&key, 1}, nothing.data());
  table.pull({&key, 1}, after.data());
  for (std::size_t i = 0; i < 36; ++i) EXPECT_NEAR(before[i], after[i], 1e-6);
}

// Weights after five steps of PyTorch 2.9 in double precision. With o an optimizer of
// w = tensor([0.5, -0.25, 0.125]) and t = 1 ... 5:
//   w.grad = tensor([0.3 * t - 0.8, 0.1 * t, (-1) ** t * 0.2]); o.step()
// SGD(lr=.05, momentum=.9, weight_decay=.01), RMSprop(lr=.05, alpha=.99, eps=1e-3,
// weight_decay=.01), AdamW(lr=.05, eps=1e-3, weight_decay=.1), Adam(lr=.05, eps=1e-3,
// weight_decay=.01), Adagrad(lr=.05, eps=1e-3, weight_decay=.01, initial_accumulator_value=.1).
TEST(Optimizers, AreThoseOfPyTorch) {
  struct Recorded {
    wire::Optimizer::Kind kind;
    double weights[3];
  };
  const Recorded recorded[] = {
      {wire::Optimizer::MOMENTUM, {0.546695131, -0.406747876, 0.148785768}},
      {wire::Optimizer::RMSPROP, {0.405240557, -2.213717648, 0.496772639}},
      {wire::Optimizer::ADAMW, {0.591527831, -0.482601571, 0.192194347}},
      {wire::Optimizer::ADAM, {0.603687933, -0.490985765, 0.194824775}},
      {wire::Optimizer::ADAGRAD, {0.487987644, -0.38322611, 0.147411944}},
  };
  for (const Recorded& r : recorded) {
    wire::TableSpec spec = spec_of(r.kind, 3);
    if (r.kind == wire::Optimizer::RMSPROP) spec.mutable_optimizer()->set_beta2(0.99f);
    if (r.kind == wire::Optimizer::ADAMW) spec.mutable_optimizer()->set_l2(0);
    Table table(0, spec);
    const std::uint64_t key = 9;
    float weights[] = {0.5f, -0.25f, 0.125f};
    table.assign({&key, 1}, weights);
    for (int t = 1; t <= 5; ++t) {
      const float s = static_cast<float>(t);
      const float gradient[] = {0.3f * s - 0.8f, 0.1f * s, t % 2 == 0 ? 0.2f : -0.2f};
      table.push({&key, 1}, gradient);
    }
    table.pull({&key, 1}, weights);
    for (int i = 0; i < 3; ++i) EXPECT_NEAR(weights[i], r.weights[i], 2e-6) << r.kind;
  }
}

TEST(Optimizers, ImpossibleOnesAreRefused) {
  const auto is_refused = [](wire::Optimizer::Kind kind, const auto& change) {
    wire::TableSpec spec = spec_of(kind, 4);
    EXPECT_TRUE(check_table(spec).ok());
    change(spec);
    return check_table(spec).code() == Code::kInvalid;
  };
  using Spec = wire::TableSpec;
  const auto adam = wire::Optimizer::ADAM, ftrl = wire::Optimizer::FTRL;
  EXPECT_TRUE(is_refused(adam, [](Spec& s) { s.mutable_optimizer()->set_l1(0.1f); }));
  EXPECT_TRUE(is_refused(ftrl, [](Spec& s) { s.mutable_optimizer()->set_beta(0); }));
  EXPECT_TRUE(is_refused(ftrl, [](Spec& s) { s.mutable_optimizer()->set_rate(0); }));
  EXPECT_TRUE(
      is_refused(ftrl, [](Spec& s) { s.mutable_optimizer()->mutable_schedule()->set_warmup(1); }));
  EXPECT_TRUE(is_refused(wire::Optimizer::ADAMW,
                         [](Spec& s) { s.mutable_optimizer()->set_weight_decay(21); }));
  EXPECT_TRUE(is_refused(adam, [](Spec& s) { s.set_clip_row(-1); }));
  EXPECT_TRUE(is_refused(adam, [](Spec& s) { s.mutable_optimizer()->set_delay_compensation(-1); }));
  EXPECT_TRUE(is_refused(adam, [](Spec& s) {
    s.mutable_optimizer()->mutable_schedule()->set_kind(wire::Schedule::STEP);  // of no steps
  }));
  EXPECT_TRUE(is_refused(adam, [](Spec& s) {
    s.mutable_optimizer()->mutable_schedule()->set_kind(wire::Schedule::COSINE);
    s.mutable_optimizer()->mutable_schedule()->set_steps(5);
    s.mutable_optimizer()->mutable_schedule()->set_factor(1.5f);
  }));
}

wire::Schedule schedule_of(wire::Schedule::Kind kind, std::uint64_t steps, float factor) {
  wire::Schedule schedule;
  schedule.set_kind(kind);
  schedule.set_steps(steps);
  schedule.set_factor(factor);
  return schedule;
}

// Rates of eight steps of PyTorch 2.9's StepLR(o, 3, .5), ExponentialLR(o, .5) and
// CosineAnnealingLR(o, 6, eta_min=.005), by a first rate of .05. Its cosine rises again behind its
// end, where this one stays.
TEST(Schedules, AreThoseOfPyTorch) {
  const double step[] = {0.05, 0.05, 0.05, 0.025, 0.025, 0.025, 0.0125, 0.0125};
  const double exponential[] = {0.05,     0.025,     0.0125,     0.00625,
                                0.003125, 0.0015625, 0.00078125, 0.000390625};
  const double cosine[] = {0.05, 0.046985572, 0.03875, 0.0275, 0.01625, 0.008014428, 0.005, 0.005};
  for (std::uint64_t t = 1; t <= 8; ++t) {
    const auto rate = [t](wire::Schedule::Kind kind, std::uint64_t steps, float factor) {
      return 0.05 * schedule_share(schedule_of(kind, steps, factor), t);
    };
    EXPECT_NEAR(rate(wire::Schedule::STEP, 3, 0.5f), step[t - 1], 1e-9);
    EXPECT_NEAR(rate(wire::Schedule::EXPONENTIAL, 1, 0.5f), exponential[t - 1], 1e-9);
    EXPECT_NEAR(rate(wire::Schedule::COSINE, 6, 0.1f), cosine[t - 1], 1e-9);
  }
}

TEST(Schedules, WarmUpRisesToTheFullRateAndTheRestFollows) {
  for (const auto kind : {wire::Schedule::CONSTANT, wire::Schedule::STEP,
                          wire::Schedule::EXPONENTIAL, wire::Schedule::COSINE}) {
    const wire::Schedule plain = schedule_of(kind, 10, 0.25f);
    wire::Schedule warm = plain;
    warm.set_warmup(4);
    for (std::uint64_t t = 1; t <= 4; ++t) {
      EXPECT_EQ(schedule_share(warm, t), static_cast<double>(t) / 4);
    }
    for (std::uint64_t t = 1; t <= 30; ++t) {
      EXPECT_EQ(schedule_share(warm, t + 4), schedule_share(plain, t)) << kind << " " << t;
    }
    EXPECT_EQ(schedule_share(plain, 1), 1);
  }
}

TEST(Schedules, AreOfTheTablesStepWhateverRowsArePushed) {
  wire::TableSpec spec = spec_of(wire::Optimizer::SGD, 1);
  spec.set_init_range(0);
  spec.mutable_optimizer()->set_l2(0);
  *spec.mutable_optimizer()->mutable_schedule() = schedule_of(wire::Schedule::STEP, 2, 0.5f);
  Table table(0, spec);
  const std::uint64_t key = 1;
  const float gradient = 1;
  float weight = 0;
  table.push({}, nullptr);  // steps 1 and 2 have the full rate
  table.push({}, nullptr);
  table.push({&key, 1}, &gradient);
  table.pull({&key, 1}, &weight);
  EXPECT_EQ(weight, -0.025f);
  Table restored(0, spec);
  restored.set_step(4);
  restored.push({&key, 1}, &gradient);
  restored.pull({&key, 1}, &weight);
  EXPECT_EQ(weight, -0.0125f);
}

TEST(Optimizers, AdamPutsEpsilonWhereItIsTold) {
  wire::TableSpec spec = spec_of(wire::Optimizer::ADAM, 36);
  spec.mutable_optimizer()->set_epsilon(0.1f);  // large enough to see where it joins
  expect_follows_reference(spec);
  spec.mutable_optimizer()->set_epsilon_hat(true);
  expect_follows_reference(spec);
}

TEST(Optimizers, FirstAdamStepOfAnOldTableIsTheLazyOne) {
  // REFERENCE: with the table's step a row's first update is about 3.16 rates, for m / sqrt(v) is
  // 0.1 / sqrt(0.001) once the corrections have worn off.
  wire::TableSpec spec = spec_of(wire::Optimizer::ADAM, 1);
  spec.set_init_range(0);
  spec.mutable_optimizer()->set_l2(0);
  spec.mutable_optimizer()->set_epsilon(0);
  Table table(0, spec);
  table.set_step(1'000'000);
  const std::uint64_t key = 1;
  const float gradient = 1;
  table.push({&key, 1}, &gradient);
  float weight = 0;
  table.pull({&key, 1}, &weight);
  EXPECT_NEAR(weight, -0.05f * 3.1623f, 1e-5);
}

using Update = UpdateRows Kernels::*;
constexpr Update kUpdates[] = {&Kernels::sgd,  &Kernels::adagrad,  &Kernels::rowwise_adagrad,
                               &Kernels::adam, &Kernels::momentum, &Kernels::rmsprop,
                               &Kernels::ftrl};

// Kernels take other ways where l1 or l2 is 0.
std::vector<UpdateParams> params_of(std::uint32_t width) {
  std::vector<UpdateParams> all;
  for (const float l1 : {0.0f, 0.2f}) {
    for (const float l2 : {0.0f, 0.01f}) {
      UpdateParams& params =
          all.emplace_back(UpdateParams{width, 0.05f, l2, 1e-6f, 0.1f, 0.001f, 3.3f});
      params.keep = 0.995f;
      params.l1 = l1;
      params.beta = 1;
    }
  }
  return all;
}

// Weights of either sign, and two widths of state above 0.
std::vector<float> random_row(std::uint64_t seed, std::uint32_t width) {
  std::vector<float> row = random_floats(seed, 3 * width);
  for (std::size_t i = width; i < row.size(); ++i) row[i] = std::abs(row[i]);
  return row;
}

TEST(Optimizers, EveryLevelGivesTheSameBits) {
  const Kernels* base = kernels_for("v2");
  ASSERT_NE(base, nullptr);
  for (const char* isa : {"v3", "v4"}) {
    const Kernels* other = kernels_for(isa);
    if (other == nullptr) continue;
    for (const Update update : kUpdates) {
      for (std::uint32_t width = 1; width <= kWidthsMax; ++width) {
        for (const UpdateParams& params : params_of(width)) {
          std::vector<float> a = random_row(width, width), b = a;
          const auto gradient = random_floats(width + 1000, width);
          const float* gradients[] = {gradient.data(), gradient.data()};
          float* rows_a[] = {a.data(), a.data()};
          float* rows_b[] = {b.data(), b.data()};
          (base->*update)(rows_a, gradients, 2, params);
          (other->*update)(rows_b, gradients, 2, params);
          ASSERT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0)
              << isa << ", width " << width;
        }
      }
    }
  }
}

// Also of rows that occur again among those that are worked together.
TEST(Optimizers, RowsTogetherAreUpdatedAsOneAfterTheOther) {
  constexpr std::size_t n = 21, kRows = 5;
  for (const Update update : kUpdates) {
    for (const std::uint32_t width : {1u, 7u, 36u, 64u}) {
      for (const UpdateParams& params : params_of(width)) {
        std::vector<float> together, alone;
        for (std::size_t r = 0; r < kRows; ++r) {
          for (const float x : random_row(r, width)) together.push_back(x);
        }
        alone = together;
        const auto gradient = random_floats(77, n * width);
        std::vector<float*> rows;
        std::vector<const float*> gradients;
        for (std::size_t i = 0; i < n; ++i) {
          const std::size_t at = i * i % kRows * 3 * width;
          rows.push_back(together.data() + at);
          gradients.push_back(gradient.data() + i * width);
          float* const one = alone.data() + at;
          (kernels().*update)(&one, &gradients.back(), 1, params);
        }
        (kernels().*update)(rows.data(), gradients.data(), n, params);
        ASSERT_EQ(std::memcmp(together.data(), alone.data(), alone.size() * sizeof(float)), 0)
            << "width " << width;
      }
    }
  }
}

TEST(Optimizers, EveryLevelCompensatesToTheSameBits) {
  const Kernels* base = kernels_for("v2");
  for (const char* isa : {"v3", "v4"}) {
    const Kernels* other = kernels_for(isa);
    if (other == nullptr) continue;
    for (std::uint32_t width = 1; width <= kWidthsMax; ++width) {
      UpdateParams params;
      params.width = width;
      params.compensation = 0.3f;
      const auto gradient = random_floats(width, width), row = random_floats(width + 1, width),
                 pulled = random_floats(width + 2, width);
      std::vector<float> a(width), b(width);
      const float *from_a = gradient.data(), *from_b = gradient.data();
      const float *row_at = row.data(), *pulled_at = pulled.data();
      base->compensate(&from_a, &row_at, &pulled_at, a.data(), 1, params);
      other->compensate(&from_b, &row_at, &pulled_at, b.data(), 1, params);
      ASSERT_EQ(std::memcmp(from_a, from_b, width * sizeof(float)), 0) << isa << " " << width;
    }
  }
}

TEST(Optimizers, EveryLevelClipsToTheSameBits) {
  const Kernels* base = kernels_for("v2");
  for (const char* isa : {"v3", "v4"}) {
    const Kernels* other = kernels_for(isa);
    if (other == nullptr) continue;
    for (std::uint32_t width = 1; width <= kWidthsMax; ++width) {
      UpdateParams params;
      params.width = width;
      params.clip_row = 0.1f;
      const auto gradient = random_floats(width, width);
      std::vector<float> a(width), b(width);
      const float *from_a = gradient.data(), *from_b = gradient.data();
      base->clip(&from_a, a.data(), 1, params);
      other->clip(&from_b, b.data(), 1, params);
      ASSERT_EQ(from_a == a.data(), from_b == b.data());
      ASSERT_EQ(std::memcmp(from_a, from_b, width * sizeof(float)), 0) << isa << " " << width;
    }
  }
}

}  // namespace
}  // namespace meander::ps
