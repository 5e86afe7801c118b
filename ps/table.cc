// SPDX-License-Identifier: Apache-2.0
#include "ps/table.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "common/initial_row.h"
#include "common/partition.h"
#include "common/planted_bug.h"
#include "ps/optimizer.h"

namespace meander::ps {
namespace {

constexpr std::size_t kGroup = 8;        // rows worked together
constexpr std::size_t kLead = 4;         // groups between two stages
constexpr std::size_t kSweepSlots = 16;  // looked at in each push at least

bool is_amount(float value) { return std::isfinite(value) && value >= 0; }

}  // namespace

Status check_table(const wire::TableSpec& spec) {
  const std::string where = "table " + spec.name() + ": ";
  if (spec.width() == 0 || spec.width() > kWidthMax) {
    return invalid(where + "width " + std::to_string(spec.width()) + " is not in 1 ... " +
                   std::to_string(kWidthMax));
  }
  if (!is_amount(spec.init_range())) return invalid(where + "init_range must be finite and >= 0");
  if (spec.admit_count() > RowStore::kCountMax) return invalid(where + "admit_count is too large");
  if (spec.expire_steps() > RowStore::kStepMax || spec.keep_count() > RowStore::kCountMax) {
    return invalid(where + "expire_steps or keep_count is too large");
  }
  if (!is_amount(spec.clip_row())) return invalid(where + "clip_row must be finite and >= 0");
  return check_optimizer(spec.optimizer(), where);
}

Table::Table(std::uint32_t index, const wire::TableSpec& spec)
    : index_(index),
      width_(spec.width()),
      state_width_(checkpoint::state_width(spec.optimizer().kind(), spec.width())),
      spec_(spec),
      rows_(width_ + state_width_),
      counters_(0),
      update_(update_kernel(spec.optimizer().kind())),
      expire_steps_(spec.expire_steps()) {
  const Status status = check_table(spec);
  CHECK(status.ok()) << status.message();
  if (spec.clip_row() > 0) clipped_.resize(kGroup * width_);
  if (compensates_delay()) compensated_.resize(kGroup * width_);
}

// A few rows on their way through the stages.
struct Table::Stage {
  std::size_t begin = 0, n = 0;  // keys[begin ... begin + n)
  std::array<std::uint32_t, kGroup> slots;
  std::array<std::uint64_t, kGroup> hashes;  // set where there is no hint
};

// Works a request in groups of rows, each in three stages: its buckets are asked for; kLead groups
// later they are there, and its rows are asked for; kLead groups later these are there, and it is
// finished. So the memory of some kLead * kGroup rows is on its way at any time.
class Table::Walk {
 public:
  // `hints`: slots where the keys probably are, or empty. `row_bytes`: how much of a row is used.
  Walk(const RowStore& rows, std::span<const std::uint64_t> keys,
       std::span<const std::uint32_t> hints, std::size_t row_bytes)
      : rows_(rows), keys_(keys), hints_(hints), row_bytes_(row_bytes) {}

  // Calls finish(stage) for all keys in order. Each has its row's slot, or kNoSlot when the key was
  // absent just before; finish() may insert rows.
  template <class Finish>
  void run(Finish finish) {
    const std::size_t groups = (keys_.size() + kGroup - 1) / kGroup;
    for (std::size_t g = 0; g < groups + 2 * kLead; ++g) {
      if (g < groups) ask_buckets(stages_[g % kStages], g);
      if (g >= kLead && g < groups + kLead) ask_rows(stages_[(g - kLead) % kStages]);
      if (g < 2 * kLead) continue;
      Stage& stage = stages_[(g - 2 * kLead) % kStages];
      settle(stage);
      finish(stage);
    }
  }

 private:
  static constexpr std::size_t kStages = 2 * kLead + 1;

  bool has_hint(std::size_t i) const {
    return !hints_.empty() && hints_[i] < rows_.slots();  // kNoSlot is above all
  }

  void ask_buckets(Stage& stage, std::size_t group) {
    stage.begin = group * kGroup;
    stage.n = std::min(kGroup, keys_.size() - stage.begin);
    for (std::size_t i = 0; i < stage.n; ++i) {
      if (has_hint(stage.begin + i)) continue;
      stage.hashes[i] = RowStore::hash(keys_[stage.begin + i]);
      rows_.prefetch_bucket(stage.hashes[i]);
    }
  }

