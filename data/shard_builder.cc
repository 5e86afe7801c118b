// SPDX-License-Identifier: Apache-2.0
#include "data/shard_builder.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <optional>
#include <tuple>

#include "data/prepared_log.h"
#include "data/radix_sort.h"

namespace meander::data {
namespace {

constexpr std::uint32_t kPrefetch = 16;  // records ahead
constexpr std::uint32_t kBlock = 512;    // events whose records are brought together at once
constexpr std::size_t kRunBufferBytes = std::size_t{256} << 10;
constexpr std::size_t kChunkValues = std::size_t{1} << 14;

// Writes train.col and test.col of a shard, whose events are given in order of time.
class TargetWriter {
 public:
  static Result<TargetWriter> create(Storage& storage, const std::string& directory) {
    TargetWriter writer;
    ASSIGN_OR_RETURN(writer.train_, ColumnWriter::create(storage, join_path(directory, "train.col"),
                                                         sizeof(Target)));
    ASSIGN_OR_RETURN(writer.test_, ColumnWriter::create(storage, join_path(directory, "test.col"),
                                                        sizeof(Target)));
    return writer;
  }
  void add(const Target& target, std::uint32_t flags) {
    if ((flags & kTrainTarget) != 0) train_->append(target);
    if ((flags & kTestTarget) != 0) test_->append(target);
  }
  Status finish() {
    RETURN_IF_ERROR(train_->finish());
    return test_->finish();
  }

 private:
  std::optional<ColumnWriter> train_, test_;
};

class Builder {
 public:
  Builder(Storage& storage, const SpillFile& spill, Buffer bytes, const std::string& directory,
          const SplitRules& rules, const LogShape& shape)
      : storage_(storage),
        bytes_(std::move(bytes)),
        records_(static_cast<std::uint32_t>(spill.records)),
        rules_(rules),
        shape_(shape) {
    draft_.directory = directory;
    draft_.events = records_;
    draft_.run_path = join_path(directory, "run.tmp");
    draft_.rank_path = join_path(directory, "rank.tmp");
    draft_.numeric.resize(shape.layout.numerics);
  }

  Result<ShardDraft> build() {
    sort();
    for (UserEntry& user : users_) split(user);
    if (shape_.label.kind != LabelRule::kNone) {
      for (const UserEntry& user : users_) label(user);
      RETURN_IF_ERROR(write_column(storage_, column("second_label.col"),
                                   std::span<const float>(second_label_)));
    }
    draft_.users = users_.size();
    RETURN_IF_ERROR(
        write_column(storage_, column("users.col"), std::span<const UserEntry>(users_)));
    RETURN_IF_ERROR(write_columns());
    RETURN_IF_ERROR(write_run());
    return std::move(draft_);
  }

 private:
  SpillRecord record(std::uint32_t i) const {
    return {bytes_.data() + std::size_t{i} * shape_.layout.bytes()};
  }
  const SpillHead& head_of(std::uint32_t event) const { return record(order_[event]).head(); }
  bool is_held_out(std::uint32_t record_index) const {
    return record(record_index).head().kind() == RecordKind::kTestTarget;
  }
  std::string column(const std::string& name) const { return join_path(draft_.directory, name); }

  // Events: users by id, an event that the source holds out behind the others, then by time and
  // input row. Spill files are in the order of rows, and the sort by user keeps it.
  void sort() {
    std::vector<Keyed> keyed(records_);
    for (std::uint32_t i = 0; i < records_; ++i) {
      const SpillHead& head = record(i).head();
      keyed[i] = {head.user, i};
      has_kinds_ |= head.kind() != RecordKind::kOpen;
    }
    sort_by_key(keyed);
    order_.resize(records_);
    for (std::uint32_t i = 0; i < records_; ++i) {
      if (i == 0 || keyed[i].key != users_.back().id) users_.push_back({keyed[i].key, i, 0, 0, 0});
      ++users_.back().count;
      order_[i] = keyed[i].index;
    }
    if (shape_.rows_in_order && !has_kinds_) return;
    const auto before = [this](std::uint32_t a, std::uint32_t b) {
      return std::tuple(is_held_out(a), record(a).head().time_ms, a) <
             std::tuple(is_held_out(b), record(b).head().time_ms, b);
    };
    for (const UserEntry& user : users_) {
      const auto begin = order_.begin() + user.first, end = begin + user.count;
      if (!std::is_sorted(begin, end, before)) std::sort(begin, end, before);
    }
  }

