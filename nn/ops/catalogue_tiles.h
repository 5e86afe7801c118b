// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/check.h"
#include "nn/op.h"
#include "nn/ops/carve.h"
#include "nn/simd/kernels.h"

namespace meander::nn {

// How ops at batch scope compare states with a whole catalogue: in tiles of some positions by some
// items that stay in cache. Items are packed once a step, a chunk at a time, and shared by all
// tasks. The cut depends on sizes alone, so results do not depend on threads.
class CatalogueTiles {
 public:
  static constexpr std::int32_t kItems = 384;  // of a chunk; whole panels of a packed product
  static constexpr std::int32_t kRows = 128;   // positions of a block, at most
  static constexpr std::int32_t kTasks = 16;   // each with its own scratch, at most

  // `back`: also packed to go from scores to vectors. layout: of the batch.
  CatalogueTiles(const Layout& layout, std::int32_t width, bool back, Carve& carve)
      : width_(width), chunks_((layout.catalogue_rows + kItems - 1) / kItems) {
    const Kernels& k = kernels();
    floats_ = k.packed_floats(width, kItems);
    back_floats_ = back ? k.packed_floats(kItems, width) : 0;
    packed_ = carve.take(chunks_, floats_);
    packed_back_ = carve.take(chunks_, back_floats_);
    bias_ = carve.take(chunks_, kItems);
  }

  // Says which catalogue; the same in forward and in backward.
  void bind(const Catalogue& catalogue) {
    catalogue_ = &catalogue;
    chunks_ = (static_cast<std::int32_t>(catalogue.rows.size()) + kItems - 1) / kItems;
  }
  std::int32_t chunks() const { return chunks_; }
  std::int32_t begin(std::int32_t chunk) const { return chunk * kItems; }
  std::int32_t items(std::int32_t chunk) const {
    return std::min(kItems, static_cast<std::int32_t>(catalogue_->rows.size()) - begin(chunk));
  }
  const std::uint32_t* keys(std::int32_t chunk) const {
    return catalogue_->rows.data() + begin(chunk);
  }

  // Packs a chunk; `vectors` (kItems, width) is scratch.
  void pack(std::int32_t chunk, ConstMatrix table, float* vectors) const {
    const Kernels& k = kernels();
    const std::int32_t n = items(chunk);
    k.gather_rows(table.data, table.stride, keys(chunk), vectors, width_, n, width_);
    std::fill_n(vectors + at(n, width_), at(kItems - n, width_), 0.0f);
    k.pack(vectors, width_, width_, kItems, true, packed_ + at(chunk, floats_));
    if (back_floats_ > 0) {
      k.pack(vectors, width_, n, width_, false, packed_back_ + at(chunk, back_floats_));
    }
    float* bias = bias_ + at(chunk, kItems);
    std::fill_n(bias, kItems, 0.0f);
    if (catalogue_->log_expected.empty()) return;
    for (std::int32_t i = 0; i < n; ++i) bias[i] = -catalogue_->log_expected[begin(chunk) + i];
  }

  // tile (rows, kItems) = the scores of states (rows, width) with the chunk's items, less the
  // logarithm of how often each was to be expected. Every item's score is summed in the same order.
  void scores(std::int32_t chunk, const float* states, std::int32_t rows, float* tile) const {
    kernels().gemm(states, width_, packed_ + at(chunk, floats_), bias_ + at(chunk, kItems), tile,
                   kItems, rows, width_, kItems, false);
  }
  // sums (rows, width) += tile . items.
  void add_items(std::int32_t chunk, const float* tile, std::int32_t rows, float* sums) const {
    kernels().gemm(tile, kItems, packed_back_ + at(chunk, back_floats_), nullptr, sums, width_,
                   rows, items(chunk), width_, true);
  }

  // Positions of a block, for `rows` in all: enough blocks for the threads of a machine, if the
  // batch is small.
  static std::int32_t block_rows(std::int32_t rows) {
    constexpr std::int32_t kFewest = 8;
    return std::min(even_rows(rows, kFewest), kRows);
  }
  // `rows` in `blocks` of about one size, each but the last of whole tiles of the widest product.
  static std::int32_t even_rows(std::int32_t rows, std::int32_t blocks) {
    constexpr std::int32_t kMultiple = 16;
    const std::int32_t even = (rows + blocks - 1) / blocks;
    return (even + kMultiple - 1) / kMultiple * kMultiple;
  }
  // body(task, i) for i = 0 ... n-1, in at most kTasks tasks.
  template <class Body>
  static void for_each(Executor& executor, std::int32_t n, Body body) {
    const std::int32_t tasks = std::min(n, kTasks);
    executor.parallel(static_cast<std::size_t>(tasks), [&](std::size_t task) {
      for (auto i = static_cast<std::int32_t>(task); i < n; i += tasks) {
        body(static_cast<std::int32_t>(task), i);
      }
    });
  }

 private:
  static std::size_t at(std::int32_t row, std::size_t floats) { return row * floats; }

  std::int32_t width_, chunks_;
  std::size_t floats_, back_floats_;
  float *packed_, *packed_back_, *bias_;
  const Catalogue* catalogue_ = nullptr;
};

// The positions that predict: every history row, or the last one of each group.
struct Positions {
  TensorId states;
  Rows rows;  // of `states`: kHistory or kGroup
  bool every;
  std::int32_t slot, width;

  std::int32_t count(const Layout& layout) const {
    return every ? layout.batch_history_rows : layout.batch_groups;
  }
  // Copies the states of all parts' positions, and the keys of the items that followed.
  void gather(const OpContext& context, float* states, std::uint32_t* keys) const;
  // Adds `dstates` to the gradients that gather() read the states of.
  void scatter(const OpContext& context, const float* dstates) const;

 private:
  template <class Body>
  void for_parts(const OpContext& context, Body body) const;
};

}  // namespace meander::nn
