// SPDX-License-Identifier: Apache-2.0
#include "data/target_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

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

// Draws of a user, then of a target of his, are told from others by their shares: users with many
// targets are no more frequent than those with few.
TEST(TargetOrder, UsersAreDrawnEvenlyAndSoAreTheTargetsOfEach) {
  const auto storage = make_memory_storage();
  const auto log = shop_log(*storage);
  ASSERT_TRUE(log);
  StreamSpec spec;
  spec.order = StreamOrder::kUsers;
  spec.shuffle = 3;
  TargetOrder order(*log, spec);
  std::map<std::uint64_t, std::map<std::uint64_t, double>> expected, drawn;  // [user][row]
  for (const Shard& shard : log->shards()) {
    for (const Target& t : shard.train_targets) expected[shard.users[t.user].id][t.row] = 0;
  }
  ASSERT_EQ(order.size(), log->train_targets());
  constexpr std::uint32_t kEpochs = 400;
  std::vector<TargetRef> targets(order.size());
  for (std::uint32_t epoch = 0; epoch < kEpochs; ++epoch) {
    order.get(epoch, 0, targets);
    for (const TargetRef& t : targets) {
      EXPECT_FALSE(t.is_test);
      ++drawn[t.shard->users[t.target.user].id][t.target.row];
    }
  }
  const double draws = static_cast<double>(order.size()) * kEpochs;
  std::size_t longest = 0, shortest = 1000;
  for (auto& [user, rows] : expected) {
    longest = std::max(longest, rows.size());
    shortest = std::min(shortest, rows.size());
    const double share = draws / static_cast<double>(expected.size() * rows.size());
    for (auto& [row, count] : rows) {
      EXPECT_NEAR(drawn[user][row], share, 6 * std::sqrt(share)) << "user " << user;
    }
  }
  EXPECT_LT(2 * shortest, longest) << "all users are alike";
  EXPECT_EQ(drawn.size(), expected.size());
}

TEST(TargetOrder, DrawsOfUsersAreAFunctionOfSeedEpochAndPlace) {
  const auto storage = make_memory_storage();
  const auto log = shop_log(*storage);
  ASSERT_TRUE(log);
  const auto rows = [&](std::uint64_t seed, std::uint32_t epoch, std::uint64_t from,
                        std::size_t count) {
    StreamSpec spec;
    spec.order = StreamOrder::kUsers;
    spec.shuffle = seed;
    TargetOrder order(*log, spec);
    std::vector<TargetRef> targets(count);
    order.get(epoch, from, targets);
    std::vector<std::uint64_t> out;
    for (const TargetRef& t : targets) out.push_back(t.target.row);
    return out;
  };
  const std::vector<std::uint64_t> all = rows(1, 2, 0, 100);
  EXPECT_EQ(rows(1, 2, 30, 20), std::vector(all.begin() + 30, all.begin() + 50));
  EXPECT_NE(rows(1, 3, 0, 100), all);
  EXPECT_NE(rows(2, 2, 0, 100), all);
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

// Each user's targets are in one fold, which every order serves the same of, and the rest is the
// rest.
TEST(TargetOrder, AFoldAndTheOthersShareTheTargetsByUser) {
  const auto storage = make_memory_storage();
  const auto log = shop_log(*storage);
  ASSERT_TRUE(log);
  constexpr std::uint32_t kFolds = 4;
  const auto rows_of = [&](const StreamSpec& spec, std::set<std::uint64_t>& users) {
    TargetOrder order(*log, spec);
    std::vector<TargetRef> targets(order.size());
    order.get(0, 0, targets);
    std::set<std::uint64_t> rows;
    for (const TargetRef& t : targets) {
      rows.insert(t.target.row);
      users.insert(t.shard->users[t.target.user].id);
    }
    EXPECT_EQ(rows.size(), targets.size());
    return rows;
  };
  for (const auto kind : {StreamOrder::kTime, StreamOrder::kShuffle, StreamOrder::kHashed}) {
    std::set<std::uint64_t> covered;
    for (std::uint32_t fold = 0; fold < kFolds; ++fold) {
      StreamSpec spec;
      spec.order = kind;
      spec.folds = kFolds;
      spec.fold = fold;
      std::set<std::uint64_t> rest_users, users;
      const auto rest = rows_of(spec, rest_users);
      spec.is_fold = true;
      const auto own = rows_of(spec, users);
      EXPECT_FALSE(own.empty());
      EXPECT_EQ(own.size() + rest.size(), log->train_targets());
      EXPECT_TRUE(std::ranges::none_of(users, [&](auto u) { return rest_users.contains(u); }));
      EXPECT_TRUE(std::ranges::none_of(own, [&](auto row) { return rest.contains(row); }));
      covered.insert(own.begin(), own.end());
    }
    EXPECT_EQ(covered.size(), log->train_targets());
  }
}

TEST(TargetOrder, TestTargetsAreInNoFold) {
  const auto storage = make_memory_storage();
  const auto log = shop_log(*storage);
  ASSERT_TRUE(log);
  StreamSpec spec;
  spec.part = LogPart::kTest;
  spec.folds = 4;
  EXPECT_EQ(TargetOrder(*log, spec).size(), log->test_targets());
}

}  // namespace
}  // namespace meander::data
