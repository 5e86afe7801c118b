// SPDX-License-Identifier: Apache-2.0
#include "common/buffer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "common/rng.h"

namespace meander {
namespace {

TEST(BufferPool, MemoryIsUsedAgainOnceNobodyHoldsIt) {
  BufferPool pool;
  Buffer first = pool.take(1000);
  const std::byte* memory = first.data();
  const Buffer slice = first.slice(8, 16);
  first = Buffer();
  EXPECT_NE(pool.take(1000).data(), memory) << "a slice still holds it";
  const_cast<Buffer&>(slice) = Buffer();
  std::set<const std::byte*> free;
  const Buffer a = pool.take(1000), b = pool.take(1000);
  EXPECT_TRUE(a.data() == memory || b.data() == memory);
  EXPECT_NE(a.data(), b.data());
}

TEST(BufferPool, WhatIsHeldIsNeverHandedOutTwice) {
  BufferPool pool;
  Rng rng(1);
  std::vector<std::pair<Buffer, std::uint8_t>> held;
  for (int i = 0; i < 5000; ++i) {
    if (held.size() > 80 || (!held.empty() && rng.chance(0.5))) {
      const std::size_t at = rng.below(held.size());
      const auto& [buffer, value] = held[at];
      ASSERT_TRUE(std::all_of(buffer.data(), buffer.data() + buffer.size(),
                              [v = value](std::byte b) { return b == std::byte(v); }));
      held.erase(held.begin() + static_cast<std::ptrdiff_t>(at));
    } else {
      Buffer buffer = pool.take(1 + rng.below(3000));
      const auto value = static_cast<std::uint8_t>(rng.next());
      std::fill_n(buffer.data(), buffer.size(), std::byte(value));
      ASSERT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % kBufferAlign, 0u);
      held.emplace_back(std::move(buffer), value);
    }
  }
}

}  // namespace
}  // namespace meander
