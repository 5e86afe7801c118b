// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "nn/simd/kernels.h"

namespace meander::nn {

// What a step has of a graph: what was drawn around the targets of its batch, in nodes numbered
// anew, the targets first. Of all parts together; borrowed from a data::Neighbourhood.
struct Neighbourhood {
  std::span<const std::int32_t> nodes;  // (hops + 1) nodes that are at most so many hops away
  // [hop] (nodes[hop], nodes[hop + 1]) what each draws on, by its share: a row's entries sum up to
  // 1, or there are none.
  std::vector<SparseRows> hops;
  // [table] (nodes[hops], rows of the step's table) which rows add up to what a node is described
  // by; `begin` null: none of this table.
  std::vector<SparseRows> inputs;
  // The nodes of the batch's groups (G) and of its samples (S; empty where only groups have one).
  std::span<const std::uint32_t> users, items;

  std::size_t entries(std::size_t hop) const { return hops[hop].begin[nodes[hop]]; }
};

}  // namespace meander::nn
