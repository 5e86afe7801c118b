// SPDX-License-Identifier: Apache-2.0
#include "data/schema.h"

#include <array>
#include <charconv>
#include <chrono>
#include <optional>
#include <set>
#include <utility>

#include "common/rng.h"

namespace meander::data {
namespace {

template <class E, std::size_t N>
using Words = std::array<std::pair<std::string_view, E>, N>;

constexpr Words<ColumnRole, 9> kRoles{{{"user", ColumnRole::kUser},
                                       {"item", ColumnRole::kItem},
                                       {"category", ColumnRole::kCategory},
                                       {"time", ColumnRole::kTime},
                                       {"numeric", ColumnRole::kNumeric},
                                       {"context", ColumnRole::kContext},
                                       {"label", ColumnRole::kLabel},
                                       {"session", ColumnRole::kSession},
                                       {"ignore", ColumnRole::kIgnore}}};
constexpr Words<ColumnType, 3> kTypes{
    {{"int", ColumnType::kInt}, {"string", ColumnType::kString}, {"float", ColumnType::kFloat}}};
constexpr Words<TimeUnit, 4> kUnits{{{"ms", TimeUnit::kMilliseconds},
                                     {"s", TimeUnit::kSeconds},
                                     {"us", TimeUnit::kMicroseconds},
                                     {"iso", TimeUnit::kIso}}};

template <class E, std::size_t N>
Result<E> parse_word(const Words<E, N>& words, std::string_view what, std::string_view word) {
  std::string known;
  for (const auto& [name, value] : words) {
    if (name == word) return value;
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  return invalid("unknown " + std::string(what) + " '" + std::string(word) + "'; known: " + known);
}

// `digits` decimal digits at text[at...].
std::optional<int> digits_at(std::string_view text, std::size_t at, std::size_t digits) {
  if (text.size() < at + digits) return std::nullopt;
  int value = 0;
  for (std::size_t i = at; i < at + digits; ++i) {
    if (text[i] < '0' || text[i] > '9') return std::nullopt;
    value = value * 10 + (text[i] - '0');
  }
  return value;
}

std::optional<std::int64_t> parse_day_ms(std::string_view text) {
  const auto year = digits_at(text, 0, 4), month = digits_at(text, 5, 2),
             day = digits_at(text, 8, 2);
  if (!year || !month || !day || text[4] != '-' || text[7] != '-') return std::nullopt;
  const std::chrono::year_month_day date{std::chrono::year(*year),
                                         std::chrono::month(static_cast<unsigned>(*month)),
                                         std::chrono::day(static_cast<unsigned>(*day))};
  if (!date.ok()) return std::nullopt;
  return std::chrono::sys_days(date).time_since_epoch().count() * std::int64_t{86'400'000};
}

// 06:00:00 or 06:00:00.123.
std::optional<std::int64_t> parse_clock_ms(std::string_view text) {
  const auto h = digits_at(text, 0, 2), m = digits_at(text, 3, 2), s = digits_at(text, 6, 2);
  if (!h || !m || !s || text[2] != ':' || text[5] != ':') return std::nullopt;
  if (*h > 23 || *m > 59 || *s > 59) return std::nullopt;
  std::int64_t ms = (*h * 3600 + *m * 60 + *s) * std::int64_t{1000};
  if (text.size() == 8) return ms;
  if (text[8] != '.' || text.size() == 9) return std::nullopt;
  int unit = 100;
  for (std::size_t i = 9; i < text.size(); ++i, unit /= 10) {
    if (text[i] < '0' || text[i] > '9') return std::nullopt;
    ms += (text[i] - '0') * unit;
  }
  return ms;
}

std::optional<std::int64_t> parse_iso_ms(std::string_view text) {
  if (text.size() < 10) return std::nullopt;
  const auto day = parse_day_ms(text.substr(0, 10));
  if (!day || text.size() == 10) return day;
  if (text[10] != 'T' && text[10] != ' ') return std::nullopt;
  text.remove_prefix(11);
  if (!text.empty() && text.back() == 'Z') text.remove_suffix(1);
  const auto clock = parse_clock_ms(text);
  if (!clock) return std::nullopt;
  return *day + *clock;
}

}  // namespace

Result<ColumnRole> parse_role(std::string_view word) { return parse_word(kRoles, "role", word); }
Result<ColumnType> parse_type(std::string_view word) { return parse_word(kTypes, "type", word); }
Result<TimeUnit> parse_time_unit(std::string_view word) {
  return parse_word(kUnits, "time unit", word);
}

Status check_schema(const Schema& schema) {
  int users = 0, items = 0, categories = 0, times = 0, labels = 0, sessions = 0;
  std::set<std::string_view> names;
  for (const ColumnSpec& column : schema.columns) {
    if (column.name.empty()) return invalid("schema: a column has no name");
    if (!names.insert(column.name).second) {
      return invalid("schema: column '" + column.name + "' is named twice");
    }
    const bool is_id = column.role == ColumnRole::kUser || column.role == ColumnRole::kItem ||
                       column.role == ColumnRole::kCategory ||
                       column.role == ColumnRole::kContext || column.role == ColumnRole::kSession;
    if (is_id && column.type == ColumnType::kFloat) {
      return invalid("schema: column '" + column.name + "' is an id: its type is int or string");
    }
    users += column.role == ColumnRole::kUser;
    items += column.role == ColumnRole::kItem;
    categories += column.role == ColumnRole::kCategory;
    times += column.role == ColumnRole::kTime;
    labels += column.role == ColumnRole::kLabel;
    sessions += column.role == ColumnRole::kSession;
  }
  if (users != 1) return invalid("schema: needs one column with role user");
  if (items != 1) return invalid("schema: needs one column with role item");
  if (categories > 1) return invalid("schema: more than one column with role category");
  if (times > 1) return invalid("schema: more than one column with role time");
  if (labels > 1) return invalid("schema: more than one column with role label");
  if (sessions > 1) return invalid("schema: more than one column with role session");
  return {};
}

Result<std::int64_t> parse_time_ms(std::string_view text) {
  if (const auto iso = parse_iso_ms(text)) return *iso;
  std::int64_t ms = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), ms);
  if (error == std::errc() && end == text.data() + text.size()) return ms;
  std::string message("'");
  message.append(text);
  return invalid(message +
                 "' is not a time; write 2017-10-08, 2017-10-08T06:00:00 (UTC) or milliseconds");
}

// FNV-1a over the bytes, then a finaliser: FNV alone mixes its last bytes weakly.
std::uint64_t hash_id(std::string_view id) {
  std::uint64_t h = 0xcbf29ce484222325ull;
  for (const char c : id) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return mix64(h);
}

}  // namespace meander::data
