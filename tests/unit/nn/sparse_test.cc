// SPDX-License-Identifier: Apache-2.0
#include "nn/sparse.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "common/rng.h"

namespace meander::nn {
namespace {

using Places = std::map<std::pair<std::uint32_t, std::uint32_t>, float>;

Places places_of(const SparseMatrix& a) {
  Places places;
  for (std::int32_t r = 0; r < a.rows; ++r) {
    for (std::uint32_t e = a.begin[r]; e < a.begin[r + 1]; ++e) {
      EXPECT_TRUE(e == a.begin[r] || a.column[e - 1] < a.column[e]) << "row " << r;
      places[{static_cast<std::uint32_t>(r), a.column[e]}] = a.value[e];
    }
  }
  return places;
}

// Some rows empty, some with every column.
std::vector<SparseEntry> random_entries(Rng& rng, std::uint32_t rows, std::uint32_t cols,
                                        double share) {
  std::vector<SparseEntry> entries;
  for (std::uint32_t r = 0; r < rows; ++r) {
    const double here = r % 7 == 3 ? 0 : r % 11 == 5 ? 1 : share;
    for (std::uint32_t c = 0; c < cols; ++c) {
      if (rng.chance(here)) entries.push_back({r, c, static_cast<float>(rng.uniform() + 0.1)});
    }
  }
  return entries;
}

TEST(SparseMatrix, HoldsTheSumOfTheEntriesOfEachPlaceByRisingColumn) {
  Rng rng(1);
  std::vector<SparseEntry> entries = random_entries(rng, 20, 15, 0.3);
  const std::size_t once = entries.size();
  for (std::size_t i = 0; i < once; i += 3) entries.push_back(entries[i]);
  Places expected;
  for (const SparseEntry& e : entries) expected[{e.row, e.column}] += e.value;
  for (std::size_t i = entries.size(); i > 1; --i) {
    std::swap(entries[i - 1], entries[rng.below(i)]);
  }
  const SparseMatrix a = sparse_matrix(20, 15, entries);
  EXPECT_EQ(a.entries(), once);
  EXPECT_EQ(places_of(a), expected);
}

TEST(SparseMatrix, TransposedHasTheSameEntriesAndSaysWhereTheyCameFrom) {
  Rng rng(2);
  const SparseMatrix a = sparse_matrix(20, 15, random_entries(rng, 20, 15, 0.3));
  std::vector<std::uint32_t> place;
  const SparseMatrix t = transposed(a, &place);
  EXPECT_EQ(t.rows, 15);
  EXPECT_EQ(t.cols, 20);
  Places swapped;
  for (const auto& [at, value] : places_of(t)) swapped[{at.second, at.first}] = value;
  EXPECT_EQ(swapped, places_of(a));
  for (std::size_t e = 0; e < t.entries(); ++e) EXPECT_EQ(t.value[e], a.value[place[e]]);
  EXPECT_EQ(places_of(transposed(t)), places_of(a));
}

TEST(SparseMatrix, NormalisedEntriesAreDividedByTheRootsOfBothDegrees) {
  //  1 1 .
  //  . 1 .     degrees of rows 2, 1, 0; of columns 1, 2, 0
  const SparseMatrix a = symmetrically_normalised(
      sparse_matrix(3, 3, std::vector<SparseEntry>{{0, 0, 1}, {0, 1, 1}, {1, 1, 1}}));
  const Places places = places_of(a);
  EXPECT_FLOAT_EQ(places.at({0, 0}), 1 / std::sqrt(2.0f));
  EXPECT_FLOAT_EQ(places.at({0, 1}), 0.5f);
  EXPECT_FLOAT_EQ(places.at({1, 1}), 1 / std::sqrt(2.0f));
  const SparseMatrix b = row_normalised(
      sparse_matrix(2, 3, std::vector<SparseEntry>{{0, 0, 3}, {0, 2, 1}, {1, 1, 5}}));
  EXPECT_EQ(places_of(b), (Places{{{0, 0}, 0.75f}, {{0, 2}, 0.25f}, {{1, 1}, 1.0f}}));
}

TEST(SparseMatrix, RunsOfRowsCoverAllRowsAndShareTheWork) {
  Rng rng(3);
  const SparseMatrix a = sparse_matrix(200, 50, random_entries(rng, 200, 50, 0.2));
  for (const std::int32_t chunks : {1, 3, 8, 500}) {
    const std::vector<std::int32_t> first = balanced_rows(a, chunks);
    ASSERT_EQ(first.size(), static_cast<std::size_t>(chunks) + 1);
    EXPECT_EQ(first.front(), 0);
    EXPECT_EQ(first.back(), 200);
    for (std::int32_t c = 0; c < chunks; ++c) {
      ASSERT_LE(first[c], first[c + 1]);
      if (chunks > 8) continue;
      EXPECT_LE(a.begin[first[c + 1]] - a.begin[first[c]], a.entries() / chunks + 100);
    }
  }
  EXPECT_EQ(balanced_rows(sparse_matrix(0, 0, {}), 2), (std::vector<std::int32_t>{0, 0, 0}));
}

class SparseProduct : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    kernels_ = kernels_for(GetParam());
    if (kernels_ == nullptr) GTEST_SKIP() << "not run by this machine";
  }
  // Row r of a . x, column c, beside what was there.
  static double naive(const SparseMatrix& a, std::uint32_t r, const std::vector<float>& x,
                      std::int32_t ldx, std::int32_t c) {
    double sum = 0;
    for (std::uint32_t e = a.begin[r]; e < a.begin[r + 1]; ++e) {
      sum += double{a.value[e]} * x[a.column[e] * ldx + c];
    }
    return sum;
  }
  const Kernels* kernels_ = nullptr;
};

