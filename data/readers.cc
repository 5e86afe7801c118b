// SPDX-License-Identifier: Apache-2.0
#include "data/readers.h"

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <charconv>
#include <string>
#include <vector>

#include "data/fields.h"
#include "data/marks.h"
#include "data/row_parser.h"

namespace meander::data {
namespace {

void accept(Record& record, const ItemNames* names, RecordKind kind, Intake& intake) {
  record.kind = kind;
  if (names != nullptr) record.category = names->category_of(record.item);
  intake.accept(record);
}

// Splits a line that may hold quoted fields, whose text goes to `scratch`, padded like a line.
// False when a quote is not closed.
bool split_quoted(std::string_view line, char delimiter, std::vector<std::string_view>& fields,
                  std::string& scratch) {
  fields.clear();
  scratch.clear();
  scratch.reserve(kLinePadding + line.size());  // the views below must stay
  scratch.append(kLinePadding, ' ');
  for (;;) {
    if (line.empty() || line.front() != '"') {
      const std::size_t at = line.find(delimiter);
      fields.push_back(line.substr(0, at));
      if (at == std::string_view::npos) return true;
      line.remove_prefix(at + 1);
      continue;
    }
    const std::size_t begin = scratch.size();
    std::size_t at = 1;
    for (;; ++at) {
      if (at >= line.size()) return false;
      if (line[at] != '"') {
        scratch += line[at];
      } else if (at + 1 < line.size() && line[at + 1] == '"') {
        scratch += line[at++];
      } else {
        break;
      }
    }
    fields.push_back(std::string_view(scratch).substr(begin));
    line.remove_prefix(at + 1);
    if (line.empty()) return true;
    if (line.front() != delimiter) return false;
    line.remove_prefix(1);
  }
}

std::string_view without_return(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
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

namespace {

// The rows of a delimited file, one by one, as the fields of a schema's columns.
class Rows {
 public:
  Rows(LineReader& reader, const Schema& schema, bool quotes)
      : reader_(reader), schema_(schema), quotes_(quotes), fields_(schema.columns.size()) {}

  Status read_header() {
    layout_ = layout_without_header(schema_);
    std::string_view line;
    if (!schema_.header || !reader_.next(line)) return {};
    if (line.starts_with("\xef\xbb\xbf")) line.remove_prefix(3);  // a byte order mark
    if (!split_line(line)) return invalid(reader_.place() + ": a quote is not closed");
    ASSIGN_OR_RETURN(layout_, layout_of(reader_, schema_, all_));
    return {};
  }

  // Hands each row's fields to `take`, and each that has none to `refuse(reason, line)`.
  template <class Take, class Refuse>
  void read(Take take, Refuse refuse) {
    if (schema_.delimiter.size() == 1) {
      read_marked(take, refuse);
    } else {
      for (std::string_view line; reader_.next(line);) read_line(line, take, refuse);
    }
  }

 private:
  template <class Take, class Refuse>
  void read_line(std::string_view line, Take& take, Refuse& refuse) {
    if (line.empty()) return;
    if (!split_line(line)) {
      refuse("a quote is not closed", line);
    } else if (all_.size() != layout_.columns) {
      refuse("not " + std::to_string(layout_.columns) + " columns", line);
    } else {
      for (std::size_t i = 0; i < fields_.size(); ++i) fields_[i] = all_[layout_.place[i]];
      take(fields_);
    }
  }

  // Marks of many lines at once; a row that they do not show to be plain is read as a line.
  template <class Take, class Refuse>
  void read_marked(Take& take, Refuse& refuse) {
    const MarkBytes bytes{schema_.delimiter[0], quotes_ ? '"' : '\n'};
    const FindMarks find = find_marks();
    for (std::string_view lines; reader_.next_lines(lines);) {
      const std::size_t needed = 1 + lines.size() + kMarksSlack;
      if (marks_.size() < needed) marks_.resize(needed);
      marks_[0] = ~std::uint32_t{0};  // the first field begins behind this
      const std::size_t end = 1 + find(lines.data(), lines.size(), bytes, &marks_[1]);
      for (std::size_t at = 1; at < end;) {
        reader_.count_line();
        if (take_plain(lines, &marks_[at], end - at)) {
          at += layout_.columns;
          take(fields_);
          continue;
        }
        const std::size_t begin = marks_[at - 1] + 1;
        while (lines[marks_[at]] != '\n') ++at;
        read_line(without_return(lines.substr(begin, marks_[at++] - begin)), take, refuse);
      }
    }
  }

  // The fields of the row whose first mark is marks[0] (marks[-1] is that before it), if it has as
  // many as it should, no quotes, and is not empty.
  bool take_plain(std::string_view lines, const std::uint32_t* marks, std::size_t left) {
    const std::size_t columns = layout_.columns;
    if (left < columns || lines[marks[columns - 1]] != '\n') return false;
    bool is_plain = true;
    for (std::size_t i = 0; i + 1 < columns; ++i) {
      is_plain &= lines[marks[i]] == schema_.delimiter[0];
    }
    const std::uint32_t begin = marks[-1] + 1, end = marks[columns - 1];
    const bool has_return = end > begin && lines[end - 1] == '\r';
    if (!is_plain || end - has_return == begin) return false;
    for (std::size_t i = 0; i < fields_.size(); ++i) {
      const std::size_t place = layout_.place[i];
      const std::uint32_t from = marks[std::ptrdiff_t(place) - 1] + 1;  // 0 behind the mark ~0
      const std::uint32_t to = marks[place] - (has_return && place + 1 == columns);
      fields_[i] = {lines.data() + from, to - from};
    }
    return true;
  }

  bool split_line(std::string_view line) {
    if (quotes_ && line.find('"') != std::string_view::npos) {
      return split_quoted(line, schema_.delimiter[0], all_, scratch_);
    }
    split(line, schema_.delimiter, all_);
    return true;
  }

  LineReader& reader_;
  const Schema& schema_;
  const bool quotes_;
  Layout layout_;
  std::vector<std::uint32_t> marks_;
  std::vector<std::string_view> all_, fields_;  // of a line; of the schema
  std::string scratch_;
};

}  // namespace

Status read_delimited(LineReader& reader, const Schema& schema, bool quotes, const ItemNames* names,
                      RecordKind kind, Intake& intake) {
  Rows rows(reader, schema, quotes);
  RETURN_IF_ERROR(rows.read_header());
  RowParser parser(schema, true);
  Record record;
  rows.read(
      [&](const std::vector<std::string_view>& fields) {
        if (parser.parse(fields, record)) {
          accept(record, names, kind, intake);
        } else {
          intake.refuse(reader, parser.reason(), parser.detail());
        }
      },
      [&](std::string_view reason, std::string_view line) { intake.refuse(reader, reason, line); });
  return reader.status();
}

Status read_jsonl(LineReader& reader, const Schema& schema, const ItemNames* names, RecordKind kind,
                  Intake& intake) {
  RowParser parser(schema, false);
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
