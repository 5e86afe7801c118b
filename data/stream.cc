// SPDX-License-Identifier: Apache-2.0
#include "data/stream.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/rng.h"
#include "data/catalogues.h"
#include "data/held_out.h"
#include "data/key_set.h"
#include "data/neighbours.h"
#include "data/sampler.h"
#include "data/target_order.h"

namespace meander::data {
namespace {

constexpr std::uint64_t kShuffledMax = 0xffffffff;  // they are numbered with 32 bits
constexpr std::int64_t kWindowMsMax = std::int64_t{1} << 52;

const SlotSpec* slot_of_table(const StreamSpec& spec, std::uint32_t table) {
  const auto at = std::ranges::find(spec.slots, table, &SlotSpec::table);
  return at == spec.slots.end() ? nullptr : &*at;
}

std::uint64_t seed_of_epoch(std::uint64_t seed, std::uint64_t epoch) { return hash64(seed, epoch); }

Status check_slots(const PreparedLog& log, const StreamSpec& spec) {
  for (const SlotSpec& slot : spec.slots) {
    if (slot.table >= spec.tables) return invalid("slot '" + slot.name + "' has no table");
    if (slot.source == SlotSource::kContent) {
      if (spec.content == nullptr) return invalid("slot '" + slot.name + "': no vectors are given");
      for (const SlotSpec& other : spec.slots) {
        if (other.table == slot.table && other.source != SlotSource::kContent) {
          return invalid("slot '" + other.name + "' looks up the vectors of items");
        }
      }
    }
    if (slot.source == SlotSource::kCategory && !log.has_category()) {
      return invalid("slot '" + slot.name + "': " + log.path() + " has no categories");
    }
    if (slot.source == SlotSource::kContext && !log.context_column(slot.column)) {
      return invalid("slot '" + slot.name + "': " + log.path() + " has no context column '" +
                     slot.column + "'");
    }
  }
  return {};
}

Status check_range(const PreparedLog& log, const StreamSpec& spec) {
  const bool has_range = spec.from_ms != std::numeric_limits<std::int64_t>::min() ||
                         spec.until_ms != std::numeric_limits<std::int64_t>::max();
  if (has_range && !log.has_time()) return invalid(log.path() + " has no times: no range of time");
  if (spec.from_ms > spec.until_ms) return invalid("a range of time that ends before it begins");
  return {};
}

Status check_negatives(const PreparedLog& log, const StreamSpec& spec) {
  const NegativesSpec& negatives = spec.negatives;
  const std::uint32_t count = negatives.per_target();
  if (negatives.kind == NegativeKind::kRecent) {
    if (!log.has_time()) return invalid(log.path() + " has no times: no recent negatives");
    if (negatives.window_ms <= 0 || negatives.window_ms > kWindowMsMax) {
      return invalid("the window of recent negatives must be positive");
    }
  }
  if (spec.part != LogPart::kTrain && count > 0 && log.test_targets() > 0 &&
      count != log.test_negatives()) {
    return invalid(log.path() + " has " + std::to_string(log.test_negatives()) +
                   " negatives for a test target, asked for " + std::to_string(count));
  }
  const bool draws = (count > 0 && spec.part != LogPart::kTest) || spec.auxiliary;
  if (draws && log.pool().empty()) return invalid(log.path() + " has no events to draw from");
  return {};
}

Status check_catalogues(const PreparedLog& log, const StreamSpec& spec) {
  for (std::uint32_t table = 0; table < spec.catalogues.size(); ++table) {
    if (spec.catalogues[table] == CatalogueKind::kNone) continue;
    const SlotSpec* slot = slot_of_table(spec, table);
    const bool is_listed =
        slot != nullptr && (slot->source == SlotSource::kItem || slot->source == SlotSource::kUser);
    if (!is_listed) return invalid("only items and users can be listed whole");
    if (spec.catalogues[table] != CatalogueKind::kDrawn) continue;
    if (slot->source != SlotSource::kItem) return invalid("only items can be drawn for a batch");
    if (spec.drawn == 0) return invalid("say how many items to draw for a batch");
    if (spec.drawn_power > 0 && log.pool().empty()) {
      return invalid(log.path() + " has no events to draw by");
    }
  }
  return {};
}

Status check_order(const PreparedLog& log, const StreamSpec& spec) {
  const std::uint64_t targets = log.train_targets() + log.test_targets();
  const bool numbers_them =
      spec.order == StreamOrder::kShuffle || spec.order == StreamOrder::kUsers;
  if (!numbers_them || targets < kShuffledMax) return {};
  return invalid(log.path() + " has " + std::to_string(targets) +
                 " targets, too many to shuffle; order: hashed mixes any number of them");
}

Status check_spec(const PreparedLog& log, const StreamSpec& spec) {
  if (spec.count == 0 || spec.index >= spec.count || spec.count > log.shards().size()) {
    return invalid("stream " + std::to_string(spec.index) + " of " + std::to_string(spec.count) +
                   ": " + log.path() + " has " + std::to_string(log.shards().size()) +
                   " shards; prepare it with more streams");
  }
  if (spec.batch < 1 + spec.negatives.per_target()) {
    return invalid("a batch of " + std::to_string(spec.batch) +
                   " samples is less than one target with its negatives");
  }
  if (spec.parts == 0) return invalid("a batch needs at least one part");
  if (spec.history > 0 && log.min_history() == 0) {
    return invalid(log.path() +
                   " has targets without a history: prepare it with --min-history 1, " +
                   "or take a model that needs none with data.history: 0");
  }
  if (spec.age && !log.has_time()) {
    return invalid(log.path() + " has no times, and this model asks how old a behaviour is");
  }
  if (spec.second_label && log.second_label().empty()) {
    return invalid(
        log.path() +
        " has no second label: prepare it with --stay, --label-min or a column of role label");
  }
  if (spec.epochs == 0) return invalid("at least one epoch");
  RETURN_IF_ERROR(check_slots(log, spec));
  RETURN_IF_ERROR(check_range(log, spec));
  RETURN_IF_ERROR(check_order(log, spec));
  RETURN_IF_ERROR(check_catalogues(log, spec));
  return check_negatives(log, spec);
}

}  // namespace

class Stream::Impl {
 public:
  Impl(std::shared_ptr<const PreparedLog> log, const StreamSpec& spec)
      : log_(std::move(log)),
        spec_(spec),
        candidates_(1 + spec.negatives.per_target()),
        groups_max_(spec.batch / candidates_),
        sampler_(*log_, spec_.negatives),
        order_(*log_, spec_),
        tables_(spec.tables),
        catalogues_(*log_, spec_),
        held_out_(*log_, spec_) {
    for (const SlotSpec& slot : spec_.slots) {
      columns_.push_back(slot.source == SlotSource::kContext ? *log_->context_column(slot.column)
                                                             : 0);
    }
    if (spec_.neighbours != nullptr) {
      neighbours_ = std::make_unique<NeighbourDraws>(*spec_.neighbours, spec_.fanout);
    }
    groups_total_ = order_.size() * spec_.epochs;
    if (spec_.samples_max > 0) {
      const std::uint64_t groups = std::max<std::uint64_t>(1, spec_.samples_max / candidates_);
      const std::uint64_t share =
          groups * (spec_.index + 1) / spec_.count - groups * spec_.index / spec_.count;
      groups_total_ = std::min(groups_total_, share);
    }
    if (order_.size() == 0) return;
    batches_per_epoch_ = (order_.size() + groups_max_ - 1) / groups_max_;
    batches_ = groups_total_ / order_.size() * batches_per_epoch_ +
               (groups_total_ % order_.size() + groups_max_ - 1) / groups_max_;
  }