  std::uint32_t held_out_last() const { return rules_.holdout.validation ? 2 : 1; }
  // How many of a user's events, its first ones, are known before the test part begins.
  std::uint32_t known_of(const UserEntry& user) const {
    const auto begin = order_.begin() + user.first, end = begin + user.count;
    switch (rules_.holdout.kind) {
      case Holdout::kLast:
        return user.count >= rules_.min_history + held_out_last() ? user.count - held_out_last()
                                                                  : user.count;
      case Holdout::kTime:
        return std::partition_point(begin, end,
                                    [this](std::uint32_t i) {
                                      return record(i).head().time_ms < rules_.holdout.from_ms;
                                    }) -
               begin;
      case Holdout::kGiven:
        return std::partition_point(begin, end,
                                    [this](std::uint32_t i) { return !is_held_out(i); }) -
               begin;
      case Holdout::kNone:
        break;
    }
    return user.count;
  }

  void split(UserEntry& user) {
    user.known = known_of(user);
    const std::uint32_t known = user.known;
    const std::uint32_t targets_from =
        rules_.targets_last == 0 || known < rules_.targets_last ? 0 : known - rules_.targets_last;
    const bool given = rules_.holdout.kind == Holdout::kGiven;
    for (std::uint32_t i = 0; i < user.count; ++i) {
      const bool is_open = !has_kinds_ || head_of(user.first + i).kind() == RecordKind::kOpen;
      const bool training = i < known && is_open;
      const bool has_history = (given ? std::min(i, known) : i) >= rules_.min_history;
      std::uint8_t flags = 0;
      if (training) flags |= kInTraining;
      if (training || rules_.holdout.kind == Holdout::kTime) flags |= kInPool;
      if (training && has_history && i >= targets_from) flags |= kTrainTarget;
      const bool validates = rules_.holdout.validation && i + 1 < user.count;
      if (i >= known && has_history && !validates) flags |= kTestTarget;
      flags_.push_back(flags);
      draft_.train_targets += (flags & kTrainTarget) != 0;
      draft_.test_targets += (flags & kTestTarget) != 0;
    }
  }

  void label(const UserEntry& user) {
    for (std::uint32_t event = user.first; event < user.first + user.count; ++event) {
      const float label = label_of(event, event + 1 == user.first + user.count);
      second_label_.push_back(label);
      draft_.labels_known += !std::isnan(label);
      draft_.labels_positive += label > 0;
    }
  }

  float label_of(std::uint32_t event, bool is_last) const {
    constexpr float kNotKnown = std::numeric_limits<float>::quiet_NaN();
    const LabelRule& rule = shape_.label;
    const SpillLayout& layout = shape_.layout;
    if (rule.kind == LabelRule::kAtLeast) {
      const float value = layout.label(record(order_[event]));
      return std::isnan(value) ? kNotKnown : value >= rule.least ? 1.0f : 0.0f;
    }
    if (is_last) return kNotKnown;
    const SpillRecord now = record(order_[event]), next = record(order_[event + 1]);
    const bool is_one = !layout.has_session || layout.session(now) == layout.session(next);
    const std::int64_t stay_ms = next.head().time_ms - now.head().time_ms;
    // A user's test events stand behind the others, whatever their time.
    if (!is_one || stay_ms < 0) return kNotKnown;
    if (rule.filled_ms > 0 && stay_ms == rule.filled_ms) return kNotKnown;
    return stay_ms >= rule.stay_ms ? 1.0f : 0.0f;
  }

  Status open_column_of(const std::string& name, std::size_t offset, std::uint32_t width) {
    ASSIGN_OR_RETURN(ColumnWriter writer, ColumnWriter::create(storage_, column(name), width));
    columns_.push_back({offset, width, std::move(writer)});
    return {};
  }

