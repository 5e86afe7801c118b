// SPDX-License-Identifier: Apache-2.0
#include "serve/ranker.h"

#include <algorithm>
#include <cmath>
#include <unordered_set>
#include <utility>

namespace meander::serve {
namespace {

using artefact::Item;
using artefact::Samples;
using artefact::UserHistory;

// Candidates that share one pass over the history; bounds the working memory.
constexpr std::size_t kChunk = 512;

float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }

}  // namespace

Ranker::Ranker(std::shared_ptr<const Artefact> artefact)
    : artefact_(std::move(artefact)), scorer_(artefact_) {}

Result<std::unique_ptr<Ranker>> Ranker::create(std::shared_ptr<const Artefact> artefact) {
  const artefact::Description& d = artefact->description();
  for (std::size_t s = 0; s < d.slot_sources.size(); ++s) {
    if (d.slot_sources[s] != "context") continue;
    return invalid("the model reads slot '" + d.model.slots[s].name +
                   "' of the request itself, which only a request can say: score it with the ONNX "
                   "model");
  }
  return std::unique_ptr<Ranker>(new Ranker(std::move(artefact)));
}

std::vector<const Item*> Ranker::candidates(const UserHistory& history,
                                            const RankOptions& options) const {
  const artefact::Description& d = artefact_->description();
  const bool recent = options.candidates == Candidates::kDefault
                          ? d.candidates == "recent"
                          : options.candidates == Candidates::kRecent;
  const std::int64_t window = options.recent_ms > 0 ? options.recent_ms : d.recent_ms;
  const bool repeats = options.repeats == RankOptions::kAsExported
                           ? d.repeats
                           : options.repeats == RankOptions::kAllow;
  std::unordered_set<std::uint64_t> taken;
  if (!repeats) taken.insert(history.item.begin(), history.item.end());
  std::vector<const Item*> items;
  for (const Item& item : artefact_->items()) {
    if (recent && item.last_ms < d.newest_ms - window) continue;
    if (!taken.contains(item.id)) items.push_back(&item);
  }
  return items;
}

// One group: the user's newest behaviours, and no candidates yet.
Samples Ranker::history_samples(const UserHistory& history) const {
  const artefact::Description& d = artefact_->description();
  const std::size_t steps = std::min<std::size_t>(history.item.size(), d.history);
  Samples samples;
  samples.groups = 1;
  samples.steps = static_cast<std::int64_t>(steps);
  samples.history_length = {samples.steps};
  for (std::size_t s = 0; s < d.model.slots.size(); ++s) {
    samples.target.emplace_back();
    samples.history.emplace_back();
    if (!d.model.slots[s].in_history) continue;
    const auto& column = d.slot_sources[s] == "category" ? history.category : history.item;
    for (std::uint64_t id : column.last(steps)) {
      samples.history.back().push_back(static_cast<std::int64_t>(id));
    }
  }
  // Now is the moment of the export's newest event.
  if (!artefact_->graph().needs_age()) return samples;
  constexpr double kHourMs = 3'600'000;
  for (const std::int64_t then : history.time_ms.last(steps)) {
    samples.history_age.push_back(
        static_cast<float>(static_cast<double>(d.newest_ms - then) / kHourMs));
  }
  return samples;
}

void Ranker::set_candidates(std::span<const Item* const> items, std::uint64_t user,
                            Samples& samples) const {
  const artefact::Description& d = artefact_->description();
  samples.candidates = static_cast<std::int64_t>(items.size());
  for (std::size_t s = 0; s < d.slot_sources.size(); ++s) {
    samples.target[s].clear();
    for (const Item* item : items) {
      const std::uint64_t id = d.slot_sources[s] == "user"       ? user
                               : d.slot_sources[s] == "category" ? item->category
                                                                 : item->id;  // or its content
      samples.target[s].push_back(static_cast<std::int64_t>(id));
    }
  }
  // Numbers are normalised, so 0 is the mean of the training part: what to say when nobody knows.
  samples.numeric.assign(items.size() * d.model.numeric_features, 0.0f);
}

Result<std::vector<Recommendation>> Ranker::rank(std::uint64_t user, const RankOptions& options,
                                                 Executor& executor) {
  const auto history = artefact_->history(user);
  if (!history || history->item.empty()) {
    return invalid("user " + std::to_string(user) + " has no behaviours in this export (it knows " +
                   std::to_string(artefact_->users().size()) + " users)");
  }
  const std::vector<const Item*> items = candidates(*history, options);
  scored_ = items.size();
  if (items.empty()) {
    return invalid("user " + std::to_string(user) +
                   ": no candidates are left; try --candidates all or --repeats");
  }
  Samples samples = history_samples(*history);
  std::vector<Recommendation> ranked;
  std::vector<float> logits, second;
  const bool has_second = artefact_->graph().second_logits() != nn::kNoTensor;
  for (std::size_t first = 0; first < items.size(); first += kChunk) {
    const auto chunk = std::span(items).subspan(first, std::min(kChunk, items.size() - first));
    set_candidates(chunk, user, samples);
    logits.resize(chunk.size());
    second.resize(has_second ? chunk.size() : 0);
    scorer_.score(samples, 0, 1, executor, logits, second);
    for (std::size_t i = 0; i < chunk.size(); ++i) {
      ranked.push_back({chunk[i]->id, logits[i]});
      if (has_second) ranked.back().second_score = sigmoid(second[i]);
    }
  }
  const std::size_t k = std::min(options.k, ranked.size());
  // By logit: scores near 1 round together.
  const auto better = [](const Recommendation& a, const Recommendation& b) {
    return a.score != b.score ? a.score > b.score : a.item < b.item;
  };
  std::ranges::partial_sort(ranked, ranked.begin() + static_cast<std::ptrdiff_t>(k), better);
  ranked.resize(k);
  for (Recommendation& r : ranked) r.score = sigmoid(r.score);
  return ranked;
}

}  // namespace meander::serve
