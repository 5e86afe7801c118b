// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstdint>

#include "nn/graph.h"
#include "tests/sim/world/oracle.h"

namespace meander::sim {

// When the rows of the graph's tables are stored, and go (wire::TableSpec).
struct TableOptions {
  std::uint32_t admit_count = 0, expire_steps = 0, keep_count = 0;
  bool are_plain() const { return admit_count == 0 && expire_steps == 0; }
  auto operator<=>(const TableOptions&) const = default;
};

// What is trained: the model that counts, whose rows say how often their keys were trained; or a
// small DIN under Adam, whose gradients depend on every row that it sees.
const nn::Graph& graph_of(bool is_counting);
Tables tables_of(bool is_counting, const TableOptions& options = {});

}  // namespace meander::sim
