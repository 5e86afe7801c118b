// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "common/executor.h"
#include "common/rng.h"
#include "export/samples.h"
#include "export/write.h"
#include "models/model.h"
#include "nn/graph.h"
#include "serve/artefact.h"
#include "serve/scorer.h"

namespace meander {

// A model of random weights over a few items, as an export of it needs it. Some item ids are at the
// ends of the 64-bit range.
class SmallExport {
 public:
  static constexpr std::uint64_t kItems = 60, kCategories = 7, kUsers = 20;
  static constexpr std::int64_t kHourMs = 3'600'000;

  explicit SmallExport(models::ModelSpec spec, std::uint64_t seed = 1)
      : rng_(seed), graph_(models::build_model(spec).value()) {
    contents_.graph = &graph_;
    contents_.description.model = spec;
    contents_.description.job = "small";
    contents_.description.generation = 3;
    contents_.description.digest = "00112233445566aa";
    contents_.description.history = 12;
    contents_.description.newest_ms = static_cast<std::int64_t>(kItems) * kHourMs;
    for (const nn::SlotSpec& slot : spec.slots) {
      contents_.description.slot_sources.push_back(
          slot.in_history || slot.name == "user" ? slot.name : "context");
    }
    make_items();
    make_tables(spec);
    make_histories();
    contents_.dense = graph_.initial_dense(seed);
    for (float& value : contents_.dense) value += noise(0.5f);
    make_statistics_positive();
  }
  SmallExport(const SmallExport&) = delete;

  // A spec with an item and a category slot, a user slot if asked for.
  static models::ModelSpec spec_of(const std::string& kind, bool user = false,
                                   std::int32_t numeric = 0) {
    models::ModelSpec spec;
    spec.kind = kind;
    spec.slots = {{"item", 0, 6, true}, {"category", 1, 4, true}};
    if (user) spec.slots.push_back({"user", 2, 5, false});
    spec.numeric_features = numeric;
    spec.hidden = 10;  // DIEN's state is as wide as a behaviour
    spec.attention = {8, 5};
    spec.head = {9, 7};
    return spec;
  }

  artefact::Contents& contents() { return contents_; }
  const nn::Graph& graph() const { return graph_; }
  std::uint64_t item(std::size_t i) const { return contents_.items[i].id; }

  // Random samples: lengths from 1 to T, some ids that no table has.
  artefact::Samples samples(std::int64_t groups, std::int64_t candidates, std::int64_t steps) {
    artefact::Samples s;
    s.groups = groups;
    s.candidates = candidates;
    s.steps = steps;
    for (const nn::SlotSpec& slot : graph_.slots()) {
      s.target.push_back(ids(slot.table, groups * candidates));
      s.history.push_back(slot.in_history ? ids(slot.table, groups * steps)
                                          : std::vector<std::int64_t>());
    }
    for (std::int64_t g = 0; g < groups; ++g) {
      s.history_length.push_back(1 + static_cast<std::int64_t>(rng_.below(steps)));
    }
    s.history_length[0] = steps;
    s.numeric.resize(groups * candidates * graph_.numeric_features());
    for (float& x : s.numeric) x = noise(1.0f);
    if (graph_.needs_age()) {
      s.history_age.resize(groups * steps);
      for (float& x : s.history_age) x = 50.0f + noise(50.0f);
    }
    s.batches = {groups};
    return s;
  }

 private:
  float noise(float range) { return range * static_cast<float>(2 * rng_.uniform() - 1); }

  void make_items() {
    for (std::uint64_t i = 0; i < kItems; ++i) {
      artefact::Item item;
      item.id = i == 0           ? 0
                : i + 1 < kItems ? i * 0x0123456789abcdefull
                                 : std::numeric_limits<std::uint64_t>::max();
      item.category = i % kCategories;
      item.last_ms = static_cast<std::int64_t>(i + 1) * kHourMs;
      item.count = i;
      item.category_name = "kind " + std::to_string(item.category);
      item.title = "item number " + std::to_string(i);
      contents_.items.push_back(item);
    }
    std::ranges::sort(contents_.items, {}, &artefact::Item::id);
  }

