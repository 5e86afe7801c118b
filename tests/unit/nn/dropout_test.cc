// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/dropout.h"

#include <vector>

#include <gtest/gtest.h>

#include "nn/simd/kernels.h"
#include "tests/unit/nn/op_harness.h"

namespace meander::nn {
namespace {

using Floats = std::vector<float>;

// The factors of values first ... first + n - 1.
Floats factors(const Kernels& kernels, Drop drop, std::uint32_t first, std::size_t n) {
  const Floats ones(n, 1.0f);
  Floats y(n);
  kernels.dropout(drop, first, ones.data(), y.data(), n);
  return y;
}

TEST(Dropout, DropsItsShareAndScalesTheRest) {
  for (const float rate : {0.0f, 0.1f, 0.2f, 0.5f, 0.9f}) {
    const std::size_t n = 200'000;
    const Floats y = factors(kernels(), {77, rate}, 0, n);
    std::size_t dropped = 0;
    for (float x : y) {
      dropped += x == 0 ? 1 : 0;
      if (x != 0) {
        ASSERT_FLOAT_EQ(x, 1 / (1 - rate));
      }
    }
    // Four standard deviations.
    EXPECT_NEAR(dropped, n * rate, 4 * std::sqrt(n * rate * (1 - rate)) + 1e-9) << rate;
  }
}

TEST(Dropout, NeighboursAndStreamsAreNotCorrelated) {
  const std::size_t n = 200'000;
  const Floats a = factors(kernels(), {77, 0.5f}, 0, n);
  for (const std::size_t shift : {1u, 2u, 16u, 50u, 200u}) {
    // Within a stream, and between streams that differ in a low or in a high bit.
    for (const std::uint64_t stream :
         {std::uint64_t{77}, std::uint64_t{76}, std::uint64_t{1} << 40 | 77}) {
      const Floats b = factors(kernels(), {stream, 0.5f}, 0, n + shift);
      std::size_t both = 0;
      for (std::size_t i = 0; i < n; ++i) both += a[i] != 0 && b[i + shift] != 0 ? 1 : 0;
      EXPECT_NEAR(both, n / 4, 4 * std::sqrt(n * 3.0 / 16)) << shift << " " << stream;
    }
  }
}

TEST(Dropout, AValuesDrawIsItsOwn) {
  const Floats all = factors(kernels(), {123456789012345, 0.3f}, 1000, 500);
  for (const std::size_t first : {0u, 1u, 15u, 16u, 33u, 499u}) {
    const Floats rest = factors(kernels(), {123456789012345, 0.3f},
                                1000 + static_cast<std::uint32_t>(first), 500 - first);
    EXPECT_TRUE(std::equal(rest.begin(), rest.end(), all.begin() + first));
  }
  for (const char* isa : {"v2", "v3", "v4"}) {
    const Kernels* table = kernels_for(isa);
    if (table == nullptr) continue;
    EXPECT_EQ(factors(*table, {123456789012345, 0.3f}, 1000, 500), all);
  }
}

TEST(Dropout, ANumberThatIsNoneShows) {
  const Floats x(64, std::numeric_limits<float>::quiet_NaN());
  Floats y(64, 0.0f);
  kernels().dropout({1, 0.5f}, 0, x.data(), y.data(), x.size());
  for (float v : y) EXPECT_TRUE(std::isnan(v));
}

TEST(Dropout, OutputAndGradientUseTheSameDraws) {
  OpHarness harness({4, 2, 1}, 2);
  const TensorId x = harness.input(Rows::kHistory, 5);
  const TensorId out = dropout(harness.graph, "drop", x, 0.4f);
  harness.seed = 9;
  harness.build({out});
  OpContext context;
  context.training = true;
  context.seed = harness.seed;
  const Floats mask = factors(kernels(), DropPlace("drop", 0.4f).in(context), 0, 7 * 5);
  EXPECT_NE(std::ranges::count(mask, 0.0f), 0);
  harness.expect_matches([&](OpHarness::Numbers& n) {
    for (std::size_t i = 0; i < mask.size(); ++i) n.tensors[out][i] = mask[i] * n.tensors[x][i];
    return 0.0;
  });
}

TEST(Dropout, InferenceChangesNothingAndStepsDiffer) {
  OpHarness harness({4, 2, 1}, 2);
  const TensorId x = harness.input(Rows::kSample, 40);
  const TensorId out = dropout(harness.graph, "drop", x, 0.4f);
  EXPECT_EQ(dropout(harness.graph, "none", x, 0.0f), x);
  harness.build({out});
  harness.forward(false);
  EXPECT_EQ(harness.values(out), harness.values(x));
  harness.forward();
  const Floats first = harness.values(out);
  harness.seed = 1;
  harness.forward();
  EXPECT_NE(harness.values(out), first);
}

}  // namespace
}  // namespace meander::nn
