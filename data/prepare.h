// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "common/storage.h"
#include "data/negatives.h"
#include "data/schema.h"

namespace meander::data {

// An event log, read as a stream, checked, and written as a prepared log (docs/prepared-log.md):
// columns sorted by user and time, in shards split by user, with targets, pool and test negatives.

// cora: nodes with class, part and words in *_nodes.txt, links in *_edges.txt beside it.
// Every format reads plain files and *.zst. `in` may name files or a directory.
//   ml-1m      sequences.txt (user item item ...) or ratings.dat, with movies.dat for genres,
//   titles globo      clicks-*.csv ml-100k    RecBole's *.inter with *.item sequences  a user a
//   line: user item item ... pairs      user item, one pair a line, in time order sessions   a
//   session a line: item item ...; in test_in also: item item ...<tab>target csv, tsv, jsonl   by a
//   schema
enum class Format {
  kMl1m,
  kGlobo,
  kMl100k,
  kSequences,
  kPairs,
  kSessions,
  kCsv,
  kTsv,
  kJsonl,
  kCora
};
Result<Format> parse_format(std::string_view word);

// Which events are held out for the test.
//   kLast   each user's last one    kTime   those from a moment on
//   kGiven  those of `test_in`      kNone   none
enum class Holdout { kLast, kTime, kGiven, kNone };
struct HoldoutSpec {
  Holdout kind = Holdout::kLast;
  std::int64_t from_ms = 0;  // of kTime
  // Of kLast: the event before the last one is held out too, to choose a model by: no target, and
  // nothing that negatives are drawn from, but part of the history that the test looks at.
  bool validation = false;
};
// last | last+validation | none | given | time:<2017-10-13 or milliseconds>
Result<HoldoutSpec> parse_holdout(std::string_view word);

// Options that are not set take the value of the format's protocol, else the value in brackets.
struct PrepareOptions {
  Format format = Format::kCsv;
  std::vector<std::string> in;
  std::vector<std::string> test_in;  // events that are test targets; implies holdout kGiven
  std::string out;                   // directory; one that is a prepared log already is replaced
  Schema schema;                     // of csv, tsv, jsonl
  std::string attributes;  // JSON {"item": [attribute, ...]}: an item's first is its category

  std::optional<HoldoutSpec> holdout;        // [kLast]
  std::optional<std::uint32_t> min_history;  // [1] events of its user before a target
  std::optional<std::uint32_t>
      targets_last;  // [0: all] newest training events of a user as targets

  // A second label of each event: 1 where the number of the source's label column (the rating, of
  // ml-1m and ml-100k) is at least so much [1, where a schema has one] ...
  std::optional<double> label_min;
  // ... or 1 where the user's next event comes so much later or more, and not known where that is
  // of another session (where the source tells sessions apart) or there is none; 0: no such label.
  double stay_s = 0;
  // A time to the next event of exactly so much was filled in by whoever published the log: such a
  // stay is not known; 0: none was [0; globo: 30].
  std::optional<double> stay_filled_s;

  // Test negatives: of this file those it lists ([protocol/ beside the input, for ml-1m and
  // globo]), the others drawn once by `test_draw`.
  std::string test_negatives;
  std::optional<NegativesSpec> test_draw;  // [kPopular, 1, exclude the history]
  std::uint64_t test_seed = 20171013;
  std::uint32_t history = 50;  // what Exclude::kHistory looks back in test draws

  std::uint32_t streams = 8;  // shards at least; so many workers can share it
  std::uint64_t memory_bytes = std::uint64_t{128}
                               << 20;  // of a shard in memory; above: split again
  double refused_share_max = 0.1;      // of the records; more is an error
  std::uint32_t refusals_kept = 5;     // shown with file and line
};

struct PrepareReport {
  std::uint64_t users = 0, items = 0, categories = 0, events = 0;
  std::uint64_t records = 0;  // read, good or refused
  std::uint64_t refused = 0;
  std::map<std::string, std::uint64_t> refused_by_reason;
  std::vector<std::string> refusals;  // the first: "clicks.csv:17: user is not a whole number: 'x'"
  std::uint32_t streams = 0;          // shards written
  std::uint64_t train_targets = 0, test_targets = 0;
  std::uint64_t labels_known = 0, labels_positive = 0;  // second ones, over all events
  std::uint64_t test_negatives_listed = 0;  // test targets whose negatives came from the file
  std::uint64_t bytes_read = 0;             // of text, after decompression
};

// Memory: some 2 x memory_bytes plus 64 bytes an item, whatever the length of the log. The output
// appears whole or not at all; work in progress lies in `out`.tmp.
// Errors: kInvalid (options, an empty log, a truncated .zst, too many refused records:
// the first is quoted),
// kNotFound, kExhausted, kFailed.
Result<PrepareReport> prepare(Storage& storage, const PrepareOptions& options);

}  // namespace meander::data