  std::uint64_t batches() const { return batches_; }
  std::uint64_t samples() const { return groups_total_ * candidates_; }
  std::uint32_t numerics() const { return static_cast<std::uint32_t>(log_->numeric().size()); }

  void build(std::uint64_t seq, const PartitionMap& lanes, Batch& batch) {
    CHECK_LT(seq, batches_);
    const std::uint64_t epoch = seq / batches_per_epoch_;
    const std::uint64_t from = seq % batches_per_epoch_ * groups_max_;
    const std::uint64_t left = std::min(order_.size(), groups_total_ - epoch * order_.size());
    seed_ = seed_of_epoch(spec_.seed, epoch);
    targets_.resize(std::min<std::uint64_t>(groups_max_, left - from));
    order_.get(static_cast<std::uint32_t>(epoch), from, targets_);
    gather_samples();
    draw_negatives();

    batch.stream = spec_.index;
    batch.seq = seq;
    batch.samples = static_cast<std::uint32_t>(samples_.size() * candidates_);
    batch.progress = static_cast<double>(epoch * order_.size() + from + targets_.size()) /
                     static_cast<double>(groups_total_);
    batch.seed = hash64(hash64(spec_.seed, spec_.index), seq);
    batch.parts.resize(spec_.parts);
    for (KeySet& table : tables_) table.clear();
    catalogues_.add(batch.seed, tables_, batch.catalogues);
    deal();
    batch.longest = 0;
    for (std::size_t p = 0; p < spec_.parts; ++p) {
      fill_part(dealt_[p], batch.parts[p]);
      if (!dealt_[p].empty()) {
        batch.longest =
            std::max(batch.longest, static_cast<std::uint32_t>(batch.parts[p].lengths[0]));
      }
    }
    draw_neighbours(batch);
    write_keys(lanes, batch);
  }

