// SPDX-License-Identifier: Apache-2.0
#include "data/prepared_log.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "common/rng.h"
#include "data/column_file.h"
#include "data/fields.h"
#include "data/log_json.h"
#include "data/shard_builder.h"

namespace meander::data {
namespace {

// Rows a bucket of the time index has on average; and no more buckets than this.
constexpr std::uint64_t kRowsPerBucket = 16;
constexpr std::uint64_t kBucketsMax = std::uint64_t{1} << 20;

Status check_users(const std::string& path, std::span<const UserEntry> users,
                   std::uint64_t events) {
  std::uint64_t next = 0;
  for (std::size_t u = 0; u < users.size(); ++u) {
    const UserEntry& user = users[u];
    const bool is_sorted = u == 0 || users[u - 1].id < user.id;
    if (!is_sorted || user.first != next || user.count == 0 || user.known > user.count) {
      return invalid(path + ": user " + std::to_string(u) + " is out of place");
    }
    next += user.count;
  }
  if (next != events) return invalid(path + ": does not match the number of events");
  return {};
}

Status check_targets(const std::string& path, std::span<const Target> targets,
                     std::span<const UserEntry> users, std::uint64_t log_events,
                     std::uint32_t min_history) {
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const Target& t = targets[i];
    const bool in_order = i == 0 || targets[i - 1].row < t.row;
    if (!in_order || t.row >= log_events || t.user >= users.size() ||
        t.event < users[t.user].first ||
        t.event - users[t.user].first < std::min(min_history, 1u) ||
        t.event - users[t.user].first >= users[t.user].count) {
      return invalid(path + ": target " + std::to_string(i) + " is out of place");
    }
  }
  return {};
}

}  // namespace

const Catalog::Entry* Catalog::find(std::uint64_t item) const {
  const auto it = std::lower_bound(entries.begin(), entries.end(), item,
                                   [](const Entry& e, std::uint64_t id) { return e.item < id; });
  return it != entries.end() && it->item == item ? &*it : nullptr;
}

std::string Catalog::category_name(std::uint64_t category) const {
  for (const Entry& entry : entries) {
    if (entry.category == category) return entry.category_name;
  }
  return {};
}

// Fills a PreparedLog from its files.
class PreparedLogReader {
 public:
  PreparedLogReader(Storage& storage, const std::string& path) : storage_(storage) {
    log_->path_ = path;
  }

  Result<std::shared_ptr<const PreparedLog>> read() {
    ASSIGN_OR_RETURN(const Buffer text, storage_.read(join_path(log_->path_, kLogJson)));
    ASSIGN_OR_RETURN(meta_, parse_log_json(join_path(log_->path_, kLogJson), text));
    RETURN_IF_ERROR(copy_meta());
    for (std::uint32_t s = 0; s < meta_.shards; ++s) RETURN_IF_ERROR(read_shard(s));
    RETURN_IF_ERROR(check_totals());
    RETURN_IF_ERROR(read_global());
    log_->digest_ = digest(text);
    return std::shared_ptr<const PreparedLog>(std::move(log_));
  }

 private:
  Status copy_meta() {
    log_->users_ = meta_.users;
    log_->events_ = meta_.events;
    log_->categories_ = meta_.categories;
    log_->train_targets_ = meta_.train_targets;
    log_->test_targets_ = meta_.test_targets;
    log_->test_negatives_ = meta_.test_negatives;
    log_->has_category_ = meta_.has_category;
    log_->has_time_ = meta_.has_time;
    log_->has_names_ = meta_.has_names;
    log_->min_history_ = meta_.min_history;
    log_->test_history_known_ = meta_.holdout == "given";
    log_->numeric_ = meta_.numeric;
    log_->context_ = meta_.context;
    log_->second_label_ = meta_.second_label;
    return {};
  }

  template <class T>
  Result<std::span<const T>> column(const std::string& path) {
    ASSIGN_OR_RETURN(ColumnFile file, open_column(storage_, path, sizeof(T)));
    crcs_ = hash64(crcs_, file.trailer.payload_crc, file.trailer.count);
    const std::span<const T> values = file.values<T>();
    log_->files_.push_back({path, std::move(file.bytes)});
    return values;
  }
  // One that is used to index others: its values are checked now, check(values) among it. What that
  // touched is let go: the log's own mapping starts untouched.
  template <class T, class Check>
  Result<std::span<const T>> checked_column(const std::string& path, Check check) {
    {
      ASSIGN_OR_RETURN(const ColumnFile file, open_column(storage_, path, sizeof(T)));
      RETURN_IF_ERROR(file.verify());
      RETURN_IF_ERROR(check(file.values<T>()));
    }
    return column<T>(path);
  }
  template <class T>
  Result<std::span<const T>> event_column(const std::string& path, std::uint64_t events) {
    ASSIGN_OR_RETURN(const auto values, column<T>(path));
    if (values.size() != events) return invalid(path + ": does not match the number of events");
    return values;
  }

