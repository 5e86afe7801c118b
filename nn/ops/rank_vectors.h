// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "nn/op.h"

namespace meander::nn {

// One history whose first candidate is to be ranked.
struct RankQuery {
  std::uint32_t vector;                 // row of the users' vectors
  std::uint32_t item;                   // row of the items' vectors: the first candidate
  std::span<const std::uint32_t> seen;  // items left out, rising
};

// Floats of scratch that rank_vectors() needs for so many items.
std::size_t rank_scratch_floats(std::int32_t items, std::int32_t width);

// ranks[q] = how many rows of `items` have a better product with the query's vector than its own
// item, and half of those that are as good, without the item and without what was seen. Queries of
// one vector that follow each other share its products. An item whose product is not a number comes
// last. Results do not depend on threads.
void rank_vectors(ConstMatrix vectors, ConstMatrix items, std::span<const RankQuery> queries,
                  float* ranks, float* scratch, Executor& executor);

}  // namespace meander::nn
