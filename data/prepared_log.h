// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/buffer.h"
#include "common/status.h"
#include "common/storage.h"

namespace meander::data {

// Byte layouts of these: docs/prepared-log.md.
struct UserEntry {
  std::uint64_t id = 0;
  std::uint32_t first = 0;  // its first event in the shard
  std::uint32_t count = 0;
  std::uint32_t known = 0;  // of them in the training part (its first ones)
  std::uint32_t reserved = 0;
};
struct Target {
  std::uint32_t event = 0;  // in the shard
  std::uint32_t user = 0;   // in the shard's user table
  std::uint64_t row = 0;    // place in the whole log's order of time
};
struct ItemRef {
  std::uint64_t item = 0;
  std::uint64_t category = 0;  // 0 throughout when the log has no categories
};
struct ItemEntry {
  std::uint64_t item = 0;
  std::uint64_t category = 0;  // that of its last event
  std::uint64_t count = 0;     // training events
};

// A run of the log's users with all their events: users by id, a user's events by time.
struct Shard {
  std::span<const UserEntry> users;
  std::span<const std::uint64_t> item;                  // (events)
  std::span<const std::uint64_t> category;              // (events), empty without categories
  std::span<const std::int64_t> time_ms;                // (events), empty without times
  std::span<const std::uint64_t> row;                   // (events) place in the whole log
  std::vector<std::span<const float>> numeric;          // [column] (events); NaN: not known
  std::vector<std::span<const std::uint64_t>> context;  // [column] (events)
  std::span<const float> second_label;                  // (events); NaN: not known; may be empty
  std::span<const Target> train_targets, test_targets;  // by row
  std::span<const ItemRef> test_negatives;              // (test targets, test_negatives of the log)

  std::uint64_t category_of(std::uint32_t event) const {
    return category.empty() ? 0 : category[event];
  }
};

struct NumericColumn {
  std::string name;
  float mean = 0, std = 1;  // over the training part
};

// The display names of a log's items and categories, where the source had them.
struct Catalog {
  struct Entry {
    std::uint64_t item = 0, category = 0;
    std::string category_name, title;
  };
  std::vector<Entry> entries;  // by item
  const Entry* find(std::uint64_t item) const;
  // Empty when the category has no name.
  std::string category_name(std::uint64_t category) const;
};

// A prepared log, mapped. Immutable: any number of threads may read one.
class PreparedLog {
 public:
  // Checks every file's trailer and length, and all that is used as an index; see verify() for the
  // rest. Errors: kNotFound, kInvalid (not a prepared log, of another version, truncated or
  // damaged: it is an input, and prepared again it is whole); the message names the file.
  static Result<std::shared_ptr<const PreparedLog>> open(Storage& storage, const std::string& path);
  // Checks the crc32c of every column: reads the whole log. kInvalid.
  Status verify() const;

  const std::string& path() const { return path_; }
  // Of everything in it: equal for equal logs.
  std::uint64_t digest() const { return digest_; }

  std::uint64_t users() const { return users_; }
  std::uint64_t events() const { return events_; }
  std::uint64_t categories() const { return categories_; }
  std::uint64_t train_targets() const { return train_targets_; }
  std::uint64_t test_targets() const { return test_targets_; }
  std::uint32_t test_negatives() const { return test_negatives_; }  // for each test target
  std::uint32_t min_history() const { return min_history_; }        // events before every target
  bool has_category() const { return has_category_; }
  bool has_time() const { return has_time_; }
  // Whether a test target's history ends where the test part begins (the source named the test
  // part) instead of just before the target.
  bool test_history_is_known_part() const { return test_history_known_; }
  const std::vector<NumericColumn>& numeric() const { return numeric_; }
  const std::vector<std::string>& context() const { return context_; }
  // What events' second label is called, such as "stay"; empty: they have none.
  const std::string& second_label() const { return second_label_; }
  std::optional<std::uint32_t> context_column(const std::string& name) const;

  const std::vector<Shard>& shards() const { return shards_; }
  // What negatives are drawn from, in order of time: the training part, or all events when the
  // hold-out is by time.
  std::span<const ItemRef> pool() const { return pool_; }
  std::span<const std::int64_t> pool_time_ms() const { return pool_time_; }
  // First pool row with a time >= t. O(1) on logs of even density.
  std::uint64_t pool_lower_bound(std::int64_t time_ms) const;
  // All items, by id.
  std::span<const ItemEntry> items() const { return items_; }
  const ItemEntry* find_item(std::uint64_t item) const;

  struct UserRef {
    const Shard* shard;
    const UserEntry* user;
  };
  std::optional<UserRef> find_user(std::uint64_t id) const;

  // Titles and names; empty when the source had none. kInvalid.
  Result<Catalog> catalog(Storage& storage) const;

 private:
  friend class PreparedLogReader;
  PreparedLog() = default;
  void index_pool_time(std::span<const std::int64_t> times);

  std::string path_;
  std::uint64_t digest_ = 0;
  std::uint64_t users_ = 0, events_ = 0, categories_ = 0, train_targets_ = 0, test_targets_ = 0;
  std::uint32_t test_negatives_ = 0, min_history_ = 0;
  bool has_category_ = false, has_time_ = false, test_history_known_ = false, has_names_ = false;
  std::vector<NumericColumn> numeric_;
  std::vector<std::string> context_;
  std::string second_label_;
  std::vector<Shard> shards_;
  std::span<const ItemRef> pool_;
  std::span<const std::int64_t> pool_time_;
  std::span<const ItemEntry> items_;
  // pool_index_[b]: first pool row of time bucket b; see pool_lower_bound().
  std::vector<std::uint64_t> pool_index_;
  std::int64_t pool_from_ = 0;
  std::uint32_t pool_bucket_bits_ = 0;  // a bucket is 2^this many ms

  struct File {
    std::string path;
    Buffer bytes;
  };
  std::vector<File> files_;  // keeps every mapping alive; verify() walks it
};

}  // namespace meander::data
