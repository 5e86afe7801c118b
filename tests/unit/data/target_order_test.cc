// SPDX-License-Identifier: Apache-2.0
#include "data/target_order.h"

#include <gtest/gtest.h>

#include "data/key_set.h"
#include "tests/unit/data/support.h"

namespace meander::data {
namespace {

TEST(Permutation, TakesEveryPlaceOnce) {
  for (const std::uint64_t n : {1, 2, 3, 7, 64, 65, 1000, 10'007}) {
    const Permutation permutation(n, 42);
    std::vector<bool> taken(n);
    for (std::uint64_t i = 0; i < n; ++i) {
      const std::uint64_t place = permutation(i);
      ASSERT_LT(place, n);
      ASSERT_FALSE(taken[place]);
      taken[place] = true;
    }
  }
}

TEST(Permutation, LooksLikeADrawOfUniformPlaces) {
  constexpr std::uint64_t kCount = 100'000;
  const Permutation permutation(kCount, 7);
  double sum = 0, with_next = 0, squares = 0, before = 0;
  for (std::uint64_t i = 0; i < kCount; ++i) {
    const double x = static_cast<double>(permutation(i)) / kCount - 0.5;
    sum += x * (static_cast<double>(i) / kCount - 0.5);  // correlation with the place
    with_next += x * before;
    squares += x * x;
    before = x;
  }
  EXPECT_LT(std::abs(sum / squares), 0.015);
  EXPECT_LT(std::abs(with_next / squares), 0.015);
  EXPECT_NE(Permutation(kCount, 8)(0), permutation(0));
}

TEST(KeySet, NumbersDistinctKeysInTheOrderTheyCome) {
  KeySet set;
  for (int round = 0; round < 3; ++round) {
    set.clear();
    for (std::uint64_t i = 0; i < 20'000; ++i) {  // grows twice
      ASSERT_EQ(set.index_of(i * 4096), i);
      ASSERT_EQ(set.index_of(i / 2 * 4096), i / 2);
    }
    ASSERT_EQ(set.keys().size(), 20'000u);
    for (std::uint64_t i = 0; i < 20'000; ++i) {
      ASSERT_EQ(set.keys()[i], i * 4096);
      ASSERT_EQ(set.partitions()[i], partition_of(i * 4096));
    }
  }
}

}  // namespace
}  // namespace meander::data
