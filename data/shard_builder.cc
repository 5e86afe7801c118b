// SPDX-License-Identifier: Apache-2.0
#include "data/shard_builder.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <tuple>

#include "data/prepared_log.h"

namespace meander::data {
namespace {

constexpr std::uint32_t kPrefetch = 16;  // records ahead
constexpr std::size_t kRunBufferBytes = std::size_t{256} << 10;
constexpr std::size_t kChunkValues = std::size_t{1} << 14;

// An event's place in its shard: users by id, an event that the source holds out behind the others,
// then by time and input row (spill files are in the order of rows).
struct Place {
  std::uint64_t user;
  std::int64_t time_ms;
  std::uint32_t held_out;
  std::uint32_t record;  // in the spill file
};
bool before(const Place& a, const Place& b) {
  return std::tie(a.user, a.held_out, a.time_ms, a.record) <
         std::tie(b.user, b.held_out, b.time_ms, b.record);
}

class Builder {
 public:
  Builder(Storage& storage, const SpillFile& spill, Buffer bytes, const std::string& directory,
          const SplitRules& rules, const LogShape& shape)
      : storage_(storage),
        bytes_(std::move(bytes)),
        records_(spill.records),
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
    split_users();
    RETURN_IF_ERROR(write_users());
    RETURN_IF_ERROR(write_columns());
    RETURN_IF_ERROR(write_run());
    return std::move(draft_);
  }

 private:
  SpillRecord record(std::uint32_t i) const {
    return {bytes_.data() + std::size_t{i} * shape_.layout.bytes()};
  }
  std::string column(const std::string& name) const { return join_path(draft_.directory, name); }

  void sort() {
    places_.reserve(records_);
    for (std::uint32_t i = 0; i < records_; ++i) {
      const SpillHead& head = record(i).head();
      const bool held_out = head.kind() == RecordKind::kTestTarget;
      places_.push_back({head.user, head.time_ms, held_out, i});
    }
    std::sort(places_.begin(), places_.end(), before);
  }

  void split_users() {
    flags_.assign(records_, 0);
    for (std::uint32_t first = 0; first < records_;) {
      std::uint32_t end = first + 1;
      while (end < records_ && places_[end].user == places_[first].user) ++end;
      split_user(first, end - first);
      first = end;
    }
    draft_.users = users_.size();
  }

  // How many of a user's events, its first ones, are known before the test part begins.
  std::uint32_t known_of(std::uint32_t first, std::uint32_t count) const {
    const auto begin = places_.begin() + first, end = begin + count;
    switch (rules_.holdout.kind) {
      case Holdout::kLast:
        return count > rules_.min_history ? count - 1 : count;
      case Holdout::kTime:
        return std::partition_point(
                   begin, end,
                   [this](const Place& p) { return p.time_ms < rules_.holdout.from_ms; }) -
               begin;
      case Holdout::kGiven:
        return std::partition_point(begin, end, [](const Place& p) { return p.held_out == 0; }) -
               begin;
      case Holdout::kNone:
        break;
    }
    return count;
  }

  void split_user(std::uint32_t first, std::uint32_t count) {
    const std::uint32_t known = known_of(first, count);
    users_.push_back({places_[first].user, first, count, known, 0});
    const std::uint32_t targets_from =
        rules_.targets_last == 0 || known < rules_.targets_last ? 0 : known - rules_.targets_last;
    const bool given = rules_.holdout.kind == Holdout::kGiven;
    for (std::uint32_t i = 0; i < count; ++i) {
      const RecordKind kind = record(places_[first + i].record).head().kind();
      const bool training = i < known && kind == RecordKind::kOpen;
      const bool has_history = (given ? std::min(i, known) : i) >= rules_.min_history;
      std::uint32_t flags = 0;
      if (training) flags |= kInTraining;
      if (training || rules_.holdout.kind == Holdout::kTime) flags |= kInPool;
      if (training && has_history && i >= targets_from) flags |= kTrainTarget;
      if (i >= known && has_history) flags |= kTestTarget;
      flags_[first + i] = flags;
      draft_.train_targets += (flags & kTrainTarget) != 0;
      draft_.test_targets += (flags & kTestTarget) != 0;
    }
  }

  Status write_users() {
    return write_column(storage_, column("users.col"), std::span<const UserEntry>(users_));
  }

