// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/catalogue_tiles.h"

#include <span>

#include "nn/ops/position_runs.h"

namespace meander::nn {
namespace {

using Keys = std::span<const std::uint32_t>;

Keys column(const PartInput& part, Source source, std::int32_t slot) {
  return part.columns[static_cast<int>(source)].at(slot);
}

// The key after each history row: of the next step, or of the first candidate.
void next_keys(const PartInput& part, std::int32_t slot, std::uint32_t* keys) {
  const Keys history = column(part, Source::kHistory, slot);
  const Keys target = column(part, Source::kTarget, slot);
  for_next_rows(
      part.layout,
      [&](std::int32_t row, std::int32_t next, std::int32_t rows) {
        std::copy_n(history.data() + next, rows, keys + row);
      },
      [&](std::int32_t row, std::int32_t group, std::int32_t rows) {
        for (std::int32_t i = 0; i < rows; ++i) {
          keys[row + i] = target[static_cast<std::size_t>(group + i) * part.layout.candidates];
        }
      });
}

}  // namespace

// body(part, its first position, its first group) beside each other.
template <class Body>
void Positions::for_parts(const OpContext& context, Body body) const {
  context.executor->parallel(context.parts.size(), [&](std::size_t p) {
    std::int32_t position = 0, group = 0;
    for (std::size_t q = 0; q < p; ++q) {
      const Layout& layout = context.parts[q].layout;
      position += every ? layout.history_rows : layout.groups;
      group += layout.groups;
    }
    if (context.parts[p].layout.groups > 0) body(p, position, group);
  });
}

void Positions::gather(const OpContext& context, float* states, std::uint32_t* keys) const {
  const Kernels& k = kernels();
  for_parts(context, [&](std::size_t p, std::int32_t position, std::int32_t group) {
    const PartInput& part = context.parts[p];
    const Layout& layout = part.layout;
    float* to = states + static_cast<std::size_t>(position) * width;
    if (every) {
      next_keys(part, slot, keys + position);
    } else {
      const Keys target = column(part, Source::kTarget, slot);
      for (std::int32_t g = 0; g < layout.groups; ++g) {
        keys[position + g] = target[static_cast<std::size_t>(g) * layout.candidates];
      }
    }
    if (rows == Rows::kGroup) {
      const Matrix all = context.value(this->states);
      k.copy_rows(all.row(group), all.stride, to, width, layout.groups, width);
      return;
    }
    const Matrix all = context.part_tensors[p].values[this->states];
    if (every) return k.copy_rows(all.data, all.stride, to, width, all.rows, width);
    for_last_rows(layout, [&](std::int32_t g, std::int32_t n, std::int32_t row) {
      k.copy_rows(all.row(row), all.stride, to + static_cast<std::size_t>(g) * width, width, n,
                  width);
    });
  });
}

void Positions::scatter(const OpContext& context, const float* dstates) const {
  const Kernels& k = kernels();
  for_parts(context, [&](std::size_t p, std::int32_t position, std::int32_t group) {
    const Layout& layout = context.parts[p].layout;
    const float* from = dstates + static_cast<std::size_t>(position) * width;
    const bool of_group = rows == Rows::kGroup;
    const Matrix all = of_group ? context.grad(states) : context.part_tensors[p].grads[states];
    if (all.data == nullptr) return;
    if (of_group) {
      return k.add_rows(from, width, all.row(group), all.stride, layout.groups, width);
    }
    if (every) return k.add_rows(from, width, all.data, all.stride, all.rows, width);
    for_last_rows(layout, [&](std::int32_t g, std::int32_t n, std::int32_t row) {
      k.add_rows(from + static_cast<std::size_t>(g) * width, width, all.row(row), all.stride, n,
                 width);
    });
  });
}

}  // namespace meander::nn
