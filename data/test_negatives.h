// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/status.h"
#include "common/storage.h"

namespace meander::data {

// Negatives of test targets that somebody fixed, so that two programs can be compared on the same.
// Read from text, one target a line, in one of these forms (by the first line):
//   # user target negative history_length           user target negative n
//   # click user ts_ms target negative ...          click user ts target negative n
//   (user,target)<tab>negative<tab>negative...      as the NCF paper's files have it
// Memory: some 64 bytes a target.
class ListedNegatives {
 public:
  static Result<ListedNegatives> read(Storage& storage, const std::string& path);

  std::uint32_t per_target() const { return per_target_; }
  // Whether targets are told apart by time as well as by user and item.
  bool has_time() const { return has_time_; }
  // The negatives of a target, per_target() items, or nullptr. Each call with the same key gives
  // the next that the file lists for it.
  const std::uint64_t* take(std::uint64_t user, std::uint64_t item, std::int64_t time_ms);

 private:
  enum class Form { kUserTarget, kClick, kNcf };
  Status parse(Form form, std::string_view line);
  void add(std::uint64_t user, std::uint64_t item, std::int64_t time_ms);

  std::uint32_t per_target_ = 0;
  bool has_time_ = false;
  std::vector<std::uint64_t> items_;                                       // (targets, per_target)
  std::unordered_map<std::uint64_t, std::vector<std::uint32_t>> targets_;  // last first
};

}  // namespace meander::data