  static bool is_by_item(const std::string& table) { return table == "item" || table == "content"; }

  void make_tables(const models::ModelSpec& spec) {
    for (std::int32_t t = 0; t < graph_.tables(); ++t) {
      artefact::TableRows& table = contents_.tables.emplace_back();
      table.name = std::ranges::find(spec.slots, t, &nn::SlotSpec::table)->name;
      table.width = static_cast<std::uint32_t>(graph_.table_width(t));
      for (const artefact::Item& item : contents_.items) {
        if (!is_by_item(table.name)) break;
        table.keys.push_back(static_cast<std::int64_t>(item.id));
      }
      const std::uint64_t others = table.name == "category" ? kCategories : kUsers;
      for (std::uint64_t k = 0; !is_by_item(table.name) && k < others; ++k) {
        table.keys.push_back(static_cast<std::int64_t>(k));
      }
      std::ranges::sort(table.keys);
      table.rows.resize(table.keys.size() * table.width);
      for (float& value : table.rows) value = noise(0.5f);
      table.stored = table.keys.size() / 2;
    }
  }

  void make_histories() {
    item_.reserve(kUsers * kItems);
    category_.reserve(kUsers * kItems);
    time_.reserve(kUsers * kItems);
    for (std::uint64_t user = 0; user < kUsers; ++user) {
      const std::size_t first = item_.size(), count = 1 + rng_.below(30);
      for (std::size_t i = 0; i < count; ++i) {
        const artefact::Item& item = contents_.items[rng_.below(kItems)];
        item_.push_back(item.id);
        category_.push_back(item.category);
        time_.push_back(static_cast<std::int64_t>(i) * kHourMs);
      }
      contents_.histories.push_back({user, std::span(item_).subspan(first, count),
                                     std::span(category_).subspan(first, count),
                                     std::span(time_).subspan(first, count)});
    }
  }

  void make_statistics_positive() {
    for (const nn::ParamSpec& p : graph_.params()) {
      if (!p.is_statistic || !p.name.ends_with("variance")) continue;
      for (std::int32_t i = 0; i < p.rows * p.cols; ++i) {
        contents_.dense[p.offset + i] = 0.05f + std::abs(noise(1.0f));
      }
    }
  }

  std::vector<std::int64_t> ids(std::int32_t table, std::int64_t count) {
    const auto& keys = contents_.tables[table].keys;
    std::vector<std::int64_t> drawn(count);
    for (std::int64_t& id : drawn) {
      id = rng_.chance(0.05) ? static_cast<std::int64_t>(rng_.next())
                             : keys[rng_.below(keys.size())];
    }
    return drawn;
  }

  Rng rng_;
  nn::Graph graph_;
  artefact::Contents contents_;
  std::vector<std::uint64_t> item_, category_;
  std::vector<std::int64_t> time_;
};

// What the loaded export says of the samples, batch by batch; `second`: of a second task.
inline std::vector<float> score_all(std::shared_ptr<const serve::Artefact> artefact,
                                    const artefact::Samples& samples,
                                    std::vector<float>* second = nullptr) {
  serve::Scorer scorer(std::move(artefact));
  InlineExecutor executor;
  std::vector<float> logits(samples.groups * samples.candidates);
  if (second != nullptr) second->resize(logits.size());
  std::int64_t first = 0;
  for (std::int64_t groups : samples.batches) {
    const auto batch_of = [&](std::vector<float>& all) {
      return std::span(all).subspan(first * samples.candidates, groups * samples.candidates);
    };
    scorer.score(samples, first, groups, executor, batch_of(logits),
                 second != nullptr ? batch_of(*second) : std::span<float>());
    first += groups;
  }
  return logits;
}

}  // namespace meander