  Status open_column_of(const std::string& name, std::size_t offset, std::uint32_t width) {
    ASSIGN_OR_RETURN(ColumnWriter writer, ColumnWriter::create(storage_, column(name), width));
    columns_.push_back({offset, width, std::move(writer)});
    return {};
  }

  // Each field of a record is a column. All are written in one pass, for the records lie anywhere.
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
    for (std::uint32_t event = 0; event < records_; ++event) {
      if (event + kPrefetch < records_) {
        const std::byte* next = record(places_[event + kPrefetch].record).bytes;
        __builtin_prefetch(next);
        __builtin_prefetch(next + 64);
      }
      const std::byte* bytes = record(places_[event].record).bytes;
      for (Column& c : columns_) {
        RETURN_IF_ERROR(c.writer.append_bytes(bytes + c.offset, c.width, 1));
      }
    }
    for (Column& c : columns_) RETURN_IF_ERROR(c.writer.finish());
    for (std::size_t i = 0; i < layout.numerics; ++i) add_moments(i);
    return {};
  }

  void add_moments(std::size_t column) {
    for (std::uint32_t event = 0; event < records_; ++event) {
      const float x = shape_.layout.numeric(record(places_[event].record), column);
      if ((flags_[event] & kInTraining) != 0 && !std::isnan(x)) draft_.numeric[column].add(x);
    }
  }

  Status write_run() {
    std::vector<std::uint32_t> order(records_);  // events by (time, row)
    for (std::uint32_t event = 0; event < records_; ++event) order[places_[event].record] = event;
    if (!shape_.rows_in_order) {
      std::sort(order.begin(), order.end(), [this](std::uint32_t a, std::uint32_t b) {
        return std::tie(places_[a].time_ms, places_[a].record) <
               std::tie(places_[b].time_ms, places_[b].record);
      });
    }
    ASSIGN_OR_RETURN(
        ColumnWriter writer,
        ColumnWriter::create(storage_, draft_.run_path, sizeof(RunEntry), kRunBufferBytes, true));
    for (const std::uint32_t event : order) {
      const SpillHead& head = record(places_[event].record).head();
      RETURN_IF_ERROR(writer.append(
          RunEntry{head.time_ms, head.row(), head.item, head.category, event, flags_[event]}));
    }
    return writer.finish();
  }

  struct Column {
    std::size_t offset;  // of the field in a record
    std::uint32_t width;
    ColumnWriter writer;
  };

  Storage& storage_;
  Buffer bytes_;
  std::uint64_t records_;
  const SplitRules& rules_;
  const LogShape& shape_;
  ShardDraft draft_;
  std::vector<Place> places_;  // by event
  std::vector<std::uint32_t> flags_;
  std::vector<UserEntry> users_;
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

Status finish_shard(Storage& storage, const ShardDraft& draft) {
  ASSIGN_OR_RETURN(const std::vector<std::uint32_t> user_of, users_of_events(storage, draft));
  std::vector<std::uint64_t> rows(draft.events);
  const auto column = [&](const char* name) { return join_path(draft.directory, name); };
  ASSIGN_OR_RETURN(ColumnWriter train,
                   ColumnWriter::create(storage, column("train.col"), sizeof(Target)));
  ASSIGN_OR_RETURN(ColumnWriter test,
                   ColumnWriter::create(storage, column("test.col"), sizeof(Target)));
  ColumnReader<RunEntry> run(storage, draft.run_path, draft.events, kChunkValues);
  ColumnReader<std::uint64_t> ranks(storage, draft.rank_path, draft.events, kChunkValues);
  while (const RunEntry* entry = run.next()) {
    const std::uint64_t* rank = ranks.next();
    if (rank == nullptr) break;
    rows[entry->event] = *rank;
    const Target target{entry->event, user_of[entry->event], *rank};
    if (entry->flags & kTrainTarget) RETURN_IF_ERROR(train.append(target));
    if (entry->flags & kTestTarget) RETURN_IF_ERROR(test.append(target));
  }
  RETURN_IF_ERROR(run.status());
  RETURN_IF_ERROR(ranks.status());
  RETURN_IF_ERROR(train.finish());
  RETURN_IF_ERROR(test.finish());
  RETURN_IF_ERROR(write_column(storage, column("row.col"), std::span<const std::uint64_t>(rows)));
  RETURN_IF_ERROR(storage.remove(draft.run_path));
  return storage.remove(draft.rank_path);
}

}  // namespace meander::data