 private:
  void draw_neighbours(Batch& batch) {
    if (neighbours_ == nullptr) return;
    around_.users.clear();
    around_.items.clear();
    around_.hidden.clear();
    const bool has_items = !spec_.neighbours->items.empty();
    for (const auto& groups : dealt_) {
      for (const std::uint32_t g : groups) {
        const std::uint64_t user = samples_[g].shard->users[samples_[g].target.user].id;
        around_.users.push_back(user);
        if (!has_items) continue;
        for (std::size_t k = 0; k < candidates_; ++k) {
          around_.items.push_back(candidate_[g * candidates_ + k].item);
        }
        if (!targets_[g].is_test) around_.hidden.push_back({user, samples_[g].item().item});
      }
    }
    neighbours_->draw(batch.seed, around_, tables_, batch.neighbourhood);
  }

  void gather_samples() {
    samples_.resize(targets_.size());
    for (std::size_t g = 0; g < targets_.size(); ++g) {
      const TargetRef& t = targets_[g];
      samples_[g] = sample_of(*log_, *t.shard, t.target, t.is_test, spec_.history);
    }
  }

  // candidate_[g * K]: the target, its negatives behind it.
  void draw_negatives() {
    candidate_.resize(samples_.size() * candidates_);
    for (std::size_t g = 0; g < samples_.size(); ++g)
      candidate_[g * candidates_] = samples_[g].item();
    for (std::size_t g = 0; g < samples_.size(); ++g) {
      const std::span<ItemRef> negatives(candidate_.data() + g * candidates_ + 1, candidates_ - 1);
      if (negatives.empty()) continue;
      if (targets_[g].is_test) {
        const auto stored = targets_[g].shard->test_negatives.subspan(
            targets_[g].test_index * negatives.size(), negatives.size());
        std::copy(stored.begin(), stored.end(), negatives.begin());
      } else if (spec_.negatives.kind == NegativeKind::kInBatch && samples_.size() > 1) {
        draw_in_batch(g, negatives);
      } else {
        sampler_.draw(seed_, samples_[g], negatives);
      }
    }
  }

  void draw_in_batch(std::size_t g, std::span<ItemRef> negatives) const {
    const std::uint64_t prefix = hash64(seed_, samples_[g].target.row);
    for (std::size_t n = 0; n < negatives.size(); ++n) {
      for (std::uint32_t t = 0; t <= kNegativeTriesMax; ++t) {
        const std::size_t step = bounded(hash64(prefix, n * 1024 + t), samples_.size() - 1);
        negatives[n] = candidate_[(g + 1 + step) % samples_.size() * candidates_];
        if (!sampler_.is_excluded(samples_[g], negatives[n].item, negatives.first(n))) break;
      }
    }
  }

