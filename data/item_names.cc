// SPDX-License-Identifier: Apache-2.0
#include "data/item_names.h"

#include <algorithm>
#include <boost/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "data/fields.h"
#include "data/line_reader.h"
#include "data/schema.h"

namespace meander::data {
namespace {

bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t more = lead < 0x80 ? 0 : lead >> 5 == 6 ? 1 : lead >> 4 == 14 ? 2 : 3;
    if (more == 3 && lead >> 3 != 30) return false;
    if (i + more >= text.size()) return false;
    for (std::size_t k = 1; k <= more; ++k) {
      if (static_cast<unsigned char>(text[i + k]) >> 6 != 2) return false;
    }
    i += more + 1;
  }
  return true;
}

std::string to_utf8(std::string_view text) {
  if (is_utf8(text)) return std::string(text);
  std::string out;  // latin-1: each byte is its code point
  for (const char c : text) {
    const auto code = static_cast<unsigned char>(c);
    if (code < 0x80) {
      out += c;
    } else {
      out += static_cast<char>(0xc0 | code >> 6);
      out += static_cast<char>(0x80 | (code & 0x3f));
    }
  }
  return out;
}

struct NamedItem {
  std::uint64_t item;
  std::string title, category;
};

// Numbers the categories in the order of their names.
ItemNames number_categories(std::vector<NamedItem> rows) {
  std::map<std::string, std::uint64_t> numbers;
  for (const NamedItem& row : rows) numbers.emplace(row.category, 0);
  ItemNames names;
  std::uint64_t next = 0;
  for (auto& [name, number] : numbers) {
    number = next++;
    names.categories.emplace(number, name);
  }
  for (NamedItem& row : rows) {
    names.items[row.item] = {numbers.at(row.category), std::move(row.title)};
  }
  return names;
}

std::string_view first_of(std::string_view list, char delimiter) {
  return list.substr(0, list.find(delimiter));
}

std::uint64_t category_of(const boost::json::value& attribute) {
  if (attribute.is_int64()) return static_cast<std::uint64_t>(attribute.get_int64());
  if (attribute.is_uint64()) return attribute.get_uint64();
  if (attribute.is_string()) return hash_id(std::string_view(attribute.get_string()));
  return unknown_category();
}

}  // namespace

std::uint64_t unknown_category() { return hash_id(""); }

std::uint64_t ItemNames::category_of(std::uint64_t item) const {
  const auto found = items.find(item);
  return found == items.end() ? unknown_category() : found->second.category;
}

Result<ItemNames> read_movies_dat(Storage& storage, const std::string& path) {
  ASSIGN_OR_RETURN(LineReader reader, LineReader::open(storage, path));
  std::vector<NamedItem> rows;
  std::vector<std::string_view> fields;
  for (std::string_view line; reader.next(line);) {
    split(line, "::", fields);
    std::uint64_t item = 0;
    if (fields.size() != 3 || !parse_key(fields[0], item)) {
      return invalid(reader.place() + ": expected id::title::genre|genre");
    }
    rows.push_back({item, to_utf8(fields[1]), to_utf8(first_of(fields[2], '|'))});
  }
  RETURN_IF_ERROR(reader.status());
  return number_categories(std::move(rows));
}

Result<ItemNames> read_recbole_items(Storage& storage, const std::string& path) {
  ASSIGN_OR_RETURN(LineReader reader, LineReader::open(storage, path));
  std::string_view line;
  if (!reader.next(line)) return invalid(path + ": empty");
  std::vector<std::string_view> fields;
  split(line, "\t", fields);
  const auto column = [&fields](std::string_view name) -> std::optional<std::size_t> {
    for (std::size_t i = 0; i < fields.size(); ++i) {
      if (first_of(fields[i], ':') == name) return i;
    }
    return std::nullopt;
  };
  const auto item_at = column("item_id"), title_at = column("movie_title"),
             class_at = column("class");
  if (!item_at || !title_at || !class_at) {
    return invalid(reader.place() + ": expected columns item_id, movie_title and class");
  }
  const std::size_t columns = fields.size();
  std::vector<NamedItem> rows;
  while (reader.next(line)) {
    split(line, "\t", fields);
    std::uint64_t item = 0;
    if (fields.size() != columns || !parse_key(fields[*item_at], item)) {
      return invalid(reader.place() + ": expected " + std::to_string(columns) +
                     " columns and a number");
    }
    rows.push_back({item, to_utf8(fields[*title_at]), to_utf8(first_of(fields[*class_at], ' '))});
  }
  RETURN_IF_ERROR(reader.status());
  return number_categories(std::move(rows));
}

Result<ItemNames> read_attributes(Storage& storage, const std::string& path) {
  ASSIGN_OR_RETURN(const Buffer bytes, storage.read(path));
  boost::system::error_code error;
  const boost::json::value root =
      boost::json::parse({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, error);
  if (error || !root.is_object())
    return invalid(path + ": expected JSON {\"item\": [attribute, ...]}");
  ItemNames names;
  for (const auto& [key, value] : root.get_object()) {
    std::uint64_t item = 0;
    if (!parse_key(std::string_view(key), item)) item = hash_id(std::string_view(key));
    const bool known = value.is_array() && !value.get_array().empty();
    names.items[item].category = known ? category_of(value.get_array()[0]) : unknown_category();
  }
  return names;
}

}  // namespace meander::data
