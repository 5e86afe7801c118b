// SPDX-License-Identifier: Apache-2.0
#include "data/row_parser.h"

#include <limits>

#include "data/fields.h"
#include "data/item_names.h"

namespace meander::data {
namespace {

// Year 285,000 or so, and far from overflow when units are converted.
constexpr std::int64_t kTimeMsMax = 9'000'000'000'000'000;

bool in_range(double ms) { return ms > -double(kTimeMsMax) && ms < double(kTimeMsMax); }

double unit_ms(TimeUnit unit) {
  switch (unit) {
    case TimeUnit::kSeconds:
      return 1000;
    case TimeUnit::kMicroseconds:
      return 0.001;
    default:
      return 1;
  }
}

}  // namespace

RowParser::RowParser(const Schema& schema, bool is_padded)
    : schema_(schema), is_padded_(is_padded) {}

std::string RowParser::reason() const { return bad_column_->name + " " + why_; }

bool RowParser::fail(const ColumnSpec& column, const char* why, std::string_view text) {
  bad_column_ = &column;
  why_ = why;
  detail_ = text;
  return false;
}

bool RowParser::parse(const std::vector<std::string_view>& fields, Record& record) {
  record = Record();
  numeric_.clear();
  context_.clear();
  for (std::size_t i = 0; i < schema_.columns.size(); ++i) {
    const ColumnSpec& column = schema_.columns[i];
    if (column.role != ColumnRole::kIgnore && !parse_field(column, fields[i], record)) return false;
  }
  record.numeric = numeric_;
  record.context = context_;
  return true;
}

bool RowParser::parse_field(const ColumnSpec& column, std::string_view text, Record& record) {
  switch (column.role) {
    case ColumnRole::kUser:
      return parse_id(column, text, false, record.user);
    case ColumnRole::kItem:
      return parse_id(column, text, false, record.item);
    case ColumnRole::kCategory:
      return parse_id(column, text, true, record.category);
    case ColumnRole::kContext:
      context_.push_back(0);
      return parse_id(column, text, true, context_.back());
    case ColumnRole::kTime:
      if (text.empty()) return fail(column, "is missing", text);
      return parse_time(text, record.time_ms) || fail(column, "is not a time", text);
    case ColumnRole::kNumeric: {
      double value = std::numeric_limits<double>::quiet_NaN();  // not known
      if (!text.empty() && !parse_number(text, value)) {
        return fail(column, "is not a finite number", text);
      }
      numeric_.push_back(static_cast<float>(value));
      return true;
    }
    case ColumnRole::kLabel: {
      double value = std::numeric_limits<double>::quiet_NaN();
      if (!text.empty() && !parse_number(text, value)) {
        return fail(column, "is not a finite number", text);
      }
      record.label = static_cast<float>(value);
      return true;
    }
    case ColumnRole::kSession:
      return parse_id(column, text, true, record.session);
    case ColumnRole::kIgnore:
      break;
  }
  return true;
}

bool RowParser::parse_id(const ColumnSpec& column, std::string_view text, bool may_be_empty,
                         std::uint64_t& key) {
  if (text.empty()) {
    key = unknown_category();
    return may_be_empty || fail(column, "is missing", text);
  }
  if (column.type == ColumnType::kString) {
    key = hash_id(text);
    return true;
  }
  if (is_padded_ && parse_digits(text, key)) return true;
  return parse_key(text, key) || fail(column, "is not a whole number", text);
}

bool RowParser::parse_time(std::string_view text, std::int64_t& ms) {
  std::uint64_t digits = 0;
  if (is_padded_ && schema_.time_unit == TimeUnit::kMilliseconds && parse_digits(text, digits)) {
    ms = static_cast<std::int64_t>(digits);
    return digits < static_cast<std::uint64_t>(kTimeMsMax);
  }
  if (schema_.time_unit == TimeUnit::kMilliseconds && parse_integer(text, ms)) {
    return in_range(static_cast<double>(ms));
  }
  if (schema_.time_unit == TimeUnit::kIso) {
    Result<std::int64_t> parsed = parse_time_ms(text);
    if (parsed.ok()) ms = parsed.value();
    return parsed.ok();
  }
  double value = 0;
  if (!parse_number(text, value)) return false;
  value *= unit_ms(schema_.time_unit);
  if (!in_range(value)) return false;
  ms = static_cast<std::int64_t>(value < 0 ? value - 0.5 : value + 0.5);
  return true;
}

}  // namespace meander::data
