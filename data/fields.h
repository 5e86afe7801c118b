// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
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

// Eight digits as a number, the first of them in the lowest byte.
// Source: D. Lemire, "Quickly parsing eight digits" (2018).
inline std::uint64_t value_of_digits(std::uint64_t digits) {
  digits = (digits & 0x0f0f0f0f0f0f0f0full) * 2561 >> 8;
  digits = (digits & 0x00ff00ff00ff00ffull) * 6553601 >> 16;
  return (digits & 0x0000ffff0000ffffull) * 42949672960001ull >> 32;
}
inline bool are_digits(std::uint64_t bytes) {
  return ((bytes & 0xf0f0f0f0f0f0f0f0ull) |
          ((bytes + 0x0606060606060606ull) & 0xf0f0f0f0f0f0f0f0ull) >> 4) == 0x3333333333333333ull;
}
// The last n <= 8 of the eight bytes before `end`, the others made '0'.
inline std::uint64_t digits_before(const char* end, std::size_t n) {
  std::uint64_t bytes;
  std::memcpy(&bytes, end - 8, 8);
  const std::uint64_t others = n == 8 ? 0 : ~std::uint64_t{0} >> 8 * n;
  return (bytes & ~others) | (0x3030303030303030ull & others);
}
// 1 to 16 digits and nothing else. 16 bytes before the end of `text` may be read (kLinePadding).
// False otherwise: it may be a number all the same, and parse_key() knows.
inline bool parse_digits(std::string_view text, std::uint64_t& value) {
  const char* end = text.data() + text.size();
  if (text.size() - 1 < 8) {
    const std::uint64_t digits = digits_before(end, text.size());
    value = value_of_digits(digits);
    return are_digits(digits);
  }
  if (text.size() - 1 >= 16) return false;
  const std::uint64_t high = digits_before(end - 8, text.size() - 8), low = digits_before(end, 8);
  value = value_of_digits(high) * 100'000'000 + value_of_digits(low);
  return are_digits(high) && are_digits(low);
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
