// SPDX-License-Identifier: Apache-2.0
#include "data/negatives.h"

#include <array>
#include <charconv>
#include <string>
#include <vector>

namespace meander::data {
namespace {

constexpr std::array<std::pair<std::string_view, NegativeKind>, 4> kKinds{
    {{"popular", NegativeKind::kPopular},
     {"uniform", NegativeKind::kUniform},
     {"recent", NegativeKind::kRecent},
     {"none", NegativeKind::kNone}}};
constexpr std::array<std::pair<std::string_view, Exclude>, 3> kExcludes{
    {{"history", Exclude::kHistory}, {"user", Exclude::kUser}, {"known", Exclude::kKnown}}};
constexpr std::uint32_t kCountMax = 10'000;

template <class Table>
Status look_up(const Table& table, std::string_view word, auto& value) {
  std::string known;
  for (const auto& [name, which] : table) {
    if (name == word) {
      value = which;
      return {};
    }
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  return invalid("unknown '" + std::string(word) + "' in negatives; known: " + known);
}

}  // namespace

Result<NegativesSpec> parse_negatives(std::string_view text) {
  std::vector<std::string_view> words;
  for (std::size_t at = 0; at != std::string_view::npos;) {
    const std::size_t colon = text.find(':', at);
    words.push_back(text.substr(at, colon - at));
    at = colon == std::string_view::npos ? colon : colon + 1;
  }
  if (words.size() > 3) {
    return invalid("negatives '" + std::string(text) + "': write kind:count:exclude");
  }
  NegativesSpec spec;
  RETURN_IF_ERROR(look_up(kKinds, words[0], spec.kind));
  if (words.size() > 1) {
    const char* const end = words[1].data() + words[1].size();
    const auto [stop, error] = std::from_chars(words[1].data(), end, spec.count);
    if (error != std::errc() || stop != end || spec.count == 0 || spec.count > kCountMax) {
      return invalid("negatives '" + std::string(text) + "': the count must be from 1 to " +
                     std::to_string(kCountMax));
    }
  }
  if (words.size() > 2) RETURN_IF_ERROR(look_up(kExcludes, words[2], spec.exclude));
  return spec;
}

}  // namespace meander::data
