// SPDX-License-Identifier: Apache-2.0
#include "data/test_negatives.h"

#include <algorithm>

#include "common/rng.h"
#include "data/fields.h"
#include "data/line_reader.h"

namespace meander::data {
namespace {

std::uint64_t key_of(std::uint64_t user, std::uint64_t item, std::int64_t time_ms) {
  return hash64(user, item, static_cast<std::uint64_t>(time_ms));
}

}  // namespace

void ListedNegatives::add(std::uint64_t user, std::uint64_t item, std::int64_t time_ms) {
  const auto target = static_cast<std::uint32_t>(items_.size() / per_target_ - 1);
  targets_[key_of(user, item, time_ms)].push_back(target);
}

// kInvalid without a place: read() adds it.
Status ListedNegatives::parse(Form form, std::string_view line) {
  std::uint64_t click = 0, user = 0, item = 0, negative = 0;
  std::int64_t time_ms = 0;
  const auto key = [&line](std::uint64_t& value) { return parse_key(take_word(line), value); };
  if (form == Form::kClick) {
    if (!key(click) || !key(user) || !parse_integer(take_word(line), time_ms)) {
      return invalid("expected: click user ts_ms target negative");
    }
  } else if (form == Form::kUserTarget) {
    if (!key(user)) return invalid("expected: user target negative");
  } else {
    const std::size_t comma = line.find(','), close = line.find(')');
    if (!line.starts_with('(') || close == std::string_view::npos || comma > close ||
        !parse_key(line.substr(1, comma - 1), user) ||
        !parse_key(line.substr(comma + 1, close - comma - 1), item)) {
      return invalid("expected: (user,target) negative ...");
    }
    line.remove_prefix(close + 1);
  }
  const std::size_t before = items_.size();
  if (form != Form::kNcf) {
    if (!key(item) || !key(negative)) return invalid("expected a target and a negative");
    items_.push_back(negative);
  } else {
    for (auto word = take_word(line); !word.empty(); word = take_word(line)) {
      if (!parse_key(word, negative)) return invalid("a negative is not a whole number");
      items_.push_back(negative);
    }
  }
  const auto count = static_cast<std::uint32_t>(items_.size() - before);
  if (per_target_ == 0) per_target_ = count;
  if (count == 0 || count != per_target_) {
    return invalid("expected " + std::to_string(per_target_) + " negatives");
  }
  add(user, item, time_ms);
  return {};
}

Result<ListedNegatives> ListedNegatives::read(Storage& storage, const std::string& path) {
  ASSIGN_OR_RETURN(LineReader reader, LineReader::open(storage, path));
  ListedNegatives listed;
  Form form = Form::kNcf;
  for (std::string_view line; reader.next(line);) {
    if (line.starts_with("# user target negative")) {
      form = Form::kUserTarget;
    } else if (line.starts_with("# click user ts_ms target negative")) {
      form = Form::kClick;
      listed.has_time_ = true;
    } else if (!line.empty() && line.front() != '#') {
      RETURN_IF_ERROR(listed.parse(form, line).context(reader.place()));
    }
  }
  RETURN_IF_ERROR(reader.status());
  if (listed.targets_.empty()) return invalid(path + ": lists no negatives");
  for (auto& [key, targets] : listed.targets_) std::reverse(targets.begin(), targets.end());
  return listed;
}

const std::uint64_t* ListedNegatives::take(std::uint64_t user, std::uint64_t item,
                                           std::int64_t time_ms) {
  const auto found = targets_.find(key_of(user, item, has_time_ ? time_ms : 0));
  if (found == targets_.end() || found->second.empty()) return nullptr;
  const std::uint32_t target = found->second.back();
  found->second.pop_back();
  return items_.data() + std::size_t{target} * per_target_;
}

}  // namespace meander::data
