// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "data/negatives.h"
#include "data/prepared_log.h"

namespace meander::data {

// A target with the history that its sample has: events [history_begin, history_end) of the shard.
struct Sample {
  const Shard* shard = nullptr;
  Target target;
  std::uint32_t history_begin = 0, history_end = 0;

  std::uint32_t length() const { return history_end - history_begin; }
  ItemRef item() const { return {shard->item[target.event], shard->category_of(target.event)}; }
};

// The sample of a target: at most `history` events before it. A test target whose log says so
// (test_history_is_known_part()) looks no further than its user's known events.
Sample sample_of(const PreparedLog& log, const Shard& shard, const Target& target, bool is_test,
                 std::uint32_t history);

// Draws negatives. Each draw is a pure function of (seed, row of the target, number of the draw).
class Sampler {
 public:
  Sampler(const PreparedLog& log, const NegativesSpec& spec) : log_(log), spec_(spec) {}

  // Fills `out`, one for each negative, by spec.kind, which is not kInBatch. An excluded item, or
  // one drawn for this target before, is drawn again, kNegativeTriesMax times at most.
  void draw(std::uint64_t seed, const Sample& sample, std::span<ItemRef> out) const;
  // Whether `item` may not be a negative of `sample`; `drawn` are those it has already.
  bool is_excluded(const Sample& sample, std::uint64_t item, std::span<const ItemRef> drawn) const;

  // What the auxiliary negative of a history position is drawn from: rows [begin, end) of the pool.
  struct Range {
    std::uint64_t begin, end;
  };
  // Also fetches the row that the first draw will name; so ask for many, then draw.
  Range auxiliary_range(std::uint64_t prefix, const Sample& sample, std::uint32_t position) const;
  // An auxiliary negative for position `position` of the sample's history: unlike that event's own
  // item. False when there is none to be had. `prefix` is auxiliary_prefix() of the sample.
  bool draw_auxiliary(std::uint64_t prefix, const Sample& sample, std::uint32_t position,
                      Range range, ItemRef& out) const;
  static std::uint64_t auxiliary_prefix(std::uint64_t seed, const Sample& sample);

 private:
  // Whether spec_.exclude names the item.
  bool is_had(const Sample& sample, std::uint64_t item) const;
  Range window_before(std::int64_t time_ms) const;

  const PreparedLog& log_;
  NegativesSpec spec_;
};

}  // namespace meander::data
