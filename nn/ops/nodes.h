// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/check.h"
#include "nn/op.h"

namespace meander::nn {

// The nodes of a graph as a step has them: the rows of one table, every one of which the step
// holds. Node n is the n-th of the table's catalogue.
struct Nodes {
  ConstMatrix table;                   // the step's rows, in whatever order
  std::span<const std::uint32_t> row;  // (nodes) of the table
  bool in_order = false;               // node n is row n

  Nodes(const OpContext& context, std::int32_t of_table, std::int32_t count)
      : table(context.tables[of_table]) {
    CHECK_LT(static_cast<std::size_t>(of_table), context.catalogues.size()) << "no catalogue";
    row = context.catalogues[of_table].rows;
    CHECK_EQ(row.size(), static_cast<std::size_t>(count)) << "a catalogue of another graph";
    CHECK_EQ(table.rows, count) << "rows that are no nodes";
    in_order = true;
    for (std::size_t n = 0; n < row.size(); ++n) in_order &= row[n] == n;
  }
};

// body(sample of the batch, its key) for a slot of the targets of all parts, in the order of
// kSample rows.
template <class Body>
void for_target_keys(const OpContext& context, std::int32_t slot, Body body) {
  std::int32_t sample = 0;
  for (const PartInput& part : context.parts) {
    if (part.layout.groups == 0) continue;
    const auto& columns = part.columns[static_cast<int>(Source::kTarget)];
    CHECK_LT(static_cast<std::size_t>(slot), columns.size());
    CHECK_EQ(columns[slot].size(), static_cast<std::size_t>(part.layout.samples()));
    for (const std::uint32_t key : columns[slot]) body(sample++, key);
  }
}

}  // namespace meander::nn
