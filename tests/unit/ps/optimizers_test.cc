// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "common/rng.h"
#include "ps/table.h"

namespace meander::ps {
namespace {

constexpr std::uint32_t kWidths[] = {1, 3, 8, 16, 18, 36, 64, 256};
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
  return spec;
}

// One row as the papers have it, in double precision.
struct Reference {
  wire::Optimizer o;
  std::vector<double> w, first, second;
  double row_sum = 0;

  Reference(const wire::Optimizer& optimizer, std::span<const float> weights)
      : o(optimizer), w(weights.begin(), weights.end()), first(w.size()), second(w.size()) {
    if (o.kind() == wire::Optimizer::ADAGRAD) first.assign(w.size(), o.initial_accumulator());
    row_sum = o.initial_accumulator();
  }

  void step(std::span<const float> gradient, int t) {
    std::vector<double> g(w.size());
    for (std::size_t i = 0; i < w.size(); ++i) g[i] = gradient[i] + double{o.l2()} * w[i];
    double squares = 0;
    for (const double x : g) squares += x * x;
    row_sum += squares / static_cast<double>(w.size());
    for (std::size_t i = 0; i < w.size(); ++i) w[i] -= change(i, g[i], t);
  }

  double change(std::size_t i, double g, int t) {
    switch (o.kind()) {
      case wire::Optimizer::SGD:
        return o.rate() * g;
      case wire::Optimizer::ADAGRAD:
        first[i] += g * g;
        return o.rate() * g / (std::sqrt(first[i]) + o.epsilon());
      case wire::Optimizer::ROWWISE_ADAGRAD:
        return o.rate() * g / (std::sqrt(row_sum) + o.epsilon());
      default:
        return adam(i, g, t);
    }
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

TEST(Optimizers, FollowDoublePrecisionReferencesAtEveryWidth) {
  for (const auto kind : {wire::Optimizer::SGD, wire::Optimizer::ADAGRAD,
                          wire::Optimizer::ROWWISE_ADAGRAD, wire::Optimizer::ADAM}) {
    for (const std::uint32_t width : kWidths) expect_follows_reference(spec_of(kind, width));
  }
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

TEST(Optimizers, EveryLevelGivesTheSameBits) {
  const Kernels* base = kernels_for("v2");
  ASSERT_NE(base, nullptr);
  UpdateParams params{0, 0.05f, 0.01f, 1e-6f, 0.1f, 0.001f, 3.3f};
  for (const char* isa : {"v3", "v4"}) {
    const Kernels* other = kernels_for(isa);
    if (other == nullptr) continue;
    for (const Update update :
         {&Kernels::sgd, &Kernels::adagrad, &Kernels::rowwise_adagrad, &Kernels::adam}) {
      for (std::uint32_t width = 1; width <= 70; ++width) {
        params.width = width;
        std::vector<float> a = random_floats(width, 3 * width);
        for (std::size_t i = width; i < a.size(); ++i) a[i] = std::abs(a[i]);
        std::vector<float> b = a;
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

}  // namespace
}  // namespace meander::ps
