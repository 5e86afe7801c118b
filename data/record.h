// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "data/line_reader.h"

namespace meander::data {

// What a source says about an event's part. Most leave it open: the hold-out decides.
enum class RecordKind : std::uint8_t {
  kOpen = 0,
  kTestContext = 1,  // history of a test target only
  kTestTarget = 2,
};

// One event as a source reads it.
struct Record {
  std::uint64_t user = 0, item = 0, category = 0;
  std::int64_t time_ms = 0;
  RecordKind kind = RecordKind::kOpen;
  std::uint64_t session = 0;
  float label = std::numeric_limits<float>::quiet_NaN();  // of which the second label is made
  std::span<const float> numeric;
  std::span<const std::uint64_t> context;
};

// What the records of a source have besides user and item.
struct RecordShape {
  bool has_category = false, has_time = false, has_session = false;
  std::string label;                          // column of it; empty: none
  std::vector<std::string> numeric, context;  // column names
};

// Takes a source's records: good ones go on to `accept`, bad ones are counted by reason.
class Intake {
 public:
  using Accept = std::function<void(const Record&)>;
  Intake(Accept accept, std::uint32_t refusals_kept)
      : accept_(std::move(accept)), refusals_kept_(refusals_kept) {}

  void accept(const Record& record) {
    ++records_;
    accept_(record);
  }
  // `detail` is quoted behind the reason, cut short, where it is kept: "file:line: reason: 'x'".
  void refuse(const LineReader& at, std::string_view reason, std::string_view detail);

  std::uint64_t records() const { return records_; }
  std::uint64_t refused() const { return refused_; }
  const std::map<std::string, std::uint64_t>& by_reason() const { return by_reason_; }
  const std::vector<std::string>& first() const { return first_; }

 private:
  Accept accept_;
  std::uint32_t refusals_kept_;
  std::uint64_t records_ = 0, refused_ = 0;
  std::map<std::string, std::uint64_t> by_reason_;
  std::vector<std::string> first_;
};

}  // namespace meander::data
