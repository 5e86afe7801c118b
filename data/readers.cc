// SPDX-License-Identifier: Apache-2.0
#include "data/readers.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <charconv>
#include <string>
#include <vector>

#include "data/fields.h"
#include "data/row_parser.h"

namespace meander::data {
namespace {

void accept(Record& record, const ItemNames* names, RecordKind kind, Intake& intake) {
  record.kind = kind;
  if (names != nullptr) record.category = names->category_of(record.item);
  intake.accept(record);
}

// Splits a line that may hold quoted fields. Unquoted text goes to `scratch`, one string a field
// that needed it. False when a quote is not closed.
bool split_quoted(std::string_view line, char delimiter, std::vector<std::string_view>& fields,
                  std::vector<std::string>& scratch) {
  fields.clear();
  scratch.clear();
  scratch.reserve(line.size() / 2 + 1);  // the views below must stay
  for (;;) {
    if (line.empty() || line.front() != '"') {
      const std::size_t at = line.find(delimiter);
      fields.push_back(line.substr(0, at));
      if (at == std::string_view::npos) return true;
      line.remove_prefix(at + 1);
      continue;
    }
    std::string& text = scratch.emplace_back();
    std::size_t at = 1;
    for (;; ++at) {
      if (at >= line.size()) return false;
      if (line[at] != '"') {
        text += line[at];
      } else if (at + 1 < line.size() && line[at + 1] == '"') {
        text += line[at++];
      } else {
        break;
      }
    }
    fields.push_back(text);
    line.remove_prefix(at + 1);
    if (line.empty()) return true;
    if (line.front() != delimiter) return false;
    line.remove_prefix(1);
  }
}

// Where each column of the schema stands in the lines of a file.
struct Layout {
  std::size_t columns = 0;
  std::vector<std::size_t> place;  // by column of the schema
};

Result<Layout> layout_of(const LineReader& reader, const Schema& schema,
                         const std::vector<std::string_view>& header) {
  Layout layout{header.size(), {}};
  for (const ColumnSpec& column : schema.columns) {
    const auto at = std::find(header.begin(), header.end(), column.name);
    if (at == header.end()) {
      std::string has;
      for (const auto name : header)
        has += (has.empty() ? "" : ", ") + std::string(name.substr(0, 40));
      return invalid(reader.place() + ": no column '" + column.name +
                     "'; it has: " + has.substr(0, 200));
    }
    layout.place.push_back(at - header.begin());
  }
  return layout;
}

Layout layout_without_header(const Schema& schema) {
  Layout layout{schema.columns.size(), {}};
  for (std::size_t i = 0; i < layout.columns; ++i) layout.place.push_back(i);
  return layout;
}

// The text of a JSON number or string; nullptr data when it is neither.
std::string_view text_of(const boost::json::value& value, std::array<char, 32>& scratch) {
  char* const begin = scratch.data();
  char* const end = begin + scratch.size();
  const auto written = [begin](std::to_chars_result r) {
    return std::string_view(begin, r.ptr - begin);
  };
  if (value.is_string()) return value.get_string();
  if (value.is_int64()) return written(std::to_chars(begin, end, value.get_int64()));
  if (value.is_uint64()) return written(std::to_chars(begin, end, value.get_uint64()));
  if (value.is_double()) return written(std::to_chars(begin, end, value.get_double()));
  if (value.is_null()) return {begin, 0};
  return {};
}

}  // namespace

Status read_delimited(LineReader& reader, const Schema& schema, bool quotes, const ItemNames* names,
                      RecordKind kind, Intake& intake) {
  RowParser parser(schema);
  std::vector<std::string_view> all, fields(schema.columns.size());
  std::vector<std::string> scratch;
  const auto split_line = [&](std::string_view line) {
    if (quotes && line.find('"') != std::string_view::npos) {
      return split_quoted(line, schema.delimiter[0], all, scratch);
    }
    split(line, schema.delimiter, all);
    return true;
  };
  std::string_view line;
  Layout layout = layout_without_header(schema);
  if (schema.header && reader.next(line)) {
    if (line.starts_with("\xef\xbb\xbf")) line.remove_prefix(3);  // a byte order mark
    if (!split_line(line)) return invalid(reader.place() + ": a quote is not closed");
    ASSIGN_OR_RETURN(layout, layout_of(reader, schema, all));
  }
  Record record;
  while (reader.next(line)) {
    if (line.empty()) continue;
    if (!split_line(line)) {
      intake.refuse(reader, "a quote is not closed", line);
    } else if (all.size() != layout.columns) {
      intake.refuse(reader, "not " + std::to_string(layout.columns) + " columns", line);
    } else {
      for (std::size_t i = 0; i < fields.size(); ++i) fields[i] = all[layout.place[i]];
      if (parser.parse(fields, record)) {
        accept(record, names, kind, intake);
      } else {
        intake.refuse(reader, parser.reason(), parser.detail());
      }
    }
  }
  return reader.status();
}

Status read_jsonl(LineReader& reader, const Schema& schema, const ItemNames* names, RecordKind kind,
                  Intake& intake) {
  RowParser parser(schema);
  std::vector<std::string_view> fields(schema.columns.size());
  std::vector<std::array<char, 32>> scratch(schema.columns.size());
  Record record;
  for (std::string_view line; reader.next(line);) {
    if (line.empty()) continue;
    boost::system::error_code error;
    boost::json::monotonic_resource memory;
    const boost::json::value root = boost::json::parse({line.data(), line.size()}, error, &memory);
    if (error || !root.is_object()) {
      intake.refuse(reader, "not a JSON object", line);
      continue;
    }
    for (std::size_t i = 0; i < fields.size(); ++i) {
      const boost::json::value* value = root.get_object().if_contains(schema.columns[i].name);
      fields[i] = value == nullptr ? std::string_view() : text_of(*value, scratch[i]);
    }
    if (parser.parse(fields, record)) {
      accept(record, names, kind, intake);
    } else {
      intake.refuse(reader, parser.reason(), parser.detail());
    }
  }
  return reader.status();
}

Status read_sequences(LineReader& reader, const ItemNames* names, RecordKind kind, Intake& intake) {
  Record record;
  for (std::string_view line; reader.next(line);) {
    const std::string_view user = take_word(line);
    if (user.empty()) continue;
    if (!parse_key(user, record.user)) {
      intake.refuse(reader, "user is not a whole number", user);
      continue;
    }
    std::string_view item = take_word(line);
    if (item.empty()) intake.refuse(reader, "a user without items", user);
    for (; !item.empty(); item = take_word(line)) {
      if (parse_key(item, record.item)) {
        accept(record, names, kind, intake);
      } else {
        intake.refuse(reader, "item is not a whole number", item);
      }
    }
  }
  return reader.status();
}

Status read_pairs(LineReader& reader, const ItemNames* names, RecordKind kind, Intake& intake) {
  Record record;
  for (std::string_view line; reader.next(line);) {
    const std::string_view whole = line;
    const std::string_view user = take_word(line), item = take_word(line);
    if (user.empty()) continue;
    if (item.empty()) {
      intake.refuse(reader, "not 2 columns", whole);
    } else if (!parse_key(user, record.user)) {
      intake.refuse(reader, "user is not a whole number", user);
    } else if (!parse_key(item, record.item)) {
      intake.refuse(reader, "item is not a whole number", item);
    } else {
      accept(record, names, kind, intake);
    }
  }
  return reader.status();
}

Status read_sessions(LineReader& reader, const ItemNames* names, bool is_test,
                     std::uint64_t& sessions, Intake& intake) {
  Record record;
  for (std::string_view line; reader.next(line);) {
    if (line.empty()) continue;
    record.user = ++sessions;
    const std::size_t tab = is_test ? line.find('\t') : std::string_view::npos;
    if (is_test && tab == std::string_view::npos) {
      intake.refuse(reader, "no tab before the target", line);
      continue;
    }
    std::string_view target = is_test ? line.substr(tab + 1) : std::string_view();
    line = line.substr(0, tab);
    const auto read_items = [&](std::string_view items, RecordKind kind) {
      for (auto item = take_word(items); !item.empty(); item = take_word(items)) {
        if (parse_key(item, record.item)) {
          accept(record, names, kind, intake);
        } else {
          intake.refuse(reader, "item is not a whole number", item);
        }
      }
    };
    read_items(line, is_test ? RecordKind::kTestContext : RecordKind::kOpen);
    read_items(target, RecordKind::kTestTarget);
  }
  return reader.status();
}

}  // namespace meander::data