  // Each field of a record is a column. A record lies anywhere in the spill file, so some are
  // brought together, and their columns written from there.
  Status write_columns() {
    const SpillLayout& layout = shape_.layout;
    RETURN_IF_ERROR(open_column_of("item.col", offsetof(SpillHead, item), 8));
    if (shape_.has_category) {
      RETURN_IF_ERROR(open_column_of("category.col", offsetof(SpillHead, category), 8));
    }
    if (shape_.has_time) {
      RETURN_IF_ERROR(open_column_of("time.col", offsetof(SpillHead, time_ms), 8));
    }
    for (std::size_t i = 0; i < layout.contexts; ++i) {
      RETURN_IF_ERROR(open_column_of(numbered_column("context", i), layout.context_offset(i), 8));
    }
    for (std::size_t i = 0; i < layout.numerics; ++i) {
      RETURN_IF_ERROR(open_column_of(numbered_column("numeric", i), layout.numeric_offset(i), 4));
    }
    std::optional<ColumnWriter> rows;
    if (shape_.rows_in_order) {
      ASSIGN_OR_RETURN(rows, ColumnWriter::create(storage_, column("row.col"), 8));
    }
    std::vector<std::byte> block(kBlock * layout.bytes());
    for (std::uint32_t event = 0; event < records_; event += kBlock) {
      const std::uint32_t count = std::min(kBlock, records_ - event);
      gather(event, count, block);
      for (Column& c : columns_) write_block(block, count, c);
      for (std::uint32_t i = 0; rows && i < count; ++i) {
        rows->append(SpillRecord{&block[i * layout.bytes()]}.head().row());
      }
      add_moments(event, count, block);
    }
    for (Column& c : columns_) RETURN_IF_ERROR(c.writer.finish());
    return rows ? rows->finish() : Status();
  }

  void gather(std::uint32_t event, std::uint32_t count, std::vector<std::byte>& block) const {
    const std::size_t bytes = shape_.layout.bytes();
    for (std::uint32_t i = 0; i < count; ++i) {
      if (event + i + kPrefetch < records_) {
        const std::byte* next = record(order_[event + i + kPrefetch]).bytes;
        __builtin_prefetch(next);
        __builtin_prefetch(next + bytes - 1);
      }
      std::memcpy(&block[i * bytes], record(order_[event + i]).bytes, bytes);
    }
  }

  struct Column {
    std::size_t offset;  // of the field in a record
    std::uint32_t width;
    ColumnWriter writer;
  };

  void write_block(const std::vector<std::byte>& block, std::uint32_t count, Column& c) const {
    const std::size_t bytes = shape_.layout.bytes();
    const std::byte* from = block.data() + c.offset;
    for (std::uint32_t i = 0; i < count; ++i, from += bytes) {
      if (c.width == 8) {
        std::memcpy(c.writer.room(8), from, 8);
      } else {
        std::memcpy(c.writer.room(4), from, 4);
      }
    }
  }

  void add_moments(std::uint32_t event, std::uint32_t count, const std::vector<std::byte>& block) {
    for (std::size_t n = 0; n < draft_.numeric.size(); ++n) {
      for (std::uint32_t i = 0; i < count; ++i) {
        const float x = shape_.layout.numeric({&block[i * shape_.layout.bytes()]}, n);
        if ((flags_[event + i] & kInTraining) != 0 && !std::isnan(x)) draft_.numeric[n].add(x);
      }
    }
  }

  // Records in the order of (time, row).
  std::vector<Keyed> records_by_time() const {
    std::vector<Keyed> keyed(records_);
    for (std::uint32_t i = 0; i < records_; ++i) {
      const auto time = static_cast<std::uint64_t>(record(i).head().time_ms);
      keyed[i] = {time ^ std::uint64_t{1} << 63, i};  // negative ones come first
    }
    if (!shape_.rows_in_order) sort_by_key(keyed);
    return keyed;
  }

  Status write_run() {
    struct Place {
      std::uint32_t event, user;
    };
    std::vector<Place> place(records_);  // by record
    for (std::uint32_t u = 0; u < users_.size(); ++u) {
      for (std::uint32_t e = users_[u].first; e < users_[u].first + users_[u].count; ++e) {
        place[order_[e]] = {e, u};
      }
    }
    ASSIGN_OR_RETURN(
        ColumnWriter writer,
        ColumnWriter::create(storage_, draft_.run_path, sizeof(RunEntry), kRunBufferBytes, true));
    std::optional<TargetWriter> targets;
    if (shape_.rows_in_order) {
      ASSIGN_OR_RETURN(targets, TargetWriter::create(storage_, draft_.directory));
    }
    for (const Keyed& next : records_by_time()) {
      const SpillHead& head = record(next.index).head();
      const auto [event, user] = place[next.index];
      const std::uint32_t flags = flags_[event];
      writer.append(RunEntry{head.time_ms, head.row(), head.item, head.category, event, flags});
      if (targets) targets->add({event, user, head.row()}, flags);
    }
    if (targets) RETURN_IF_ERROR(targets->finish());
    return writer.finish();
  }

