// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "common/rng.h"
#include "nn/graph.h"

namespace meander {

// A history with its candidates, as a person would write it down. Keys are rows of the tables.
struct JaggedGroup {
  std::vector<std::vector<std::uint32_t>> history;   // [slot][step], oldest first
  std::vector<std::vector<std::uint32_t>> negative;  // [slot][step]; may be empty
  std::vector<float> valid;                          // [step]; with `negative`
  std::vector<float> age;                            // [step] hours; may be empty
  std::vector<std::vector<std::uint32_t>> target;    // [slot][candidate]
  std::vector<float> label;                          // [candidate]
  std::vector<float> second_label;                   // [candidate]; may be empty
  std::vector<float> numeric;                        // [candidate * F + feature]
};

// Groups packed as nn wants its parts, and the memory behind them. Not copied, not moved: the views
// point into it.
class JaggedBatch {
 public:
  // One vector of groups for each part. Within its part, a group's place becomes that of its
  // length.
  explicit JaggedBatch(std::vector<std::vector<JaggedGroup>> parts) {
    for (auto& groups : parts) parts_.push_back(pack(std::move(groups)));
    for (const Part& part : parts_) inputs_.push_back(view(part));
  }
  JaggedBatch(const JaggedBatch&) = delete;
  JaggedBatch& operator=(const JaggedBatch&) = delete;

  std::span<const nn::PartInput> inputs() const { return inputs_; }
  // For each group in the order of the packed batch, its place among the groups as they were given.
  std::vector<std::size_t> order() const {
    std::vector<std::size_t> all;
    for (const Part& part : parts_) {
      const std::size_t before = all.size();
      for (std::size_t place : part.order) all.push_back(before + place);
    }
    return all;
  }

 private:
  using Columns = std::vector<std::vector<std::uint32_t>>;
  struct Part {
    std::vector<JaggedGroup> groups;  // longest first
    std::vector<std::size_t> order;
    std::vector<std::int32_t> lengths, step_rows, step_offset;
    Columns columns[3];  // by nn::Source
    std::vector<float> valid, label, second_label, numeric, age;
  };

  static std::size_t length(const JaggedGroup& group) { return group.history.at(0).size(); }

  static Part pack(std::vector<JaggedGroup> groups) {
    Part part;
    part.order.resize(groups.size());
    std::iota(part.order.begin(), part.order.end(), 0);
    std::ranges::stable_sort(part.order, std::greater(),
                             [&](std::size_t g) { return length(groups[g]); });
    for (std::size_t g : part.order) part.groups.push_back(groups[g]);
    for (auto& columns : part.columns) columns.resize(groups.empty() ? 0 : groups[0].target.size());
    for (const JaggedGroup& group : part.groups) {
      part.lengths.push_back(static_cast<std::int32_t>(length(group)));
      append(part.columns[static_cast<int>(nn::Source::kTarget)], group.target);
      part.label.insert(part.label.end(), group.label.begin(), group.label.end());
      part.second_label.insert(part.second_label.end(), group.second_label.begin(),
                               group.second_label.end());
      part.numeric.insert(part.numeric.end(), group.numeric.begin(), group.numeric.end());
    }
    const std::size_t steps = part.lengths.empty() ? 0 : part.lengths[0];
    std::int32_t rows = 0;
    for (std::size_t t = 0; t < steps; ++t) rows += pack_step(part, t, rows);
    return part;
  }

  static std::int32_t pack_step(Part& part, std::size_t t, std::int32_t offset) {
    std::int32_t active = 0;
    for (const JaggedGroup& group : part.groups) {
      if (t >= length(group)) break;
      ++active;
      append_step(part.columns[static_cast<int>(nn::Source::kHistory)], group.history, t);
      if (!group.age.empty()) part.age.push_back(group.age[t]);
      if (group.negative.empty()) continue;
      append_step(part.columns[static_cast<int>(nn::Source::kNegative)], group.negative, t);
      part.valid.push_back(group.valid[t]);
    }
    part.step_rows.push_back(active);
    part.step_offset.push_back(offset);
    return active;
  }

