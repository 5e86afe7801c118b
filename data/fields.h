// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <string_view>
#include <vector>

namespace meander::data {

// Splits a line at each `delimiter` (not empty). The views point into `line`.
inline void split(std::string_view line, std::string_view delimiter,
                  std::vector<std::string_view>& fields) {
  fields.clear();
  for (;;) {
    const std::size_t at = delimiter.size() == 1 ? line.find(delimiter[0]) : line.find(delimiter);
    fields.push_back(line.substr(0, at));
    if (at == std::string_view::npos) return;
    line.remove_prefix(at + delimiter.size());
  }
}

// Takes the next word (between blanks and tabs) off the front of `line`; empty when there is none.
inline std::string_view take_word(std::string_view& line) {
  const std::size_t begin = line.find_first_not_of(" \t");
  if (begin == std::string_view::npos) {
    line = {};
    return {};
  }
  const std::size_t end = std::min(line.find_first_of(" \t", begin), line.size());
  const std::string_view word = line.substr(begin, end - begin);
  line.remove_prefix(end);
  return word;
}

// A whole number, negative ones as two's complement. False unless all of `text` is one.
inline bool parse_key(std::string_view text, std::uint64_t& key) {
  const char* end = text.data() + text.size();
  if (!text.empty() && text.front() == '-') {
    std::int64_t value = 0;
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    key = static_cast<std::uint64_t>(value);
    return error == std::errc() && stop == end;
  }
  const auto [stop, error] = std::from_chars(text.data(), end, key);
  return error == std::errc() && stop == end;
}
inline bool parse_integer(std::string_view text, std::int64_t& value) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stop == end;
}
// A finite number.
inline bool parse_number(std::string_view text, double& value) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stop == end && std::isfinite(value);
}

}  // namespace meander::data
