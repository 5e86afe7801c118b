// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/check.h"

namespace meander::nn {

struct Neighbourhood;

// The row spaces of a tensor. A batch is cut into parts; each part holds G groups (one history
// each) of K candidates. Histories are packed time-major, without padding, longest first.
enum class Rows {
  kGroup,          // G rows, one per history
  kSample,         // S = G*K rows; row g*K + k is candidate k of group g
  kHistory,        // N rows; step t: rows step_offset[t] + g, g < step_rows[t]
  kHistorySample,  // N*K rows; step t: rows (step_offset[t] + g)*K + k: time-major over samples
};

// The shape of one part, or (for ops at batch scope) of a whole batch, where only kSample and
// kGroup rows have a meaning.
struct Layout {
  std::int32_t groups = 0;
  std::int32_t candidates = 1;
  std::span<const std::int32_t> lengths;      // (G) not rising; >= 1, or 0 for all: no histories
  std::span<const std::int32_t> step_rows;    // (T)
  std::span<const std::int32_t> step_offset;  // (T)
  std::int32_t history_rows = 0;              // N
  // Of the whole batch, so that a part can scale its share of a mean. A Session sets them for ops,
  // from the parts that it is given.
  std::int32_t batch_groups = 0;
  std::int32_t batch_longest = 0;
  std::int32_t batch_negatives = 0;  // valid auxiliary negatives after the first step
  std::int32_t batch_history_rows = 0;
  std::int32_t catalogue_rows = 0;               // of the step's largest catalogue
  const Neighbourhood* neighbourhood = nullptr;  // nn/neighbourhood.h; null where the step has none

  std::int32_t samples() const { return groups * candidates; }
  std::int32_t steps() const { return static_cast<std::int32_t>(step_rows.size()); }
  std::int32_t batch_samples() const { return batch_groups * candidates; }
  std::int32_t rows(Rows space) const {
    switch (space) {
      case Rows::kGroup:
        return groups;
      case Rows::kSample:
        return samples();
      case Rows::kHistory:
        return history_rows;
      case Rows::kHistorySample:
        return history_rows * candidates;
    }
    return 0;
  }
  // Row of the last behaviour of group g among the kHistory rows.
  std::int32_t last_row(std::int32_t g) const { return step_offset[lengths[g] - 1] + g; }
};

// Where a key column of the input belongs (data/batch.h, Part).
enum class Source { kTarget, kHistory, kNegative };

// Rows of a table that all samples of a step are compared with: every item of the log, or some that
// were drawn for the batch.
struct Catalogue {
  std::span<const std::uint32_t> rows;  // (C) of the step's table; every item: in order of its id
  // Drawn: (C) the logarithm of how often the item was to be expected among them. Empty: every
  // item.
  std::span<const float> log_expected;
  bool empty() const { return rows.empty(); }
};

// One part's input, borrowed from a data::Part. Key columns index the rows of the step's tables.
struct PartInput {
  Layout layout;
  // [source][slot]: (S), (N), (N); empty where the batch has none.
  std::vector<std::span<const std::uint32_t>> columns[3];
  std::span<const float> negative_valid;  // (N)
  std::span<const float> label;           // (S)
  std::span<const float> second_label;    // (S) NaN: not known; in training, if asked for
  std::span<const float> numeric;         // (S, F)
  std::span<const float> age;             // (N) hours from a behaviour to its target, if asked for
  // What a rank leaves out: places in the catalogue that group g has had already, in
  // seen[seen_begin[g] ... seen_begin[g + 1]). Empty in training.
  std::span<const std::uint32_t> seen, seen_begin;
};

}  // namespace meander::nn