  // Groups by length, longest first, over the parts and back again: 0 1 2 3 3 2 1 0 0 1 ...
  void deal() {
    by_length_.resize(samples_.size());
    std::iota(by_length_.begin(), by_length_.end(), 0);
    std::sort(by_length_.begin(), by_length_.end(), [this](std::uint32_t a, std::uint32_t b) {
      return samples_[a].length() != samples_[b].length()
                 ? samples_[a].length() > samples_[b].length()
                 : a < b;
    });
    dealt_.resize(spec_.parts);
    for (auto& part : dealt_) part.clear();
    for (std::size_t i = 0; i < by_length_.size(); ++i) {
      const std::size_t at = i % (2 * spec_.parts);
      dealt_[at < spec_.parts ? at : 2 * spec_.parts - 1 - at].push_back(by_length_[i]);
    }
  }

  void fill_part(const std::vector<std::uint32_t>& groups, Part& part) {
    part.groups = static_cast<std::int32_t>(groups.size());
    part.candidates = static_cast<std::int32_t>(candidates_);
    part.order.assign(groups.begin(), groups.end());
    part.lengths.clear();
    for (const std::uint32_t g : groups) {
      part.lengths.push_back(static_cast<std::int32_t>(samples_[g].length()));
    }
    fill_steps(part);
    const std::size_t slots = spec_.slots.size();
    part.target.resize(slots);
    part.history.resize(slots);
    part.negative.resize(slots);
    draw_auxiliary(groups, part);
    for (std::size_t s = 0; s < slots; ++s) {
      fill_target(s, groups, part.target[s]);
      fill_history(s, groups, part);
    }
    fill_labels(groups, part);
    fill_ages(groups, part);
    held_out_.fill(samples_, groups, part);
  }

  void fill_ages(const std::vector<std::uint32_t>& groups, Part& part) const {
    part.age.clear();
    if (!spec_.age) return;
    constexpr double kHourMs = 3'600'000;
    part.age.resize(rows_);
    for (std::size_t i = 0; i < groups.size(); ++i) {
      const Sample& sample = samples_[groups[i]];
      const std::int64_t now = sample.shard->time_ms[sample.target.event];
      for (std::uint32_t t = 0; t < sample.length(); ++t) {
        const std::int64_t then = sample.shard->time_ms[sample.history_begin + t];
        part.age[part.step_offset[t] + i] =
            static_cast<float>(static_cast<double>(now - then) / kHourMs);
      }
    }
  }

  void fill_steps(Part& part) {
    part.step_rows.clear();
    part.step_offset.clear();
    std::int32_t active = part.groups, rows = 0;
    for (std::int32_t t = 0; active > 0; ++t) {
      while (active > 0 && part.lengths[active - 1] <= t) --active;
      if (active == 0) break;
      part.step_rows.push_back(active);
      part.step_offset.push_back(rows);
      rows += active;
    }
    rows_ = static_cast<std::size_t>(rows);
  }

  std::uint64_t key_of(std::size_t slot, const Sample& sample, const ItemRef& candidate) const {
    const std::uint32_t event = sample.target.event;
    switch (spec_.slots[slot].source) {
      case SlotSource::kItem:
      case SlotSource::kContent:
        return candidate.item;
      case SlotSource::kCategory:
        return candidate.category;
      case SlotSource::kUser:
        return sample.shard->users[sample.target.user].id;
      case SlotSource::kContext:
      case SlotSource::kWord:
        break;
    }
    return sample.shard->context[columns_[slot]][event];
  }

  // What a column holds for a key.
  std::uint32_t index_of(SlotSource source, KeySet& table, std::uint64_t key) const {
    return source == SlotSource::kContent ? spec_.content->row_of(key) : table.index_of(key);
  }

