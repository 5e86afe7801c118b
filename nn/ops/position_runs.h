// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "nn/layout.h"

namespace meander::nn {

// Rows of a history that lie one after another, so that a loop over them is one call of a kernel.

// The last states of the groups: body(first group, groups, row of the first).
template <class Body>
void for_last_rows(const Layout& layout, Body body) {
  for (std::int32_t g = 0; g < layout.groups;) {
    std::int32_t end = g + 1;
    while (end < layout.groups && layout.lengths[end] == layout.lengths[g]) ++end;
    body(g, end - g, layout.last_row(g));
    g = end;
  }
}

// What follows each row: inner(row, row that follows, rows) where that is a behaviour, and
// last(row, group, rows) where it is the target of groups `group` ....
template <class Inner, class Last>
void for_next_rows(const Layout& layout, Inner inner, Last last) {
  for (std::int32_t t = 0; t < layout.steps(); ++t) {
    const std::int32_t going_on = t + 1 < layout.steps() ? layout.step_rows[t + 1] : 0;
    const std::int32_t row = layout.step_offset[t], ending = layout.step_rows[t] - going_on;
    if (going_on > 0) inner(row, layout.step_offset[t + 1], going_on);
    if (ending > 0) last(row + going_on, going_on, ending);
  }
}

}  // namespace meander::nn