  void ask_rows(Stage& stage) {
    for (std::size_t i = 0; i < stage.n; ++i) {
      const std::size_t at = stage.begin + i;
      stage.slots[i] = has_hint(at) ? hints_[at] : rows_.candidate(stage.hashes[i]);
      if (stage.slots[i] != kNoSlot) rows_.prefetch_row(stage.slots[i], row_bytes_);
    }
  }

  // Looks again where the slot is another key's (a tag or a hint was wrong), or there was none: the
  // key may have been inserted since.
  void settle(Stage& stage) {
    for (std::size_t i = 0; i < stage.n; ++i) {
      const std::uint64_t key = keys_[stage.begin + i];
      const std::uint32_t slot = stage.slots[i];
      const bool is_right = slot != kNoSlot && rows_.key(slot) == key && rows_.is_live(slot);
      if (!is_right) stage.slots[i] = rows_.find(key, RowStore::hash(key));
    }
  }

  const RowStore& rows_;
  std::span<const std::uint64_t> keys_;
  std::span<const std::uint32_t> hints_;
  std::size_t row_bytes_;
  std::array<Stage, kStages> stages_;
};

void Table::pull(std::span<const std::uint64_t> keys, wire::Precision precision, std::byte* out,
                 std::vector<std::uint32_t>* slots) const {
  const std::size_t out_bytes = width_ * bytes_of(precision);
  std::vector<float> absent;  // one row
  if (slots != nullptr) slots->resize(keys.size());
  const std::size_t bytes = RowStore::kHeaderBytes + width_ * sizeof(float);
  Walk(rows_, keys, {}, bytes).run([&](const Stage& stage) {
    for (std::size_t i = 0; i < stage.n; ++i) {
      const float* row;
      if (stage.slots[i] == kNoSlot || !is_present(rows_, stage.slots[i], step_)) {
        absent.resize(width_);
        initialise(keys[stage.begin + i], absent.data());
        row = absent.data();
      } else {
        row = rows_.values(stage.slots[i]);
      }
      encode(row, width_, precision, out + (stage.begin + i) * out_bytes);
    }
    if (slots != nullptr) std::copy_n(stage.slots.begin(), stage.n, slots->begin() + stage.begin);
  });
}

void Table::push(std::span<const std::uint64_t> keys, wire::Precision precision,
                 const std::byte* gradients, std::span<const std::uint32_t> slots,
                 const std::byte* pulled) {
  CHECK(slots.empty() || slots.size() == keys.size());
  CHECK_LT(step_, RowStore::kStepMax);
  const std::uint64_t before =
      step_++;  // what is there is decided as a pull would have, just before
  UpdateParams params = update_params(spec_.optimizer(), width_, step_);
  params.clip_row = spec_.clip_row();
  const std::size_t gradient_bytes = width_ * bytes_of(precision);
  if (!compensates_delay()) pulled = nullptr;
  if (precision != wire::F32) widened_.resize(kGroup * width_);
  if (precision != wire::F32 && pulled != nullptr) pulled_.resize(kGroup * width_);
  std::size_t absent = 0;
  Walk(rows_, keys, slots, rows_.row_bytes()).run([&](Stage& stage) {
    bool has_erased = false;
    for (std::size_t i = 0; i < stage.n; ++i) {
      std::uint32_t& slot = stage.slots[i];
      if (slot != kNoSlot && !has_erased && is_present(rows_, slot, before)) continue;
      const std::uint64_t key = keys[stage.begin + i];
      const std::uint64_t hash = RowStore::hash(key);
      // It may have been stored, or have gone, since it was looked for: by a repeat of the key in
      // this request.
      slot = rows_.find(key, hash);
      if (slot != kNoSlot && is_present(rows_, slot, before)) continue;
      if (slot != kNoSlot) {
        copy_first(rows_, slot);
        rows_.erase(key, hash);
      }
      has_erased |= slot != kNoSlot;
      slot = admit(key, hash);
      ++absent;
    }
    const auto floats_of_group = [&](const std::byte* all, std::vector<float>& widened) {
      const std::byte* const group = all + stage.begin * gradient_bytes;
      if (precision == wire::F32) return reinterpret_cast<const float*>(group);
      decode(group, stage.n * width_, precision, widened.data());
      return static_cast<const float*>(widened.data());
    };
    touch(stage, floats_of_group(gradients, widened_),
          pulled == nullptr ? nullptr : floats_of_group(pulled, pulled_), params);
  });
  if (expire_steps_ == 0) return;
  // Two slots for each row that may be new: so expired rows never take more room than all others.
  sweep(rows_, row_sweep_, kSweepSlots + 2 * absent);
  sweep(counters_, counter_sweep_, kSweepSlots + 2 * absent);
}

// Whether a stored record is there at table step `step`: a function of its last touch, its touches
// and the step alone, so that it does not matter when sweep() comes by.
bool Table::is_present(const RowStore& store, std::uint32_t slot, std::uint64_t step) const {
  if (expire_steps_ == 0) return true;
  return checkpoint::is_present(expire_steps_, spec_.keep_count(), store.step(slot),
                                store.count(slot), step);
}

// Frees expired records among the next `slots` slots.
void Table::sweep(RowStore& store, std::uint32_t& at, std::size_t slots) {
  for (slots = std::min<std::size_t>(slots, store.slots()); slots > 0; --slots) {
    if (at >= store.slots()) at = 0;
    const std::uint32_t slot = at++;
    if (!store.is_live(slot) || is_present(store, slot, step_)) continue;
    copy_first(store, slot);
    store.erase(store.key(slot), RowStore::hash(store.key(slot)));
  }
}

// `gradients`, and `pulled` if not null: of the stage's rows.
void Table::touch(const Stage& stage, const float* gradients, const float* pulled,
                  const UpdateParams& params) {
  std::array<float*, kGroup> rows;
  std::array<const float*, kGroup> row_gradients, row_pulled;
  std::size_t n = 0;
  for (std::size_t i = 0; i < stage.n; ++i) {
    if (stage.slots[i] == kNoSlot) continue;
    if (cut_) copy_first(rows_, stage.slots[i]);
    rows_.touch(stage.slots[i], step_);
    rows[n] = rows_.values(stage.slots[i]);
    if (pulled != nullptr) row_pulled[n] = pulled + i * width_;
    row_gradients[n++] = gradients + i * width_;
  }
  if (pulled != nullptr) {
    kernels().compensate(row_gradients.data(), rows.data(), row_pulled.data(), compensated_.data(),
                         n, params);
  }
  if (params.clip_row > 0) kernels().clip(row_gradients.data(), clipped_.data(), n, params);
  update_(rows.data(), row_gradients.data(), n, params);
}

std::uint32_t Table::admit(std::uint64_t key, std::uint64_t hash) {
  std::uint32_t counter = counters_.size() == 0 ? kNoSlot : counters_.find(key, hash);
  if (counter != kNoSlot) copy_first(counters_, counter);
  if (counter != kNoSlot && !is_present(counters_, counter, step_ - 1)) {
    counters_.erase(key, hash);
    counter = kNoSlot;
  }
  const std::uint32_t before = counter == kNoSlot ? 0 : counters_.count(counter);
  if (before + 1 < spec_.admit_count()) {
    counters_.touch(counter == kNoSlot ? counters_.insert(key, hash) : counter, step_);
    return kNoSlot;
  }
  if (counter != kNoSlot) counters_.erase(key, hash);
  const std::uint32_t slot = rows_.insert(key, hash);
  rows_.set_touched(slot, step_, before);
  float* values = rows_.values(slot);
  initialise(key, values);
  fill_fresh_state(spec_.optimizer(), {values, width_}, {values + width_, state_width_});
  return slot;
}

void Table::initialise(std::uint64_t key, float* values) const {
  const std::span<float> weights(values, width_);
  if (spec_.init_range() == 0) {
    std::fill(weights.begin(), weights.end(), 0.0f);
  } else {
    initial_row(spec_.seed(), index_, key, spec_.init_range(), weights);
  }
}

void Table::assign(std::span<const std::uint64_t> keys, const float* weights) {
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const std::uint64_t hash = RowStore::hash(keys[i]);
    std::uint32_t slot = rows_.find(keys[i], hash);
    if (slot == kNoSlot) slot = rows_.insert(keys[i], hash);
    rows_.set_touched(slot, step_, 0);
    float* values = rows_.values(slot);
    std::copy_n(weights + i * width_, width_, values);
    fill_fresh_state(spec_.optimizer(), {values, width_}, {values + width_, state_width_});
  }
}

