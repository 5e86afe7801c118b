// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/buffer.h"
#include "common/status.h"
#include "data/prepared_log.h"

namespace meander::data {

constexpr const char* kLogJson = "log.json";
constexpr const char* kItemsTsv = "items.tsv";

// What log.json says of a prepared log (docs/prepared-log.md).
struct LogMeta {
  std::uint32_t shards = 0;
  std::uint64_t users = 0, items = 0, categories = 0, events = 0;
  std::uint64_t train_targets = 0, test_targets = 0;
  std::uint32_t test_negatives = 0;
  bool has_category = false, has_time = false, has_names = false;
  std::vector<NumericColumn> numeric;
  std::vector<std::string> context;
  std::string second_label;  // what it is called; empty: there is none

  std::string holdout;  // last, time, given, none
  std::uint32_t min_history = 0;

  // For people; not read back.
  std::int64_t holdout_from_ms = 0;
  std::uint32_t targets_last = 0;
  std::uint64_t records = 0;
  std::map<std::string, std::uint64_t> refused;
  std::vector<std::string> sources;
};

std::string to_log_json(const LogMeta& meta);
// kInvalid: not a prepared log, one of another version, truncated or damaged.
Result<LogMeta> parse_log_json(const std::string& path, const Buffer& text);

}  // namespace meander::data
