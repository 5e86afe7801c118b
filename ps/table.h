// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "checkpoint/generation.h"
#include "common/status.h"
#include "proto/wire.pb.h"
#include "ps/packed_records.h"
#include "ps/precision.h"
#include "ps/row_store.h"
#include "ps/simd/kernels.h"

namespace meander::ps {

constexpr std::uint32_t kWidthMax = 1u << 16;  // floats of a row's weights

// kInvalid: names what a table cannot be (a peer's word, or a user's).
Status check_table(const wire::TableSpec& spec);

// Rows of one width under any 64-bit keys, with the optimizer that updates them: this lane's part
// of one table (docs/table.md). Requests are worked in stages, so that the memory of many rows is
// waited for at once. Not thread safe; concurrent pulls and visits are, while nobody pushes.
class Table {
 public:
  static constexpr std::uint32_t kNoSlot = RowStore::kNone;
  static constexpr std::uint32_t kCutSlots = 1u << 15;

  // `index` and the spec's seed decide absent rows' values (common/initial_row.h). CHECKs the spec.
  Table(std::uint32_t index, const wire::TableSpec& spec);

  // The weights of each key, (keys, width), into `out`; absent keys get their initial value and are
  // not stored. `slots`, if given, takes a hint for the push of the same keys.
  void pull(std::span<const std::uint64_t> keys, float* out,
            std::vector<std::uint32_t>* slots = nullptr) const {
    pull(keys, wire::F32, reinterpret_cast<std::byte*>(out), slots);
  }
  // The same as `precision`.
  void pull(std::span<const std::uint64_t> keys, wire::Precision precision, std::byte* out,
            std::vector<std::uint32_t>* slots) const;

  // One step: applies a gradient, (keys, width), to each key. An absent key is stored once it has
  // been pushed admit_count times; what was pushed before is lost; a row that has expired is
  // absent. A key that occurs more than once is updated as often, in order. `slots`: what pull()
  // gave for these keys, or empty. `pulled`: the rows that the gradients were computed from, or
  // null; of use where the optimizer compensates delays.
  void push(std::span<const std::uint64_t> keys, const float* gradients,
            std::span<const std::uint32_t> slots = {}, const float* pulled = nullptr) {
    push(keys, wire::F32, reinterpret_cast<const std::byte*>(gradients), slots,
         reinterpret_cast<const std::byte*>(pulled));
  }
  // The same, with gradients and rows as `precision`.
  void push(std::span<const std::uint64_t> keys, wire::Precision precision,
            const std::byte* gradients, std::span<const std::uint32_t> slots,
            const std::byte* pulled = nullptr);
  bool compensates_delay() const { return spec_.optimizer().delay_compensation() > 0; }

  // Stores weights, (keys, width), with fresh optimizer state, untouched so far.
  void assign(std::span<const std::uint64_t> keys, const float* weights);

  // Takes a stored record back, or drops it if it has expired at step(). With `replace`, it takes
  // the place of what the key has; else kCorrupt if the key is there already. kCorrupt: another
  // width.
  Status restore(const checkpoint::Record& record, bool replace = false);
  Status restore(const checkpoint::Records& records, bool replace);
  // There are about to be so many rows. As RowStore::reserve().
  std::vector<std::span<std::byte>> reserve(std::uint64_t rows) { return rows_.reserve(rows); }
  void set_step(std::uint64_t step) { step_ = step; }

  // Takes a cut: the records as they are now, or those of them that were last touched after step
  // `after`. take_cut() hands them out, each once and as it is now, whatever is pushed meanwhile:
  // what is about to change is copied first. Ends a cut that was not taken whole.
  void begin_cut(std::optional<std::uint64_t> after = {});
  // Adds records of the cut to `out`, copies first, until that holds `bytes` or kCutSlots slots
  // have been looked at. False: that was the last of them, and the cut is over.
  bool take_cut(std::size_t bytes, PackedRecords& out);
  // Of copies that were not taken yet.
  std::size_t cut_bytes() const { return cut_ ? cut_->copies.bytes() : 0; }

  const std::string& name() const { return spec_.name(); }
  std::uint32_t width() const { return width_; }
  std::uint32_t state_width() const { return state_width_; }
  wire::Optimizer::Kind optimizer() const { return spec_.optimizer().kind(); }
  // In memory: also those that have expired and were not swept yet.
  std::uint64_t rows() const { return rows_.size(); }
  // Keys that are counted and have no row yet.
  std::uint64_t counted() const { return counters_.size(); }
  std::uint64_t step() const { return step_; }  // pushes applied, empty ones too
  // Of rows, counters and index, as far as they are used.
  std::size_t bytes() const;

 private:
  struct Stage;
  class Walk;
  // The cut's records: last touched at a step in (after, step], or in [0, step].
  struct Cut {
    std::optional<std::uint64_t> after;
    std::uint64_t step = 0;
    std::uint32_t rows_taken = 0, counters_taken = 0;  // slots below have been looked at
    std::uint32_t rows_end = 0, counters_end = 0;      // the slots that there were
    PackedRecords copies;
  };

  void initialise(std::uint64_t key, float* values) const;
  bool is_present(const RowStore& store, std::uint32_t slot, std::uint64_t step) const;
  bool is_in_cut(const RowStore& store, std::uint32_t slot) const;
  checkpoint::Record record(const RowStore& store, std::uint32_t slot) const;
  void copy_first(const RowStore& store, std::uint32_t slot);
  void take_slots(const RowStore& store, std::uint32_t end, std::size_t bytes, std::uint32_t& taken,
                  std::uint32_t& budget, PackedRecords& out);
  void sweep(RowStore& store, std::uint32_t& at, std::size_t slots);
  std::uint32_t admit(std::uint64_t key, std::uint64_t hash);
  void touch(const Stage& stage, const float* gradients, const float* pulled,
             const UpdateParams& params);

  std::uint32_t index_, width_, state_width_;
  wire::TableSpec spec_;
  RowStore rows_;
  RowStore counters_;  // keys on their way to admission: rows without values
  std::optional<Cut> cut_;
  UpdateRows update_;
  // Of one group: gradients that were clipped, compensated, widened; rows that were widened.
  std::vector<float> clipped_, compensated_, widened_, pulled_;
  std::uint64_t step_ = 0;
  std::uint64_t expire_steps_;                       // 0: never
  std::uint32_t row_sweep_ = 0, counter_sweep_ = 0;  // the slots that are looked at next
};

}  // namespace meander::ps