Status Table::restore(const checkpoint::Record& record, bool replace) {
  CHECK(!cut_);
  RowStore& store = record.admitted ? rows_ : counters_;
  RowStore& other = record.admitted ? counters_ : rows_;
  const std::size_t values = record.admitted ? width_ + state_width_ : 0;
  const std::string_view name = spec_.name();
  const auto bad = [&](const std::string& what) {
    return corrupt("table " + std::string(name) + ": key " + std::to_string(record.key) + what);
  };
  if (record.values.size() != values) {
    return bad(" has " + std::to_string(record.values.size()) + " values, not " +
               std::to_string(values));
  }
  if (record.step > RowStore::kStepMax) return bad(" has an impossible step");
  const std::uint64_t hash = RowStore::hash(record.key);
  std::uint32_t slot = store.find(record.key, hash);
  if (slot != kNoSlot && !replace) return bad(" occurs twice");
  if (replace && other.find(record.key, hash) != kNoSlot) other.erase(record.key, hash);
  if (!checkpoint::is_present(expire_steps_, spec_.keep_count(), record.step, record.count,
                              step_)) {
    if (slot != kNoSlot) store.erase(record.key, hash);
    return {};
  }
  if (slot == kNoSlot) slot = store.insert(record.key, hash);
  store.set_touched(slot, record.step, record.count);
  std::copy(record.values.begin(), record.values.end(), store.values(slot));
  return {};
}