  Storage& storage_;
  Buffer bytes_;
  std::uint32_t records_;
  const SplitRules& rules_;
  const LogShape& shape_;
  ShardDraft draft_;
  bool has_kinds_ = false;            // a record's kind is not kOpen
  std::vector<std::uint32_t> order_;  // record of each event
  std::vector<std::uint8_t> flags_;   // of each event
  std::vector<UserEntry> users_;
  std::vector<float> second_label_;  // of each event, if there is a rule
  std::vector<Column> columns_;
};

Result<std::vector<std::uint32_t>> users_of_events(Storage& storage, const ShardDraft& draft) {
  ASSIGN_OR_RETURN(
      const ColumnFile file,
      open_column(storage, join_path(draft.directory, "users.col"), sizeof(UserEntry)));
  std::vector<std::uint32_t> user_of(draft.events);
  const auto users = file.values<UserEntry>();
  for (std::uint32_t u = 0; u < users.size(); ++u) {
    std::fill_n(user_of.begin() + users[u].first, users[u].count, u);
  }
  return user_of;
}

}  // namespace

void Moments::add(double x) {
  ++count;
  const double delta = x - mean;
  mean += delta / static_cast<double>(count);
  m2 += delta * (x - mean);
}

void Moments::add(const Moments& other) {
  if (other.count == 0) return;
  const auto a = static_cast<double>(count), b = static_cast<double>(other.count);
  const double delta = other.mean - mean;
  mean += delta * b / (a + b);
  m2 += other.m2 + delta * delta * a * b / (a + b);
  count += other.count;
}

double Moments::std() const {
  const double variance = count == 0 ? 0 : m2 / static_cast<double>(count);
  return variance > 0 ? std::sqrt(variance) : 1;
}

std::string shard_directory(std::uint32_t shard) {
  std::string number = std::to_string(shard);
  return "shard-" + std::string(number.size() < 5 ? 5 - number.size() : 0, '0') + number;
}

std::string numbered_column(const char* kind, std::size_t i) {
  return std::string(kind) + "-" + std::to_string(i) + ".col";
}

Result<ShardDraft> build_shard(Storage& storage, const SpillFile& spill,
                               const std::string& directory, const SplitRules& rules,
                               const LogShape& shape) {
  if (spill.records >= std::numeric_limits<std::uint32_t>::max()) {
    return invalid("a shard of more than 2^32 events; ask for more streams");
  }
  ASSIGN_OR_RETURN(Buffer bytes,
                   storage.read_range(spill.path, 0, spill.records * shape.layout.bytes()));
  if (bytes.size() != spill.records * shape.layout.bytes()) {
    return corrupt(spill.path + ": truncated");
  }
  RETURN_IF_ERROR(storage.make_directories(directory));
  return Builder(storage, spill, std::move(bytes), directory, rules, shape).build();
}

Status finish_shard(Storage& storage, const ShardDraft& draft, const LogShape& shape) {
  if (shape.rows_in_order) return storage.remove(draft.run_path);
  ASSIGN_OR_RETURN(const std::vector<std::uint32_t> user_of, users_of_events(storage, draft));
  ASSIGN_OR_RETURN(TargetWriter targets, TargetWriter::create(storage, draft.directory));
  std::vector<std::uint64_t> rows(draft.events);
  ColumnReader<RunEntry> run(storage, draft.run_path, draft.events, kChunkValues);
  ColumnReader<std::uint64_t> ranks(storage, draft.rank_path, draft.events, kChunkValues);
  while (const RunEntry* entry = run.next()) {
    const std::uint64_t* rank = ranks.next();
    if (rank == nullptr) break;
    rows[entry->event] = *rank;
    targets.add({entry->event, user_of[entry->event], *rank}, entry->flags);
  }
  RETURN_IF_ERROR(run.status());
  RETURN_IF_ERROR(ranks.status());
  RETURN_IF_ERROR(targets.finish());
  RETURN_IF_ERROR(write_column(storage, join_path(draft.directory, "row.col"),
                               std::span<const std::uint64_t>(rows)));
  RETURN_IF_ERROR(storage.remove(draft.run_path));
  return storage.remove(draft.rank_path);
}

}  // namespace meander::data
