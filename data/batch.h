// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace meander::data {

// What a slot's key is taken from. `kItem`, `kCategory` and `kContent` (the vector of the item,
// data/content.h) exist for every behaviour of a history; `kUser` and `kContext` (another
// categorical column of the target's own event) for samples only.
// `kWord`: what the nodes of a graph are described by, for no row of a sample.
enum class SlotSource { kItem, kCategory, kUser, kContext, kContent, kWord };
inline bool is_of_event(SlotSource source) {
  return source == SlotSource::kItem || source == SlotSource::kCategory ||
         source == SlotSource::kContent;
}

// One part of a batch: whole groups, dealt out of the batch so that the parts are of equal work.
//
// A group is one history with its K candidates: the target first, then its negatives. G groups,
// S = G*K samples; sample g*K + k is candidate k of group g. Groups are sorted by history length,
// longest first, and histories are packed time-major without padding: step t holds rows
// step_offset[t] + g for g < step_rows[t] (the groups still active); N rows in all. Oldest first.
//
// Key columns hold, for each row, the index of its key in Batch::keys[table of the slot]; those of
// kContent the row in Content::rows, and there are no keys.
struct Part {
  std::int32_t groups = 0;                // G
  std::int32_t candidates = 1;            // K
  std::vector<std::int32_t> lengths;      // (G) history lengths, >= 1, not rising
  std::vector<std::int32_t> step_rows;    // (T) active groups at each step, not rising
  std::vector<std::int32_t> step_offset;  // (T) first row of each step
  std::vector<std::int32_t> order;        // (G) place of the group in the batch as it was drawn

  std::vector<std::vector<std::uint32_t>> target;    // [slot] (S)
  std::vector<std::vector<std::uint32_t>> history;   // [slot] (N); empty for kUser and kContext
  std::vector<std::vector<std::uint32_t>> negative;  // [slot] (N) auxiliary negatives, if asked for
  std::vector<float> negative_valid;                 // (N) 1 where `negative` holds a draw, else 0
  std::vector<float> label;                          // (S) 1 for the target, 0 for a negative
  // If asked for: (S) the second label, 1 or 0; NaN where it is not known, as of each negative.
  std::vector<float> second_label;
  std::vector<float> numeric;  // (S, F) normalised numbers of the event
  std::vector<float> age;      // (N) hours from an event to the target, if asked for

  // Of held-out targets, for their metrics.
  std::vector<std::uint32_t> user_targets;  // (G) targets that the group's user has in all
  std::vector<std::uint8_t> is_cold;        // (G) 1: the target's item is not in the training part
  // What a rank leaves out, if asked for: places in the catalogue of items that group g's user has
  // had before, seen[seen_begin[g]] ... seen[seen_begin[g + 1] - 1].
  std::vector<std::uint32_t> seen, seen_begin;
};

// Keys that all samples of a batch are compared with; empty where none were asked for.
struct Catalogue {
  std::vector<std::uint32_t> rows;  // (C) indices in Batch::keys; every item or user: by id
  // Drawn ones: (C) the logarithm of how often each was to be expected among the draws.
  std::vector<float> log_expected;
};

// A sparse matrix in the making: rows of entries, one after another.
struct SparseDraw {
  std::vector<std::uint32_t> begin;   // (rows + 1)
  std::vector<std::uint32_t> column;  // (entries)
  std::vector<float> value;           // (entries)

  void clear() {
    begin.assign(1, 0);
    column.clear();
    value.clear();
  }
  void end_row() { begin.push_back(static_cast<std::uint32_t>(column.size())); }
};

// What lies around a batch's targets in a graph (data/neighbours.h). Nodes are numbered anew, the
// targets first, then what was drawn for them, and so on: the first nodes[h] are at most h hops
// away.
struct Neighbourhood {
  std::vector<std::int32_t> nodes;  // (hops + 1)
  std::vector<SparseDraw> hops;     // [hop] (nodes[hop], nodes[hop + 1]) shares of neighbours
  std::vector<SparseDraw> inputs;   // [table] (nodes, keys) which rows describe a node; a
                                    // table that describes none has no rows here
  std::vector<std::uint32_t> users, items;  // nodes of the groups, and of the samples, of all parts
};

// A batch is a pure function of (log, stream, seq, seed): whoever builds it again gets the same.
struct Batch {
  std::uint32_t stream = 0;
  std::uint64_t seq = 0;
  std::uint32_t samples = 0;
  std::uint32_t longest = 0;  // T of the whole batch: the longest history in any part
  // Share of the stream's whole training pass done once this batch is, in (0, 1].
  double progress = 0;
  std::uint64_t seed = 0;  // for the model's own draws; no other batch of the run has it
  std::vector<std::vector<std::uint64_t>> keys;  // [table] distinct keys, grouped by lane
  std::vector<Catalogue> catalogues;             // [table]
  Neighbourhood neighbourhood;                   // empty where none was asked for
  std::vector<Part> parts;
};

}  // namespace meander::data
