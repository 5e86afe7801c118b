// SPDX-License-Identifier: Apache-2.0
#include "data/target_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

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

// The targets of a log by row, permuted by one generator pass after pass; whatever shards they lie
// in and in whatever order they are asked for.
TEST(TargetOrder, ShuffledPassesArePermutationsOfTheTargetsByRow) {
  const auto storage = make_memory_storage();
  const auto log = shop_log(*storage);
  ASSERT_TRUE(log);
  std::vector<std::uint64_t> rows;
  for (const Shard& shard : log->shards()) {
    for (const Target& target : shard.train_targets) rows.push_back(target.row);
  }
  std::sort(rows.begin(), rows.end());
  StreamSpec spec;
  spec.order = StreamOrder::kShuffle;
  spec.shuffle = 99;
  TargetOrder order(*log, spec);
  ASSERT_EQ(order.size(), rows.size());
  const auto pass = [&](std::uint32_t epoch) {
    std::vector<TargetRef> targets(order.size());
    order.get(epoch, 0, targets);
    std::vector<std::uint64_t> out;
    for (const TargetRef& t : targets) out.push_back(t.target.row);
    return out;
  };
  NumpyRandom random(99);
  std::vector<std::vector<std::uint64_t>> expected(4);
  for (auto& one : expected) {
    std::vector<std::uint32_t> numbers(rows.size());
    std::iota(numbers.begin(), numbers.end(), 0);
    random.shuffle(numbers);
    for (const std::uint32_t number : numbers) one.push_back(rows[number]);
  }
  for (const std::uint32_t epoch : {2u, 0u, 1u, 3u, 3u}) EXPECT_EQ(pass(epoch), expected[epoch]);
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