  Status read_shard(std::uint32_t index) {
    const std::string directory = join_path(log_->path_, shard_directory(index));
    const auto file = [&](const std::string& name) { return join_path(directory, name); };
    Shard shard;
    ASSIGN_OR_RETURN(shard.item, column<std::uint64_t>(file("item.col")));
    const std::uint64_t events = shard.item.size();
    ASSIGN_OR_RETURN(shard.users, checked_column<UserEntry>(file("users.col"), [&](auto users) {
                       return check_users(file("users.col"), users, events);
                     }));
    if (meta_.has_category) {
      ASSIGN_OR_RETURN(shard.category, event_column<std::uint64_t>(file("category.col"), events));
    }
    if (meta_.has_time) {
      ASSIGN_OR_RETURN(shard.time_ms, event_column<std::int64_t>(file("time.col"), events));
    }
    ASSIGN_OR_RETURN(shard.row, event_column<std::uint64_t>(file("row.col"), events));
    for (std::size_t i = 0; i < meta_.context.size(); ++i) {
      ASSIGN_OR_RETURN(const auto values,
                       event_column<std::uint64_t>(file(numbered_column("context", i)), events));
      shard.context.push_back(values);
    }
    for (std::size_t i = 0; i < meta_.numeric.size(); ++i) {
      ASSIGN_OR_RETURN(const auto values,
                       event_column<float>(file(numbered_column("numeric", i)), events));
      shard.numeric.push_back(values);
    }
    if (!meta_.second_label.empty()) {
      ASSIGN_OR_RETURN(shard.second_label, event_column<float>(file("second_label.col"), events));
    }
    RETURN_IF_ERROR(read_targets(shard, file("train.col"), shard.train_targets));
    RETURN_IF_ERROR(read_targets(shard, file("test.col"), shard.test_targets));
    if (meta_.test_negatives > 0) {
      ASSIGN_OR_RETURN(shard.test_negatives, column<ItemRef>(file("test_negatives.col")));
      if (shard.test_negatives.size() != shard.test_targets.size() * meta_.test_negatives) {
        return invalid(file("test_negatives.col") + ": does not match the number of test targets");
      }
    }
    log_->shards_.push_back(std::move(shard));
    return {};
  }

  Status read_targets(const Shard& shard, const std::string& path,
                      std::span<const Target>& targets) {
    ASSIGN_OR_RETURN(targets, checked_column<Target>(path, [&](auto values) {
                       return check_targets(path, values, shard.users, meta_.events,
                                            meta_.min_history);
                     }));
    return {};
  }

  Status check_totals() const {
    std::uint64_t users = 0, events = 0, train = 0, test = 0;
    for (const Shard& shard : log_->shards_) {
      users += shard.users.size();
      events += shard.item.size();
      train += shard.train_targets.size();
      test += shard.test_targets.size();
    }
    if (users == meta_.users && events == meta_.events && train == meta_.train_targets &&
        test == meta_.test_targets) {
      return {};
    }
    return invalid(log_->path_ + ": the shards do not add up to what " + kLogJson + " says");
  }

  Status index_pool_time(const std::string& path, std::span<const std::int64_t> times) {
    if (times.size() != log_->pool_.size() || !std::is_sorted(times.begin(), times.end())) {
      return invalid(path + ": does not match pool.col");
    }
    log_->index_pool_time(times);
    return {};
  }

  Status read_global() {
    const auto file = [&](const char* name) { return join_path(log_->path_, name); };
    ASSIGN_OR_RETURN(log_->pool_, column<ItemRef>(file("pool.col")));
    if (meta_.has_time) {
      ASSIGN_OR_RETURN(log_->pool_time_, checked_column<std::int64_t>(
                                             file("pool_time.col"), [&](auto times) -> Status {
                                               return index_pool_time(file("pool_time.col"), times);
                                             }));
    }
    ASSIGN_OR_RETURN(log_->items_, column<ItemEntry>(file("items.col")));
    if (log_->items_.size() != meta_.items) {
      return invalid(file("items.col") + ": does not match " + kLogJson);
    }
    return {};
  }

  std::uint64_t digest(const Buffer& text) const {
    std::uint64_t h = crcs_;
    for (const char c : text.as<char>()) h = mix64(h + static_cast<unsigned char>(c));
    return h;
  }

