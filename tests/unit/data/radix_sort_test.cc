// SPDX-License-Identifier: Apache-2.0
#include "data/radix_sort.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "common/rng.h"

namespace meander::data {
namespace {

TEST(RadixSort, OrdersByKeyAndKeepsTheOrderOfEqualOnes) {
  Rng rng(3);
  for (int round = 0; round < 200; ++round) {
    std::vector<Keyed> values(rng.below(2000));
    const std::uint64_t shift = rng.below(64), base = rng.next();
    for (std::uint32_t i = 0; i < values.size(); ++i) {
      values[i] = {base ^ (rng.next() >> shift << rng.below(3)), i};
    }
    std::vector<Keyed> expected = values;
    std::stable_sort(expected.begin(), expected.end(),
                     [](const Keyed& a, const Keyed& b) { return a.key < b.key; });
    sort_by_key(values);
    for (std::size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(values[i].key, expected[i].key);
      ASSERT_EQ(values[i].index, expected[i].index);
    }
  }
}

}  // namespace
}  // namespace meander::data