  static void append(Columns& to, const Columns& from) {
    for (std::size_t slot = 0; slot < from.size(); ++slot) {
      to[slot].insert(to[slot].end(), from[slot].begin(), from[slot].end());
    }
  }
  static void append_step(Columns& to, const Columns& from, std::size_t t) {
    for (std::size_t slot = 0; slot < from.size(); ++slot) {
      if (!from[slot].empty()) to[slot].push_back(from[slot][t]);
    }
  }

  static nn::PartInput view(const Part& part) {
    nn::PartInput input;
    input.layout.groups = static_cast<std::int32_t>(part.groups.size());
    input.layout.candidates =
        part.groups.empty() ? 1 : static_cast<std::int32_t>(part.groups[0].label.size());
    input.layout.lengths = part.lengths;
    input.layout.step_rows = part.step_rows;
    input.layout.step_offset = part.step_offset;
    input.layout.history_rows = std::accumulate(part.lengths.begin(), part.lengths.end(), 0);
    for (int source = 0; source < 3; ++source) {
      for (const auto& column : part.columns[source]) input.columns[source].push_back(column);
    }
    input.negative_valid = part.valid;
    input.label = part.label;
    input.second_label = part.second_label;
    input.numeric = part.numeric;
    input.age = part.age;
    return input;
  }

  std::vector<Part> parts_;
  std::vector<nn::PartInput> inputs_;
};

// Random groups: one for each of `lengths`; keys below `keys[slot]`; slots from `history_slots` on
// are not in the history. The first candidate is the click.
inline std::vector<JaggedGroup> random_groups(Rng& rng, const std::vector<std::int32_t>& lengths,
                                              std::int32_t candidates,
                                              const std::vector<std::uint32_t>& keys,
                                              std::size_t history_slots,
                                              std::int32_t features = 0) {
  std::vector<JaggedGroup> groups;
  for (std::int32_t length : lengths) {
    JaggedGroup& group = groups.emplace_back();
    const auto draw = [&](std::size_t slot, std::int32_t n) {
      std::vector<std::uint32_t> column(n);
      for (std::uint32_t& key : column) key = static_cast<std::uint32_t>(rng.below(keys[slot]));
      return column;
    };
    for (std::size_t slot = 0; slot < keys.size(); ++slot) {
      group.target.push_back(draw(slot, candidates));
      group.history.push_back(slot < history_slots ? draw(slot, length)
                                                   : std::vector<std::uint32_t>());
      group.negative.push_back(slot < history_slots ? draw(slot, length)
                                                    : std::vector<std::uint32_t>());
    }
    for (std::int32_t t = 0; t < length; ++t) group.valid.push_back(t > 0 && !rng.chance(0.1));
    // Not known of most that were not clicked, and of some that were.
    for (std::int32_t k = 0; k < candidates; ++k) {
      const std::uint64_t draw = hash64(static_cast<std::uint64_t>(31 * length + k), groups.size());
      const bool is_known = draw % 4 < (k == 0 ? 3 : 1);
      group.second_label.push_back(is_known ? static_cast<float>(draw >> 8 & 1)
                                            : std::numeric_limits<float>::quiet_NaN());
    }
    // Hours that fall to the newest; hashed, so that what else is drawn stays as it was.
    for (std::int32_t t = 0; t < length; ++t) {
      const double jitter = unit_double(hash64(static_cast<std::uint64_t>(length), t));
      group.age.push_back(static_cast<float>(9.0 * (length - t) + jitter));
    }
    for (std::int32_t k = 0; k < candidates; ++k) group.label.push_back(k == 0 ? 1.0f : 0.0f);
    for (std::int32_t i = 0; i < candidates * features; ++i) {
      group.numeric.push_back(static_cast<float>(2 * rng.uniform() - 1));
    }
  }
  return groups;
}

}  // namespace meander
