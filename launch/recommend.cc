// SPDX-License-Identifier: Apache-2.0
#include "launch/recommend.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <cmath>
#include <ctime>
#include <optional>

#include "common/executor.h"
#include "launch/text.h"

namespace meander::launch {
namespace {

// A log without categories gives each item category 0; with them, 0 is one like any other.
bool has_categories(const serve::Artefact& artefact) {
  return std::ranges::any_of(artefact.items(), [](const artefact::Item& item) {
    return item.category != 0 || !item.category_name.empty();
  });
}

// Without a title or a name of its category, an item has only its numbers to be called by.
std::string name_of(const artefact::Item* item, std::uint64_t id,
                    std::optional<std::uint64_t> category) {
  std::string name = item && !item->title.empty() ? item->title : "item " + std::to_string(id);
  if (item && !item->category_name.empty()) return name + " (" + item->category_name + ")";
  return category ? name + " (category " + std::to_string(*category) + ")" : name;
}

std::optional<std::uint64_t> known(bool with_category, std::uint64_t category) {
  return with_category ? std::optional(category) : std::nullopt;
}

// "2017-10-12 23:59 "; nothing without a time.
std::string time_text(std::int64_t ms) {
  if (ms == 0) return "";
  const std::time_t seconds = static_cast<std::time_t>(ms / 1000);
  std::tm utc{};
  char text[32];
  if (gmtime_r(&seconds, &utc) == nullptr) return "";
  return std::string(text, std::strftime(text, sizeof text, "%Y-%m-%d %H:%M  ", &utc));
}

boost::json::object item_json(const artefact::Item* item, std::uint64_t id,
                              std::uint64_t category) {
  boost::json::object object = {{"item", id}, {"category", category}};
  if (item && !item->title.empty()) object["title"] = item->title;
  if (item && !item->category_name.empty()) object["category_name"] = item->category_name;
  return object;
}

void add_history(const serve::Artefact& artefact, const artefact::UserHistory& history,
                 std::size_t shown, bool with_category, Answer& answer) {
  const std::size_t count = history.item.size();
  shown = std::min(shown, count);
  answer.text = "user " + std::to_string(history.user) + ", " + grouped(count) +
                (count == 1 ? " behaviour" : " behaviours") +
                (shown < count ? ", the newest " + std::to_string(shown) + ":\n" : ":\n");
  boost::json::array behaviours;
  for (std::size_t i = count - shown; i < count; ++i) {
    const artefact::Item* item = artefact.find_item(history.item[i]);
    behaviours.push_back(item_json(item, history.item[i], history.category[i]));
    if (history.time_ms[i] != 0) behaviours.back().as_object()["time_ms"] = history.time_ms[i];
    answer.text += "    " + time_text(history.time_ms[i]) +
                   name_of(item, history.item[i], known(with_category, history.category[i])) + "\n";
  }
  answer.result["history"] = std::move(behaviours);
}

}  // namespace

Result<Answer> recommend(const serve::Artefact& artefact, serve::Ranker& ranker, std::uint64_t user,
                         const serve::RankOptions& options, std::size_t history_shown) {
  InlineExecutor executor;
  ASSIGN_OR_RETURN(const auto ranked, ranker.rank(user, options, executor));
  Answer answer;
  const bool with_category = has_categories(artefact);
  add_history(artefact, *artefact.history(user), history_shown, with_category, answer);
  answer.text += "recommended, best of " + grouped(ranker.scored()) + " items:\n";
  boost::json::array items;
  std::size_t place = 0;
  for (const serve::Recommendation& r : ranked) {
    const artefact::Item* item = artefact.find_item(r.item);
    items.push_back(item_json(item, r.item, item->category));
    items.back().as_object()["score"] = r.score;
    const bool has_second = !std::isnan(r.second_score);
    if (has_second) items.back().as_object()["second_score"] = r.second_score;
    const std::string number = std::to_string(++place);
    answer.text += std::string(number.size() < 2 ? " " : "") + number + ". " + fixed(r.score, 4) +
                   (has_second ? "  " + fixed(r.second_score, 4) : "") + "  " +
                   name_of(item, r.item, known(with_category, item->category)) + "\n";
  }
  answer.result["user"] = user;
  answer.result["items"] = std::move(items);
  answer.result["candidates"] = ranker.scored();
  return answer;
}

}  // namespace meander::launch