constexpr std::int32_t kRows = 40, kCols = 700;  // a full row takes several pieces
constexpr float kOld = 0.5f;

TEST_P(SparseProduct, OfAnyRowsAndAnyWidthIsTheSumOfTheGatheredRows) {
  Rng rng(4);
  const SparseMatrix a = sparse_matrix(kRows, kCols, random_entries(rng, kRows, kCols, 0.02));
  const std::vector<std::uint32_t> some = {2, 3, 5, 16, 30, 39}, to = {9, 0, 1, 4, 8, 2};
  for (const std::int32_t n : {1, 3, 4, 7, 8, 16, 18, 31, 32, 50, 64, 65, 100, 128}) {
    const std::int32_t ldx = n + 3, ldy = n + 1;
    std::vector<float> x(static_cast<std::size_t>(kCols) * ldx);
    for (float& v : x) v = static_cast<float>(2 * rng.uniform() - 1);
    for (const bool accumulate : {false, true}) {
      std::vector<float> y(static_cast<std::size_t>(kRows) * ldy, kOld), z = y;
      kernels_->spmm(a.view(), nullptr, 1, kRows - 2, x.data(), ldx, y.data(), ldy, nullptr, n,
                     accumulate);
      kernels_->spmm(a.view(), some.data(), 0, 6, x.data(), ldx, z.data(), ldy, to.data(), n,
                     accumulate);
      const float old = accumulate ? kOld : 0;
      for (std::int32_t c = 0; c < n; ++c) {
        EXPECT_EQ(y[c], kOld);  // not asked for
        EXPECT_EQ(y[(kRows - 1) * ldy + c], kOld);
        for (std::int32_t r = 1; r < kRows - 1; ++r) {
          ASSERT_NEAR(y[r * ldy + c], old + naive(a, r, x, ldx, c), 1e-4) << n << " row " << r;
        }
        for (std::size_t i = 0; i < some.size(); ++i) {
          ASSERT_NEAR(z[to[i] * ldy + c], old + naive(a, some[i], x, ldx, c), 1e-4);
        }
      }
      for (std::int32_t r = 0; r < kRows; ++r) ASSERT_EQ(y[r * ldy + n], kOld);  // between rows
    }
  }
}

TEST_P(SparseProduct, OfFewRowsLeavesOutThoseThatAreZero) {
  Rng rng(5);
  const SparseMatrix a = sparse_matrix(kRows, kCols, random_entries(rng, kRows, kCols, 0.1));
  for (const double share : {0.0, 0.1, 1.0}) {
    std::vector<std::int32_t> place(kCols, -1);
    std::int32_t count = 0;
    for (std::int32_t c = kCols; c-- > 0;) {
      if (rng.chance(share)) place[c] = count++;
    }
    for (const std::int32_t n : {1, 7, 16, 50, 64}) {
      std::vector<float> few(static_cast<std::size_t>(count) * n);
      for (float& v : few) v = static_cast<float>(2 * rng.uniform() - 1);
      std::vector<float> all(static_cast<std::size_t>(kCols) * n);
      for (std::int32_t c = 0; c < kCols; ++c) {
        if (place[c] >= 0) std::copy_n(&few[place[c] * n], n, &all[c * n]);
      }
      std::vector<std::uint32_t> to(kRows);
      for (std::int32_t r = 0; r < kRows; ++r) to[r] = kRows - 1 - r;
      for (const bool accumulate : {false, true}) {
        std::vector<float> y(static_cast<std::size_t>(kRows) * n, kOld);
        kernels_->spmm_some(a.view(), place.data(), 0, kRows, few.data(), n, y.data(), n, to.data(),
                            n, accumulate);
        for (std::int32_t r = 0; r < kRows; ++r) {
          for (std::int32_t c = 0; c < n; ++c) {
            ASSERT_NEAR(y[to[r] * n + c], (accumulate ? kOld : 0) + naive(a, r, all, n, c), 1e-4);
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, SparseProduct, ::testing::Values("v2", "v3", "v4"));

}  // namespace
}  // namespace meander::nn
