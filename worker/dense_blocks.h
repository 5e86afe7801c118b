// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/partition.h"
#include "nn/graph.h"

namespace meander::worker {

// A run of the dense vector as rows of a table: row b holds floats [b * block, (b + 1) * block) of
// the run under key b; the last row is padded with zeros. The lanes know it as any other table.
class DenseBlocks {
 public:
  // Floats [first, first + size) of the dense vector, `block` > 0 floats to a row.
  DenseBlocks(std::size_t first, std::size_t size, std::uint32_t block);

  std::size_t first() const { return first_; }
  std::size_t size() const { return size_; }
  std::uint32_t block() const { return block_; }
  std::size_t blocks() const { return keys_.size(); }
  // The keys in the order of rows; by number until group() has put them in lane order.
  const std::vector<std::uint64_t>& keys() const { return keys_; }
  void group(const PartitionMap& partitions);

  // rows is (blocks, block) in the order of keys(); dense is the whole dense vector.
  void gather(std::span<const float> rows, std::span<float> dense) const;
  void scatter(std::span<const float> dense, std::span<float> rows) const;

 private:
  std::size_t length(std::uint64_t key) const;  // floats of a row that are not padding

  std::size_t first_, size_;
  std::uint32_t block_;
  std::vector<std::uint64_t> keys_;
};

// The tables that a graph's dense vector needs behind the graph's own: the trained part, then, if
// there are any, the statistics (plain SGD; nn/op.h, ParamSpec).
std::vector<DenseBlocks> dense_tables(const nn::Graph& graph, std::uint32_t block);

}  // namespace meander::worker
