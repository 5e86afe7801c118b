// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/rank_vectors.h"

#include <algorithm>
#include <cmath>

#include "common/check.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

constexpr std::int32_t kTileItems = 512;  // whose products lie in the first cache
constexpr std::size_t kTaskQueries = 64;
constexpr std::int32_t kVectorsMax = 16;  // of a tile

std::int32_t tiles_of(std::int32_t items) { return (items + kTileItems - 1) / kTileItems; }

// Whole tiles, the last one too: it is packed with fewer columns in the same room.
std::size_t tile_floats(std::int32_t width) {
  return (kernels().packed_floats(width, kTileItems) + 15) / 16 * 16;
}

// How far a query has come.
struct Count {
  std::int32_t row;  // of the tile: its vector
  float score;       // of its item
  std::size_t seen = 0;
  std::int64_t better = 0, equal = 0;
};

void count_tile(const RankQuery& query, const float* scores, std::uint32_t first,
                std::uint32_t count, Count& at) {
  std::int32_t better = 0, equal = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    better += scores[i] > at.score;
    equal += scores[i] == at.score;
  }
  const auto leave_out = [&](std::uint32_t item) {
    better -= scores[item - first] > at.score;
    equal -= scores[item - first] == at.score;
  };
  bool was_seen = false;
  for (; at.seen < query.seen.size() && query.seen[at.seen] < first + count; ++at.seen) {
    DCHECK_GE(query.seen[at.seen], first);
    leave_out(query.seen[at.seen]);
    was_seen |= query.seen[at.seen] == query.item;
  }
  if (query.item >= first && query.item < first + count && !was_seen) leave_out(query.item);
  at.better += better;
  at.equal += equal;
}

class Task {
 public:
  Task(ConstMatrix vectors, ConstMatrix items, const float* packed)
      : vectors_(vectors), items_(items), packed_(packed) {}

  // The queries of up to kVectorsMax vectors, from `queries` on; how many they were.
  std::size_t run(std::span<const RankQuery> queries, float* ranks) {
    std::size_t count = 0;
    std::int32_t rows = 0;
    for (; count < queries.size() && count < kTaskQueries; ++count) {
      const RankQuery& query = queries[count];
      if (count == 0 || query.vector != queries[count - 1].vector) {
        if (rows == kVectorsMax) break;
        row_[rows++] = query.vector;
      }
      counts_[count] = {.row = rows - 1, .score = score(query)};
    }
    for (std::int32_t tile = 0; tile < tiles_of(items_.rows); ++tile) {
      count_products(tile, rows, queries.first(count));
    }
    for (std::size_t q = 0; q < count; ++q) {
      const std::int64_t rank =
          std::isnan(counts_[q].score) ? items_.rows - 1 : counts_[q].better + counts_[q].equal / 2;
      ranks[q] = static_cast<float>(rank);
    }
    return count;
  }

 private:
  // From the same tile as when the item is compared with others, for equal ones to be equal.
  float score(const RankQuery& query) {
    const auto tile = static_cast<std::int32_t>(query.item) / kTileItems;
    multiply(query.vector, tile, products_);
    return products_[query.item - tile * kTileItems];
  }

  void multiply(std::uint32_t vector, std::int32_t tile, float* out) const {
    const std::int32_t count = std::min(kTileItems, items_.rows - tile * kTileItems);
    kernels().gemm(vectors_.row(vector), vectors_.stride, packed_ + tile * tile_floats(items_.cols),
                   nullptr, out, kTileItems, 1, items_.cols, count, false);
  }

  void count_products(std::int32_t tile, std::int32_t rows, std::span<const RankQuery> queries) {
    const std::int32_t first = tile * kTileItems;
    const std::int32_t count = std::min(kTileItems, items_.rows - first);
    for (std::int32_t r = 0; r < rows; ++r) multiply(row_[r], tile, products_ + r * kTileItems);
    for (std::size_t q = 0; q < queries.size(); ++q) {
      count_tile(queries[q], products_ + counts_[q].row * kTileItems, first, count, counts_[q]);
    }
  }

  ConstMatrix vectors_, items_;
  const float* packed_;
  std::uint32_t row_[kVectorsMax];
  Count counts_[kTaskQueries];
  float products_[kVectorsMax * kTileItems];
};

}  // namespace

std::size_t rank_scratch_floats(std::int32_t items, std::int32_t width) {
  return tiles_of(items) * tile_floats(width);
}

void rank_vectors(ConstMatrix vectors, ConstMatrix items, std::span<const RankQuery> queries,
                  float* ranks, float* scratch, Executor& executor) {
  const std::size_t floats = tile_floats(items.cols);
  executor.parallel(tiles_of(items.rows), [&](std::size_t tile) {
    const auto first = static_cast<std::int32_t>(tile) * kTileItems;
    kernels().pack(items.row(first), items.stride, items.cols,
                   std::min(kTileItems, items.rows - first), true, scratch + tile * floats);
  });
  executor.parallel((queries.size() + kTaskQueries - 1) / kTaskQueries, [&](std::size_t task) {
    const std::size_t end = std::min(queries.size(), (task + 1) * kTaskQueries);
    Task of_queries(vectors, items, scratch);
    for (std::size_t q = task * kTaskQueries; q < end;) {
      q += of_queries.run(queries.subspan(q, end - q), ranks + q);
    }
  });
}

}  // namespace meander::nn
