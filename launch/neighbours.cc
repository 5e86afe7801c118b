// SPDX-License-Identifier: Apache-2.0
#include "launch/neighbours.h"

#include <algorithm>

#include "serve/scorer.h"

namespace meander::launch {
namespace {

constexpr std::size_t kUsersAtOnce = 512;
constexpr double kHourMs = 3'600'000;

std::int64_t as_signed(std::uint64_t id) { return static_cast<std::int64_t>(id); }

// The tensor that says what is left of an interest; kNoTensor: the model has none.
nn::TensorId interest_of(const nn::Graph& graph) {
  for (const auto& op : graph.ops()) {
    if (op->name() == "interest/decay") return op->outputs().front();
  }
  return nn::kNoTensor;
}

std::optional<std::size_t> slot_of(const serve::Artefact& artefact, const std::string& source) {
  const auto& sources = artefact.description().slot_sources;
  const auto at = std::ranges::find(sources, source);
  if (at == sources.end()) return {};
  return static_cast<std::size_t>(at - sources.begin());
}

Result<Vectors> rows_of(const serve::Artefact& artefact, const std::string& source) {
  const auto slot = slot_of(artefact, source);
  if (!slot) {
    return invalid("model " + artefact.description().model.kind + " has no vectors of " + source +
                   "s: it has no slot '" + source + "'");
  }
  const nn::SlotSpec& spec = artefact.graph().slots()[*slot];
  const serve::Artefact::Table& table = artefact.tables()[spec.table];
  Vectors vectors;
  vectors.width = spec.width;
  for (std::size_t n = 0; n < table.keys.size(); ++n) {
    vectors.ids.push_back(static_cast<std::uint64_t>(table.keys[n]));
    const float* const row = table.rows.row(static_cast<std::int32_t>(n));
    vectors.values.insert(vectors.values.end(), row, row + spec.width);
  }
  return vectors;
}

// Behaviours that a user had had by `at_ms`, at most `longest`: the newest.
struct Behaviours {
  std::int64_t user = 0;
  artefact::UserHistory of;
  std::size_t first = 0, count = 0;
};
std::vector<Behaviours> behaviours_until(const serve::Artefact& artefact, std::int64_t at_ms) {
  const std::size_t longest = artefact.description().history;
  std::vector<Behaviours> all;
  for (const std::int64_t user : artefact.users()) {
    const auto history = artefact.history(static_cast<std::uint64_t>(user));
    const auto& times = history->time_ms;
    const auto end = std::upper_bound(times.begin(), times.end(), at_ms) - times.begin();
    const std::size_t count = std::min(longest, static_cast<std::size_t>(end));
    if (count > 0) all.push_back({user, *history, static_cast<std::size_t>(end) - count, count});
  }
  return all;
}

// Their histories as the model takes them, each with one candidate, which changes nothing of what
// is left of an interest.
artefact::Samples samples_of(const serve::Artefact& artefact, std::span<const Behaviours> users,
                             std::int64_t at_ms) {
  const artefact::Description& d = artefact.description();
  artefact::Samples samples;
  samples.groups = static_cast<std::int64_t>(users.size());
  for (const Behaviours& user : users) {
    samples.history_length.push_back(static_cast<std::int64_t>(user.count));
    samples.steps = std::max(samples.steps, samples.history_length.back());
  }
  const std::size_t cells = users.size() * samples.steps;
  samples.history_age.resize(cells);
  samples.numeric.resize(users.size() * d.model.numeric_features);
  for (std::size_t s = 0; s < d.slot_sources.size(); ++s) {
    samples.target.emplace_back(users.size());
    samples.history.emplace_back(d.model.slots[s].in_history ? cells : 0);
  }
  for (std::size_t u = 0; u < users.size(); ++u) {
    const Behaviours& user = users[u];
    for (std::size_t s = 0; s < d.slot_sources.size(); ++s) {
      if (d.slot_sources[s] == "user") samples.target[s][u] = user.user;
      if (!d.model.slots[s].in_history) continue;
      const auto& column = d.slot_sources[s] == "category" ? user.of.category : user.of.item;
      for (std::size_t t = 0; t < user.count; ++t) {
        samples.history[s][u * samples.steps + t] = as_signed(column[user.first + t]);
      }
    }
    for (std::size_t t = 0; t < user.count; ++t) {
      const double age_ms = static_cast<double>(at_ms - user.of.time_ms[user.first + t]);
      samples.history_age[u * samples.steps + t] = static_cast<float>(age_ms / kHourMs);
    }
  }
  return samples;
}

}  // namespace

Result<std::uint32_t> Vectors::row_of(std::uint64_t id) const {
  const auto at = std::ranges::lower_bound(ids, as_signed(id), {}, as_signed);
  if (at != ids.end() && *at == id) return static_cast<std::uint32_t>(at - ids.begin());
  return invalid(std::to_string(id) + " has no vector here, of " + std::to_string(ids.size()));
}

Result<Vectors> vectors_of_users(const std::shared_ptr<const serve::Artefact>& artefact,
                                 std::int64_t at_ms, Executor& executor) {
  Vectors vectors;
  const nn::TensorId interest = interest_of(artefact->graph());
  if (interest == nn::kNoTensor) {
    ASSIGN_OR_RETURN(vectors, rows_of(*artefact, "user"));
  } else {
    vectors.width = artefact->graph().spec(interest).width;
    serve::Scorer scorer(artefact);
    const std::vector<Behaviours> users = behaviours_until(*artefact, at_ms);
    std::vector<float> logits;
    for (std::size_t first = 0; first < users.size(); first += kUsersAtOnce) {
      const auto some =
          std::span(users).subspan(first, std::min(kUsersAtOnce, users.size() - first));
      const artefact::Samples samples = samples_of(*artefact, some, at_ms);
      logits.resize(some.size());
      scorer.score(samples, 0, samples.groups, executor, logits);
      for (const Behaviours& user : some) {
        vectors.ids.push_back(static_cast<std::uint64_t>(user.user));
      }
      vectors.values.resize(vectors.ids.size() * vectors.width);
      scorer.last(interest, std::span(vectors.values).subspan(first * vectors.width));
    }
  }
  nn::normalise_rows({vectors.values.data(), static_cast<std::int32_t>(vectors.ids.size()),
                      vectors.width, vectors.width});
  return vectors;
}

Result<Vectors> vectors_of_items(const serve::Artefact& artefact) {
  ASSIGN_OR_RETURN(Vectors vectors, rows_of(artefact, "item"));
  nn::normalise_rows({vectors.values.data(), static_cast<std::int32_t>(vectors.ids.size()),
                      vectors.width, vectors.width});
  return vectors;
}

}  // namespace meander::launch
