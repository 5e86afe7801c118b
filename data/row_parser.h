// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "data/record.h"
#include "data/schema.h"

namespace meander::data {

// Turns the fields of a row, as text, into a Record by a schema.
class RowParser {
 public:
  // `is_padded`: the bytes before each field may be read (kLinePadding).
  RowParser(const Schema& schema, bool is_padded);

  // fields[i] belongs to schema.columns[i]; data() == nullptr: absent. False when the row is bad:
  // reason() and detail() say why.
  bool parse(const std::vector<std::string_view>& fields, Record& record);
  std::string reason() const;
  std::string_view detail() const { return detail_; }

 private:
  bool parse_field(const ColumnSpec& column, std::string_view text, Record& record);
  bool parse_id(const ColumnSpec& column, std::string_view text, bool may_be_empty,
                std::uint64_t& key);
  bool parse_time(std::string_view text, std::int64_t& ms);
  bool fail(const ColumnSpec& column, const char* why, std::string_view text);

  const Schema& schema_;
  const bool is_padded_;
  std::vector<float> numeric_;
  std::vector<std::uint64_t> context_;
  const ColumnSpec* bad_column_ = nullptr;
  const char* why_ = "";
  std::string_view detail_;
};

}  // namespace meander::data
