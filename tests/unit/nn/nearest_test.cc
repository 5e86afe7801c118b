// SPDX-License-Identifier: Apache-2.0
#include "nn/nearest.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "common/rng.h"
#include "tests/unit/nn/threads_executor.h"

namespace meander::nn {
namespace {

constexpr std::int32_t kWidth = 19;

struct Vectors {
  Vectors(std::int32_t rows, std::uint64_t seed) : values(rows * kWidth) {
    Rng rng(seed);
    for (float& x : values) x = static_cast<float>(2 * rng.uniform() - 1);
    view = {values.data(), rows, kWidth, kWidth};
  }
  double cosine(std::uint32_t a, std::uint32_t b) const {
    double product = 0, squares[2] = {};
    for (std::int32_t c = 0; c < kWidth; ++c) {
      const double x = values[a * kWidth + c], y = values[b * kWidth + c];
      product += x * y;
      squares[0] += x * x;
      squares[1] += y * y;
    }
    return product / std::sqrt(squares[0] * squares[1]);
  }
  std::vector<float> values;
  Matrix view;
};

struct Found {
  Found(const Vectors& of, std::vector<std::uint32_t> queries, std::int32_t k, Executor& executor)
      : out(queries.size() * k), found(queries.size()) {
    Vectors unit = of;
    unit.view.data = unit.values.data();
    normalise_rows(unit.view);
    nearest(unit.view, queries, k, out, found, executor);
  }
  std::vector<Neighbour> out;
  std::vector<std::int32_t> found;
};

// Sizes about those of tiles and of blocks of queries.
TEST(Nearest, AreThoseOfTheCosineInFloat64) {
  InlineExecutor executor;
  for (const std::int32_t rows : {2, 70, 511, 512, 1100}) {
    for (const std::int32_t k : {1, 7, 100}) {
      const Vectors vectors(rows, 5 + rows);
      std::vector<std::uint32_t> queries(std::min(rows, 65));
      std::iota(queries.begin(), queries.end(), 0);
      std::ranges::reverse(queries);
      const Found found(vectors, queries, k, executor);
      for (std::size_t q = 0; q < queries.size(); ++q) {
        std::vector<double> all;
        for (std::int32_t r = 0; r < rows; ++r) {
          if (static_cast<std::uint32_t>(r) != queries[q]) {
            all.push_back(vectors.cosine(queries[q], static_cast<std::uint32_t>(r)));
          }
        }
        std::ranges::sort(all, std::greater());
        ASSERT_EQ(found.found[q], std::min(k, rows - 1));
        for (std::int32_t i = 0; i < found.found[q]; ++i) {
          const Neighbour& at = found.out[q * k + i];
          ASSERT_NE(at.row, queries[q]);
          // What is there is as alike as it says, and as the i-th best.
          ASSERT_NEAR(at.similarity, vectors.cosine(queries[q], at.row), 1e-6);
          ASSERT_NEAR(at.similarity, all[i], 1e-6) << rows << " rows, place " << i;
          if (i > 0) ASSERT_LE(at.similarity, found.out[q * k + i - 1].similarity);
        }
      }
    }
  }
}

TEST(Nearest, RowsOfZerosAreNobodysNeighboursAndEqualOnesComeByRow) {
  InlineExecutor executor;
  Vectors vectors(6, 1);
  const auto copy = [&](std::uint32_t from, std::uint32_t to) {
    std::copy_n(&vectors.values[from * kWidth], kWidth, &vectors.values[to * kWidth]);
  };
  copy(0, 2);
  copy(0, 5);
  std::fill_n(&vectors.values[3 * kWidth], kWidth, 0.0f);
  const Found found(vectors, {0, 3}, 4, executor);
  EXPECT_EQ(found.found[0], 4);
  EXPECT_EQ(found.out[0].row, 2u);
  EXPECT_EQ(found.out[1].row, 5u);
  EXPECT_NEAR(found.out[0].similarity, 1, 1e-6);
  for (int i = 0; i < 4; ++i) EXPECT_NE(found.out[i].row, 3u);
  // To nothing, all are as alike.
  EXPECT_EQ(found.found[1], 4);
  EXPECT_EQ(found.out[4].similarity, 0.0f);
}

TEST(Nearest, ThreadsChangeNothing) {
  const Vectors vectors(700, 3);
  std::vector<std::uint32_t> queries(300);
  std::iota(queries.begin(), queries.end(), 100);
  InlineExecutor alone;
  ThreadsExecutor threads;
  const Found a(vectors, queries, 9, alone), b(vectors, queries, 9, threads);
  EXPECT_EQ(a.found, b.found);
  for (std::size_t i = 0; i < a.out.size(); ++i) {
    EXPECT_EQ(a.out[i].row, b.out[i].row);
    EXPECT_EQ(a.out[i].similarity, b.out[i].similarity);
  }
}

}  // namespace
}  // namespace meander::nn