Status Table::restore(const checkpoint::Records& records, bool replace) {
  constexpr std::size_t kAhead = 16;
  const float* values = records.values.data();
  for (std::size_t i = 0; i < records.size(); ++i) {
    if (i + kAhead < records.size()) {
      rows_.prefetch_bucket(RowStore::hash(records.keys[i + kAhead]));
    }
    checkpoint::Record record{
        records.keys[i], records.steps[i], records.counts[i], records.admitted[i] != 0, {}};
    if (record.admitted) {
      record.values = {values, records.width};
      values += records.width;
    }
    RETURN_IF_ERROR(restore(record, replace));
  }
  return {};
}

void Table::begin_cut(std::optional<std::uint64_t> after) {
  cut_.emplace(Cut{.after = after,
                   .step = step_,
                   .rows_end = rows_.slots(),
                   .counters_end = counters_.slots(),
                   .copies = {}});
}

// Everything that is touched gets a later step than the cut's.
bool Table::is_in_cut(const RowStore& store, std::uint32_t slot) const {
  const std::uint64_t step = store.step(slot);
  return step <= cut_->step && (!cut_->after || step > *cut_->after) &&
         is_present(store, slot, cut_->step);
}

checkpoint::Record Table::record(const RowStore& store, std::uint32_t slot) const {
  const bool is_row = &store == &rows_;
  return {store.key(slot),
          store.step(slot),
          store.count(slot),
          is_row,
          {store.values(slot), is_row ? width_ + state_width_ : 0}};
}

// Called before a live record changes or goes.
void Table::copy_first(const RowStore& store, std::uint32_t slot) {
  if (!cut_ || is_planted(PlantedBug::kCopySkipped)) return;
  const bool is_row = &store == &rows_;
  const std::uint32_t taken = is_row ? cut_->rows_taken : cut_->counters_taken;
  const std::uint32_t end = is_row ? cut_->rows_end : cut_->counters_end;
  if (slot < taken || slot >= end || !is_in_cut(store, slot)) return;
  cut_->copies.add(record(store, slot));
}

void Table::take_slots(const RowStore& store, std::uint32_t end, std::size_t bytes,
                       std::uint32_t& taken, std::uint32_t& budget, PackedRecords& out) {
  for (; taken < end && budget > 0 && out.bytes() < bytes; ++taken, --budget) {
    if (store.is_live(taken) && is_in_cut(store, taken)) out.add(record(store, taken));
  }
}

bool Table::take_cut(std::size_t bytes, PackedRecords& out) {
  if (!cut_) return false;
  if (out.empty()) {
    std::swap(out, cut_->copies);
  } else {
    out.append(cut_->copies);
  }
  cut_->copies.clear();
  std::uint32_t budget = kCutSlots;
  take_slots(rows_, cut_->rows_end, bytes, cut_->rows_taken, budget, out);
  take_slots(counters_, cut_->counters_end, bytes, cut_->counters_taken, budget, out);
  const bool is_over =
      cut_->rows_taken == cut_->rows_end && cut_->counters_taken == cut_->counters_end;
  if (is_over) cut_.reset();
  return !is_over;
}

std::size_t Table::bytes() const {
  return rows_.slots() * rows_.row_bytes() + rows_.index_bytes() +
         counters_.slots() * counters_.row_bytes() + counters_.index_bytes();
}

}  // namespace meander::ps
