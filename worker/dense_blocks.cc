// SPDX-License-Identifier: Apache-2.0
#include "worker/dense_blocks.h"

#include <algorithm>
#include <numeric>

#include "common/check.h"

namespace meander::worker {

DenseBlocks::DenseBlocks(std::size_t first, std::size_t size, std::uint32_t block)
    : first_(first), size_(size), block_(block) {
  CHECK_GT(block, 0u);
  keys_.resize((size + block - 1) / block);
  std::iota(keys_.begin(), keys_.end(), 0);
}

void DenseBlocks::group(const PartitionMap& partitions) {
  std::ranges::sort(keys_);
  std::ranges::stable_sort(keys_, {}, [&](std::uint64_t key) { return partitions.lane_of(key); });
}

std::size_t DenseBlocks::length(std::uint64_t key) const {
  return std::min<std::size_t>(block_, size_ - key * block_);
}

void DenseBlocks::gather(std::span<const float> rows, std::span<float> dense) const {
  CHECK_EQ(rows.size(), blocks() * block_);
  const float* row = rows.data();
  for (std::uint64_t key : keys_) {
    std::copy_n(row, length(key), dense.data() + first_ + key * block_);
    row += block_;
  }
}

void DenseBlocks::scatter(std::span<const float> dense, std::span<float> rows) const {
  CHECK_EQ(rows.size(), blocks() * block_);
  float* row = rows.data();
  for (std::uint64_t key : keys_) {
    std::copy_n(dense.data() + first_ + key * block_, length(key), row);
    std::fill(row + length(key), row + block_, 0.0f);
    row += block_;
  }
}

std::vector<DenseBlocks> dense_tables(const nn::Graph& graph, std::uint32_t block) {
  std::vector<DenseBlocks> tables;
  tables.emplace_back(0, graph.dense_trained(), block);
  if (graph.dense_size() > graph.dense_trained()) {
    tables.emplace_back(graph.dense_trained(), graph.dense_size() - graph.dense_trained(), block);
  }
  return tables;
}

}  // namespace meander::worker
