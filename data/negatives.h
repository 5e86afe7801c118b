// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include "common/status.h"

namespace meander::data {

// Where the negatives of a target come from.
//   kPopular   an event of the pool (the training part), so by popularity
//   kUniform   a distinct item
//   kRecent    an event of the pool within the window before the target, so by popularity of the
//              moment; an empty window falls back to kPopular
//   kInBatch   another target of the batch
//   kNone      no negatives: one candidate a group
enum class NegativeKind { kPopular, kUniform, kRecent, kInBatch, kNone };

// What a negative may not be, besides the target's own item and an earlier negative of its group:
// an item of the history that the sample has, of all that the user ever has in the log, or of what
// the user has in the training part.
enum class Exclude { kHistory, kUser, kKnown };

struct NegativesSpec {
  NegativeKind kind = NegativeKind::kPopular;
  std::uint32_t count = 1;  // for each target
  std::int64_t window_ms = 3'600'000;
  Exclude exclude = Exclude::kHistory;

  // Negatives that a group really has.
  std::uint32_t per_target() const { return kind == NegativeKind::kNone ? 0 : count; }
};

// kind[:count[:exclude]], such as uniform:100:known. kInvalid: says which word is wrong.
Result<NegativesSpec> parse_negatives(std::string_view text);

// Draws before an excluded item is kept after all (a user may have seen nearly everything).
constexpr std::uint32_t kNegativeTriesMax = 200;
// The same for an auxiliary negative that equals its positive; then the position has none.
constexpr std::uint32_t kAuxiliaryTriesMax = 20;

}  // namespace meander::data
