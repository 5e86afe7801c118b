// SPDX-License-Identifier: Apache-2.0
#include "ps/row_store.h"

#include <gtest/gtest.h>

#include <unordered_map>

namespace meander::ps {
namespace {

std::uint64_t hash(std::uint64_t key) { return RowStore::hash(key); }

TEST(Slab, ItemsStayWhereTheyAreAndReleasedOnesComeAgain) {
  Slab slab(12);
  std::vector<std::byte*> addresses;
  for (std::uint32_t i = 0; i < 10'000; ++i) {
    const std::uint32_t slot = slab.allocate();
    ASSERT_EQ(slot, i);
    addresses.push_back(slab.at(slot));
    ASSERT_EQ(static_cast<int>(*slab.at(slot)), 0);
    *slab.at(slot) = std::byte{1};
  }
  for (std::uint32_t i = 0; i < 10'000; ++i) ASSERT_EQ(slab.at(i), addresses[i]);
  slab.release(17);
  EXPECT_EQ(slab.allocate(), 17u);
  EXPECT_EQ(slab.slots(), 10'000u);
}

TEST(Slab, ReservedMemoryIsWhereItemsComeToLieAndKeepsThem) {
  Slab slab(1000);
  for (std::uint32_t i = 0; i < 10; ++i) slab.allocate();
  const std::uint32_t items = 3 * (Slab::kSlabBytes / 1000);
  const auto untouched = slab.reserve(items);
  std::vector<std::byte*> at;
  while (slab.slots() < items + 5) {
    const std::uint32_t slot = slab.allocate();
    *slab.at(slot) = static_cast<std::byte>(slot);
    if (slot < items) at.push_back(slab.at(slot));
  }
  std::size_t i = 0, bytes = 0;
  for (const std::span<std::byte> part : untouched) {
    bytes += part.size();
    make_resident(part);
    for (std::byte* p = part.data(); p != part.data() + part.size(); p += 1000, ++i) {
      ASSERT_LT(i, at.size());
      ASSERT_EQ(p, at[i]);
      ASSERT_EQ(*p, static_cast<std::byte>(i + 10));
    }
  }
  EXPECT_EQ(bytes, (items - 10) * std::size_t{1000});
  EXPECT_TRUE(slab.reserve(items).empty());
}

TEST(Slab, ItemLargerThanASlabHasOneOfItsOwn) {
  Slab slab(Slab::kSlabBytes + 100);
  std::byte* first = slab.at(slab.allocate());
  std::byte* second = slab.at(slab.allocate());
  first[Slab::kSlabBytes + 99] = std::byte{1};
  second[Slab::kSlabBytes + 99] = std::byte{2};
  EXPECT_EQ(static_cast<int>(first[Slab::kSlabBytes + 99]), 1);
}

TEST(RowStore, EveryKeyIsLegal) {
  RowStore store(1);
  for (const std::uint64_t key : {std::uint64_t{0}, ~std::uint64_t{0}, std::uint64_t{1} << 63}) {
    EXPECT_EQ(store.find(key, hash(key)), RowStore::kNone);
    const std::uint32_t slot = store.insert(key, hash(key));
    EXPECT_EQ(store.find(key, hash(key)), slot);
    EXPECT_EQ(store.key(slot), key);
  }
}

TEST(RowStore, AgreesWithAMapThroughGrowthAndErasure) {
  for (const std::uint64_t seed : {1, 2, 3}) {
    Rng rng(seed);
    RowStore store(2);
    std::unordered_map<std::uint64_t, std::uint32_t> model;
    // Draws from few keys, so that they come and go many times over.
    for (int i = 0; i < 60'000; ++i) {
      const std::uint64_t key = rng.below(20'000) * (rng.chance(0.5) ? 1 : 0x100000001ull);
      const auto known = model.find(key);
      ASSERT_EQ(store.find(key, hash(key)), known == model.end() ? RowStore::kNone : known->second);
      if (known == model.end()) {
        model[key] = store.insert(key, hash(key));
      } else if (rng.chance(0.3)) {
        store.erase(key, hash(key));
        EXPECT_FALSE(store.is_live(known->second));
        model.erase(known);
      }
    }
    EXPECT_EQ(store.size(), model.size());
    std::uint64_t live = 0;
    for (std::uint32_t slot = 0; slot < store.slots(); ++slot) live += store.is_live(slot);
    EXPECT_EQ(live, model.size());
  }
}

TEST(RowStore, CandidateNeverMissesAStoredKey) {
  RowStore store(0);
  for (std::uint64_t key = 0; key < 50'000; ++key) store.insert(key, hash(key));
  std::uint64_t wrong = 0, absent_matched = 0;
  for (std::uint64_t key = 0; key < 50'000; ++key) {
    const std::uint32_t slot = store.candidate(hash(key));
    ASSERT_NE(slot, RowStore::kNone);
    wrong += store.key(slot) != key;
    absent_matched += store.candidate(hash(key + 50'000)) != RowStore::kNone;
  }
  EXPECT_LT(wrong, 50'000 / 20);  // an 8-bit tag among at most 12 and few neighbours
  EXPECT_LT(absent_matched, 50'000 / 10);
}

TEST(RowStore, StepAndCountKeepTheirBoundsApart) {
  RowStore store(0);
  const std::uint32_t slot = store.insert(5, hash(5));
  store.set_touched(slot, RowStore::kStepMax, RowStore::kCountMax);
  EXPECT_TRUE(store.is_live(slot));
  store.touch(slot, 7);
  EXPECT_EQ(store.step(slot), 7u);
  EXPECT_EQ(store.count(slot), RowStore::kCountMax);
}

TEST(RowStore, IndexAndMetadataTakeAtMostSixteenBytesOfARowWhenFull) {
  RowStore store(0);
  std::uint64_t key = 0;
  std::size_t worst = 0;
  // Segments split at about the same time: just before, they are all near their load limit.
  for (const std::uint64_t rows : {2'600u, 5'000u, 10'000u, 20'200u, 40'500u, 81'500u}) {
    while (store.size() < rows) {
      store.insert(key, hash(key));
      ++key;
    }
    const std::size_t bytes = store.index_bytes() / store.size() + store.row_bytes() - sizeof(key);
    worst = std::max(worst, bytes);
  }
  EXPECT_LE(worst, 16u);
}

}  // namespace
}  // namespace meander::ps