  void fill_target(std::size_t slot, const std::vector<std::uint32_t>& groups,
                   std::vector<std::uint32_t>& out) {
    const SlotSource source = spec_.slots[slot].source;
    KeySet& table = tables_[spec_.slots[slot].table];
    out.clear();
    if (source == SlotSource::kWord) return;
    for (const std::uint32_t g : groups) {
      for (std::size_t k = 0; k < candidates_; ++k) {
        const ItemRef& candidate = candidate_[g * candidates_ + k];
        out.push_back(index_of(source, table, key_of(slot, samples_[g], candidate)));
      }
    }
  }

  void fill_history(std::size_t slot, const std::vector<std::uint32_t>& groups, Part& part) {
    std::vector<std::uint32_t>&history = part.history[slot], &negative = part.negative[slot];
    history.clear();
    negative.clear();
    const SlotSource source = spec_.slots[slot].source;
    if (!is_of_event(source)) return;
    KeySet& table = tables_[spec_.slots[slot].table];
    const bool is_category = source == SlotSource::kCategory;
    history.resize(rows_);
    for (std::size_t i = 0; i < groups.size(); ++i) {
      const Sample& sample = samples_[groups[i]];
      const auto& column = is_category ? sample.shard->category : sample.shard->item;
      for (std::uint32_t t = 0; t < sample.length(); ++t) {
        history[part.step_offset[t] + i] =
            index_of(source, table, column[sample.history_begin + t]);
      }
    }
    if (!spec_.auxiliary) return;
    negative.resize(rows_);
    for (std::size_t row = 0; row < rows_; ++row) {
      const ItemRef& drawn = auxiliary_[row];
      negative[row] = index_of(source, table, is_category ? drawn.category : drawn.item);
    }
  }

  // Where there is none to be had the row names the event itself: a key that is there anyway.
  void draw_auxiliary(const std::vector<std::uint32_t>& groups, Part& part) {
    part.negative_valid.clear();
    if (!spec_.auxiliary) return;
    part.negative_valid.resize(rows_);
    auxiliary_.resize(rows_);
    for (std::size_t i = 0; i < groups.size(); ++i) {
      const Sample& sample = samples_[groups[i]];
      const std::uint64_t prefix = Sampler::auxiliary_prefix(seed_, sample);
      ranges_.clear();
      for (std::uint32_t t = 0; t < sample.length(); ++t) {
        ranges_.push_back(sampler_.auxiliary_range(prefix, sample, t));
      }
      for (std::uint32_t t = 0; t < sample.length(); ++t) {
        const std::size_t row = part.step_offset[t] + i;
        const bool valid = sampler_.draw_auxiliary(prefix, sample, t, ranges_[t], auxiliary_[row]);
        part.negative_valid[row] = valid ? 1.0f : 0.0f;
        if (valid) continue;
        const std::uint32_t event = sample.history_begin + t;
        auxiliary_[row] = {sample.shard->item[event], sample.shard->category_of(event)};
      }
    }
  }

  void fill_labels(const std::vector<std::uint32_t>& groups, Part& part) {
    part.label.assign(groups.size() * candidates_, 0.0f);
    for (std::size_t i = 0; i < groups.size(); ++i) part.label[i * candidates_] = 1.0f;
    part.second_label.clear();
    if (spec_.second_label) {
      part.second_label.resize(groups.size() * candidates_,
                               std::numeric_limits<float>::quiet_NaN());
      for (std::size_t i = 0; i < groups.size(); ++i) {
        const Sample& sample = samples_[groups[i]];
        part.second_label[i * candidates_] = sample.shard->second_label[sample.target.event];
      }
    }
    part.numeric.clear();
    const std::vector<NumericColumn>& columns = log_->numeric();
    if (columns.empty()) return;
    for (const std::uint32_t g : groups) {
      for (std::size_t k = 0; k < candidates_; ++k) {
        for (std::size_t f = 0; f < columns.size(); ++f) {
          const float x = samples_[g].shard->numeric[f][samples_[g].target.event];
          part.numeric.push_back(std::isnan(x) ? 0.0f : (x - columns[f].mean) / columns[f].std);
        }
      }
    }
  }

