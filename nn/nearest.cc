// SPDX-License-Identifier: Apache-2.0
#include "nn/nearest.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/check.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

constexpr std::int32_t kTileRows = 512;  // of `all`: kNearestQueries products with each stay near

bool is_better(const Neighbour& a, const Neighbour& b) {
  return a.similarity != b.similarity ? a.similarity > b.similarity : a.row < b.row;
}

// The k best so far, the worst of them on top. Most rows are no better than it.
class Best {
 public:
  Best(Neighbour* out, std::int32_t k) : out_(out), k_(k) {}
  void offer(const Neighbour& neighbour) {
    if (count_ < k_) {
      out_[count_++] = neighbour;
      std::push_heap(out_, out_ + count_, is_better);
    } else if (is_better(neighbour, out_[0])) {
      std::pop_heap(out_, out_ + count_, is_better);
      out_[count_ - 1] = neighbour;
      std::push_heap(out_, out_ + count_, is_better);
    }
  }
  // A similarity below it cannot enter.
  float least() const { return count_ < k_ ? -2.0f : out_[0].similarity; }
  std::int32_t finish() {
    std::sort_heap(out_, out_ + count_, is_better);
    return count_;
  }

 private:
  Neighbour* out_;
  const std::int32_t k_;
  std::int32_t count_ = 0;
};

bool is_zero(const float* row, std::int32_t width) {
  return std::all_of(row, row + width, [](float x) { return x == 0; });
}

// The products of up to kNearestQueries queries with all rows, tile after tile.
void find(ConstMatrix all, std::span<const std::uint32_t> queries,
          const std::vector<char>& is_empty, std::int32_t k, Neighbour* out, std::int32_t* found) {
  const Kernels& kernel = kernels(Precision::kF32);
  const auto count = static_cast<std::int32_t>(queries.size());
  std::vector<float> rows(static_cast<std::size_t>(count) * all.cols);
  std::vector<float> packed(kernel.packed_floats(all.cols, count));
  std::vector<float> products(static_cast<std::size_t>(kTileRows) * count);
  kernel.gather_rows(all.data, all.stride, queries.data(), rows.data(), all.cols, count, all.cols);
  kernel.pack(rows.data(), all.cols, all.cols, count, true, packed.data());
  std::vector<float> least(count, -2.0f);  // by query: what is less alike cannot enter
  std::vector<Best> best;
  for (std::int32_t q = 0; q < count; ++q) best.emplace_back(out + std::int64_t{q} * k, k);
  for (std::int32_t first = 0; first < all.rows; first += kTileRows) {
    const std::int32_t tile = std::min(kTileRows, all.rows - first);
    kernel.gemm(all.row(first), all.stride, packed.data(), nullptr, products.data(), count, tile,
                all.cols, count, false);
    for (std::int32_t r = 0; r < tile; ++r) {
      const auto row = static_cast<std::uint32_t>(first + r);
      if (is_empty[row]) continue;
      const float* const similar = &products[static_cast<std::size_t>(r) * count];
      // Few rows enter: one look at all queries, side by side, passes the others over.
      std::int32_t enter = 0;
      for (std::int32_t q = 0; q < count; ++q) enter += similar[q] >= least[q];
      for (std::int32_t q = 0; enter > 0 && q < count; ++q) {
        if (!(similar[q] >= least[q])) continue;
        --enter;
        if (row == queries[q]) continue;
        best[q].offer({row, similar[q]});
        least[q] = best[q].least();
      }
    }
  }
  for (std::int32_t q = 0; q < count; ++q) found[q] = best[q].finish();
}

}  // namespace

void normalise_rows(Matrix rows) {
  for (std::int32_t r = 0; r < rows.rows; ++r) {
    float* const row = rows.row(r);
    double square = 0;
    for (std::int32_t c = 0; c < rows.cols; ++c) square += double{row[c]} * row[c];
    if (square == 0) continue;
    const double scale = 1 / std::sqrt(square);
    for (std::int32_t c = 0; c < rows.cols; ++c) row[c] = static_cast<float>(row[c] * scale);
  }
}

void nearest(ConstMatrix all, std::span<const std::uint32_t> queries, std::int32_t k,
             std::span<Neighbour> out, std::span<std::int32_t> found, Executor& executor) {
  CHECK_GT(k, 0);
  CHECK_EQ(out.size(), queries.size() * k);
  CHECK_EQ(found.size(), queries.size());
  std::vector<char> is_empty(all.rows);
  for (std::int32_t r = 0; r < all.rows; ++r) is_empty[r] = is_zero(all.row(r), all.cols);
  for (const std::uint32_t row : queries) CHECK_LT(row, is_empty.size());
  const std::size_t tasks = (queries.size() + kNearestQueries - 1) / kNearestQueries;
  executor.parallel(tasks, [&](std::size_t task) {
    const std::size_t first = task * kNearestQueries;
    const auto mine =
        queries.subspan(first, std::min<std::size_t>(kNearestQueries, queries.size() - first));
    find(all, mine, is_empty, k, &out[first * k], &found[first]);
  });
}

}  // namespace meander::nn