  Storage& storage_;
  std::shared_ptr<PreparedLog> log_{new PreparedLog()};
  LogMeta meta_;
  std::uint64_t crcs_ = 0;
};

Result<std::shared_ptr<const PreparedLog>> PreparedLog::open(Storage& storage,
                                                             const std::string& path) {
  if (!storage.exists(path)) {
    return not_found(path + ": no such prepared log; make one with meander prepare");
  }
  if (!storage.exists(join_path(path, kLogJson))) {
    return invalid(path + ": not a prepared log (it has no " + kLogJson + ")");
  }
  return PreparedLogReader(storage, path).read();
}

Status PreparedLog::verify() const {
  for (const File& file : files_) {
    ColumnFile column{file.path, file.bytes, trailer_of(file.bytes)};
    RETURN_IF_ERROR(column.verify());
  }
  return {};
}

std::optional<std::uint32_t> PreparedLog::context_column(const std::string& name) const {
  const auto it = std::find(context_.begin(), context_.end(), name);
  if (it == context_.end()) return std::nullopt;
  return it - context_.begin();
}

// Even buckets of time, each with the first pool row in it: a look-up then searches one bucket.
void PreparedLog::index_pool_time(std::span<const std::int64_t> times) {
  if (times.empty()) return;
  const std::uint64_t rows = times.size();
  pool_from_ = times.front();
  const auto span = static_cast<std::uint64_t>(times.back() - pool_from_) + 1;
  const std::uint64_t buckets = std::clamp<std::uint64_t>(rows / kRowsPerBucket, 1, kBucketsMax);
  pool_bucket_bits_ = static_cast<std::uint32_t>(std::bit_width(span / buckets));
  pool_index_.assign((span >> pool_bucket_bits_) + 2, rows);
  for (std::uint64_t row = rows; row-- > 0;) {
    pool_index_[static_cast<std::uint64_t>(times[row] - pool_from_) >> pool_bucket_bits_] = row;
  }
  for (std::size_t b = pool_index_.size() - 1; b-- > 0;) {  // empty buckets: where the next begins
    pool_index_[b] = std::min(pool_index_[b], pool_index_[b + 1]);
  }
}

std::uint64_t PreparedLog::pool_lower_bound(std::int64_t time_ms) const {
  if (pool_time_.empty() || time_ms <= pool_from_) return 0;
  if (time_ms > pool_time_.back()) return pool_time_.size();
  const std::uint64_t b = static_cast<std::uint64_t>(time_ms - pool_from_) >> pool_bucket_bits_;
  std::uint64_t at = pool_index_[b];
  // Written so that it compiles to conditional moves: which way it goes is anybody's guess.
  for (std::uint64_t left = pool_index_[b + 1] - at; left > 0;) {
    const std::uint64_t half = left / 2;
    const bool is_before = pool_time_[at + half] < time_ms;
    at = is_before ? at + half + 1 : at;
    left = is_before ? left - half - 1 : half;
  }
  return at;
}

const ItemEntry* PreparedLog::find_item(std::uint64_t item) const {
  const auto it =
      std::lower_bound(items_.begin(), items_.end(), item,
                       [](const ItemEntry& e, std::uint64_t id) { return e.item < id; });
  return it != items_.end() && it->item == item ? &*it : nullptr;
}

std::optional<PreparedLog::UserRef> PreparedLog::find_user(std::uint64_t id) const {
  for (const Shard& shard : shards_) {
    const auto it =
        std::lower_bound(shard.users.begin(), shard.users.end(), id,
                         [](const UserEntry& u, std::uint64_t id) { return u.id < id; });
    if (it != shard.users.end() && it->id == id) return UserRef{&shard, &*it};
  }
  return std::nullopt;
}

Result<Catalog> PreparedLog::catalog(Storage& storage) const {
  Catalog catalog;
  if (!has_names_) return catalog;
  const std::string path = join_path(path_, kItemsTsv);
  ASSIGN_OR_RETURN(const Buffer bytes, storage.read(path));
  std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  std::vector<std::string_view> fields;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) return invalid(path + ": truncated");
    split(text.substr(0, end), "\t", fields);
    text.remove_prefix(end + 1);
    Catalog::Entry entry;
    if (fields.size() != 4 || !parse_key(fields[0], entry.item) ||
        !parse_key(fields[1], entry.category)) {
      return invalid(path + ": expected item, category, name of the category, title");
    }
    entry.category_name = fields[2];
    entry.title = fields[3];
    catalog.entries.push_back(std::move(entry));
  }
  return catalog;
}

}  // namespace meander::data