  // Sorts each table's keys by lane (within a lane in the order they came) and renumbers.
  void write_keys(const PartitionMap& lanes, Batch& batch) {
    batch.keys.resize(tables_.size());
    place_.resize(tables_.size());
    for (std::size_t table = 0; table < tables_.size(); ++table) {
      const std::vector<std::uint64_t>& keys = tables_[table].keys();
      const std::vector<std::uint16_t>& partitions = tables_[table].partitions();
      lane_next_.assign(lanes.lanes() + 1, 0);
      for (const auto p : partitions) ++lane_next_[lanes.lane_of_partition(p) + 1];
      std::partial_sum(lane_next_.begin(), lane_next_.end(), lane_next_.begin());
      batch.keys[table].resize(keys.size());
      place_[table].resize(keys.size());
      for (std::size_t i = 0; i < keys.size(); ++i) {
        const std::uint32_t at = lane_next_[lanes.lane_of_partition(partitions[i])]++;
        place_[table][i] = at;
        batch.keys[table][at] = keys[i];
      }
    }
    if (lanes.lanes() == 1) return;  // the order has not changed
    for (Part& part : batch.parts) renumber(part);
    for (std::size_t table = 0; table < batch.catalogues.size(); ++table) {
      for (std::uint32_t& row : batch.catalogues[table].rows) row = place_[table][row];
    }
    for (std::size_t table = 0; table < batch.neighbourhood.inputs.size(); ++table) {
      for (std::uint32_t& key : batch.neighbourhood.inputs[table].column) key = place_[table][key];
    }
  }

  void renumber(Part& part) const {
    for (std::size_t s = 0; s < spec_.slots.size(); ++s) {
      if (spec_.slots[s].source == SlotSource::kContent) continue;
      const std::vector<std::uint32_t>& place = place_[spec_.slots[s].table];
      for (auto* column : {&part.target[s], &part.history[s], &part.negative[s]}) {
        for (std::uint32_t& index : *column) index = place[index];
      }
    }
  }

  const std::shared_ptr<const PreparedLog> log_;
  const StreamSpec spec_;
  const std::size_t candidates_;  // K: the target and its negatives
  const std::size_t groups_max_;  // of a batch
  const Sampler sampler_;
  TargetOrder order_;
  std::vector<std::uint32_t> columns_;  // by slot: its context column
  std::uint64_t groups_total_ = 0, batches_per_epoch_ = 0, batches_ = 0;

  // Scratch of one build().
  std::uint64_t seed_ = 0;
  std::vector<TargetRef> targets_;
  std::vector<Sample> samples_;
  std::vector<ItemRef> candidate_;
  std::vector<std::uint32_t> by_length_;
  std::vector<std::vector<std::uint32_t>> dealt_;  // [part] places of groups in samples_
  std::size_t rows_ = 0;                           // of the part in hand
  std::vector<ItemRef> auxiliary_;                 // (rows_)
  std::vector<Sampler::Range> ranges_;             // by position of the history in hand
  std::vector<KeySet> tables_;
  Catalogues catalogues_;
  HeldOut held_out_;
  std::unique_ptr<NeighbourDraws> neighbours_;
  NeighbourTargets around_;
  std::vector<std::vector<std::uint32_t>> place_;  // [table] new number of each key
  std::vector<std::uint32_t> lane_next_;
};

Result<std::unique_ptr<Stream>> Stream::open(std::shared_ptr<const PreparedLog> log,
                                             const StreamSpec& spec) {
  RETURN_IF_ERROR(check_spec(*log, spec));
  return std::unique_ptr<Stream>(new Stream(std::make_unique<Impl>(std::move(log), spec)));
}

Stream::Stream(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Stream::~Stream() = default;
std::uint64_t Stream::batches() const { return impl_->batches(); }
std::uint64_t Stream::samples() const { return impl_->samples(); }
std::uint32_t Stream::numerics() const { return impl_->numerics(); }
void Stream::build(std::uint64_t seq, const PartitionMap& lanes, Batch& batch) {
  impl_->build(seq, lanes, batch);
}

}  // namespace meander::data
