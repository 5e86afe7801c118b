// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"

namespace meander::data {

// What a column of an event log is to us.
// kLabel: the number that a second label is made of; kSession: tells a user's sessions apart.
enum class ColumnRole {
  kUser,
  kItem,
  kCategory,
  kTime,
  kNumeric,
  kContext,
  kLabel,
  kSession,
  kIgnore
};

// How a field is written. An id of type kString is hashed to 64 bits (hash_id), one of type kInt is
// kept as it is. kFloat is for numbers and for times with a fraction.
enum class ColumnType { kInt, kString, kFloat };

// kIso: 2017-10-08 or 2017-10-08T06:00:00[.123][Z], read as UTC.
enum class TimeUnit { kMilliseconds, kSeconds, kMicroseconds, kIso };

struct ColumnSpec {
  std::string name;
  ColumnRole role = ColumnRole::kIgnore;
  ColumnType type = ColumnType::kInt;
};

// How to read a log of format csv, tsv or jsonl. Columns are found by their name in the header line
// (or by field name in JSON); without a header they are named here in the order of the file.
// Columns of the file that the schema does not name are ignored.
struct Schema {
  std::string delimiter;  // empty: "," for csv, a tab for tsv
  bool header = true;
  TimeUnit time_unit = TimeUnit::kMilliseconds;
  std::vector<ColumnSpec> columns;
};

// The words of schema.yaml: user, item, category, time, numeric, context, label, session, ignore;
// int, string, float; ms, s, us, iso. kInvalid names the word and those that are known.
Result<ColumnRole> parse_role(std::string_view word);
Result<ColumnType> parse_type(std::string_view word);
Result<TimeUnit> parse_time_unit(std::string_view word);

// kInvalid unless there is one user and one item, at most one category, time, label and session,
// and no name twice.
Status check_schema(const Schema& schema);

// Milliseconds since 1970 from 2017-10-08, 2017-10-08T06:00:00[.123][Z] (UTC) or a count of
// milliseconds. kInvalid otherwise.
Result<std::int64_t> parse_time_ms(std::string_view text);

// The 64-bit key of an id that is not a number. Stable: it is written into prepared logs.
std::uint64_t hash_id(std::string_view id);

}  // namespace meander::data
