// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/status.h"
#include "common/storage.h"
#include "data/prepare.h"
#include "data/spill.h"

namespace meander::data {

// Which events are targets, and which are held out.
struct SplitRules {
  HoldoutSpec holdout;
  std::uint32_t min_history = 1;
  std::uint32_t targets_last = 0;  // 0: all
};

// What an event's second label is: 1, 0, or NaN where it is not known.
struct LabelRule {
  // kAtLeast: the source's number is at least `least`. kStay: the user's next event comes `stay_ms`
  // later or more; known if that event is of the same session, and not exactly `filled_ms` later
  // (0: whatever it is).
  enum Kind { kNone, kAtLeast, kStay } kind = kNone;
  float least = 1;
  std::int64_t stay_ms = 0, filled_ms = 0;
};

// Mean and variance of a column as numbers come in; parts join exactly in any grouping order that
// is the same each time (Chan et al.).
struct Moments {
  std::uint64_t count = 0;
  double mean = 0, m2 = 0;
  void add(double x);
  void add(const Moments& other);
  double std() const;  // 1 when the column is constant or empty
};

// An event in a shard's run: its events in the order of (time, input row), for the merge of all
// shards into the log's order.
struct RunEntry {
  std::int64_t time_ms;
  std::uint64_t row;  // in the input: with it in order of time, the place in the log
  std::uint64_t item, category;
  std::uint32_t event;  // in the shard
  std::uint32_t flags;
};
static_assert(sizeof(RunEntry) == 40);
constexpr std::uint32_t kTrainTarget = 1, kTestTarget = 2, kInTraining = 4, kInPool = 8;

// A shard on its way: after build_shard() it lacks the places of its events in the whole log, if
// the input was not in order of time.
struct ShardDraft {
  std::string directory;
  std::string run_path;   // RunEntry column
  std::string rank_path;  // u64 column, written by the merge: the place of each entry of the run
  std::uint64_t events = 0, users = 0;
  std::uint64_t train_targets = 0, test_targets = 0;
  std::uint64_t labels_known = 0, labels_positive = 0;  // second ones
  std::vector<Moments> numeric;                         // over training events
};

// What of a log the columns have.
struct LogShape {
  SpillLayout layout;
  bool has_category = false, has_time = false;
  LabelRule label;
  bool rows_in_order = false;  // the input was in order of time
};

std::string shard_directory(std::uint32_t shard);
std::string numbered_column(const char* kind, std::size_t i);  // numeric-3.col

// Sorts one spill file by user and writes its columns and its run, in time that grows with the file
// alone. Memory: the spill file, which is mapped, and 36 bytes an event.
Result<ShardDraft> build_shard(Storage& storage, const SpillFile& spill,
                               const std::string& directory, const SplitRules& rules,
                               const LogShape& shape);
// Removes the run, and first writes what needs the ranks of the merge: rows and targets.
Status finish_shard(Storage& storage, const ShardDraft& draft, const LogShape& shape);

}  // namespace meander::data
