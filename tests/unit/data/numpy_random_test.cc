// SPDX-License-Identifier: Apache-2.0
// Recorded from NumPy 1.26.4: numpy.random.default_rng(seed).permutation(n),
// numpy.random.PCG64(seed).random_raw(3).
#include "data/numpy_random.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace meander::data {
namespace {

using Values = std::vector<std::uint32_t>;

Values permutation(NumpyRandom& random, std::uint32_t n) {
  Values values(n);
  std::iota(values.begin(), values.end(), 0);
  random.shuffle(values);
  return values;
}

TEST(NumpyRandom, DrawsTheWordsOfPcg64) {
  struct {
    std::uint64_t seed, words[3];
  } const recorded[] = {
      {0, {0xa30febcfd9c2825f, 0x4510bdf882d9d721, 0x0a7d3da94ecde8b8}},
      {99, {0x818b39edf54ae299, 0x90a9d85dc1f57127, 0x830ceca12d856e0a}},
      {(std::uint64_t{1} << 40) + 5, {0x1369aef039fedeb, 0x5f61b40473314316, 0x9654aaeeea6ebe77}}};
  for (const auto& [seed, words] : recorded) {
    NumpyRandom random(seed);
    for (const std::uint64_t word : words) EXPECT_EQ(random.next64(), word) << seed;
  }
}

TEST(NumpyRandom, PermutesAsNumpyDoes) {
  struct {
    std::uint64_t seed;
    Values order;
  } const recorded[] = {{0, {4, 6, 2, 7, 3, 5, 9, 0, 8, 1}},
                        {1, {8, 4, 7, 0, 1, 2, 5, 9, 6, 3}},
                        {99, {4, 6, 0, 3, 8, 1, 2, 5, 7, 9}},
                        {(std::uint64_t{1} << 40) + 5, {8, 1, 2, 5, 3, 0, 9, 7, 4, 6}}};
  for (const auto& [seed, order] : recorded) {
    NumpyRandom random(seed);
    EXPECT_EQ(permutation(random, 10), order) << seed;
  }
}

TEST(NumpyRandom, PermutesTheTargetsOfMovielensAsNumpyDoes) {
  NumpyRandom random(99);
  const Values order = permutation(random, 260'261);
  EXPECT_EQ(Values(order.begin(), order.begin() + 5),
            (Values{155369, 221044, 167447, 30240, 14902}));
  EXPECT_EQ(Values(order.end() - 5, order.end()), (Values{93706, 120925, 94503, 211437, 189081}));
  std::uint64_t sum = 0;
  for (std::uint64_t i = 0; i < order.size(); ++i) sum += order[i] * (i + 1);
  EXPECT_EQ(sum, 4'404'308'082'301'822u);
}

TEST(NumpyRandom, NothingAndOneValueStayAsTheyAre) {
  NumpyRandom random(5);
  EXPECT_TRUE(permutation(random, 0).empty());
  EXPECT_EQ(permutation(random, 1), Values{0});
}

}  // namespace
}  // namespace meander::data
