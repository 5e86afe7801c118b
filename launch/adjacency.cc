// SPDX-License-Identifier: Apache-2.0
#include "launch/adjacency.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "common/check.h"

namespace meander::launch {
namespace {

constexpr double kHourMs = 3'600'000;
// Below it an event is worth nothing; and an edge must weigh something for its node to be divided
// by.
constexpr double kWeightMin = 1e-6;

// body(shard, user's place in the shard, event) for every event that makes an edge.
template <class Body>
void for_events(const data::PreparedLog& log, std::int64_t until_ms, const Body& body) {
  for (const data::Shard& shard : log.shards()) {
    for (std::size_t u = 0; u < shard.users.size(); ++u) {
      const data::UserEntry& user = shard.users[u];
      for (std::uint32_t event = user.first; event < user.first + user.known; ++event) {
        if (!shard.time_ms.empty() && shard.time_ms[event] >= until_ms) break;
        body(shard, u, event);
      }
    }
  }
}

// [shard][user in it] his place among all users by id.
std::vector<std::vector<std::uint32_t>> places_by_id(const data::PreparedLog& log) {
  std::vector<std::pair<std::uint64_t, std::pair<std::uint32_t, std::uint32_t>>> users;
  std::vector<std::vector<std::uint32_t>> place;
  for (std::uint32_t s = 0; s < log.shards().size(); ++s) {
    const auto& of_shard = log.shards()[s].users;
    place.emplace_back(of_shard.size());
    for (std::uint32_t u = 0; u < of_shard.size(); ++u) users.push_back({of_shard[u].id, {s, u}});
  }
  std::ranges::sort(users);
  for (std::size_t n = 0; n < users.size(); ++n) {
    const auto [s, u] = users[n].second;
    place[s][u] = static_cast<std::uint32_t>(n);
  }
  return place;
}

}  // namespace

std::shared_ptr<const nn::SparseMatrix> adjacency_of(const data::PreparedLog& log,
                                                     std::int64_t until_ms, float half_life_h) {
  const auto place = places_by_id(log);
  const bool fades = log.has_time() && half_life_h > 0;
  std::int64_t newest = std::numeric_limits<std::int64_t>::min();
  for_events(log, until_ms, [&](const data::Shard& shard, std::size_t, std::uint32_t event) {
    if (fades) newest = std::max(newest, shard.time_ms[event]);
  });
  const auto weight = [&](const data::Shard& shard, std::uint32_t event) {
    if (!fades) return 1.0;
    const double age_h = static_cast<double>(newest - shard.time_ms[event]) / kHourMs;
    return std::max(kWeightMin, std::exp2(-age_h / half_life_h));
  };
  std::vector<nn::SparseEntry> entries;
  for_events(log, until_ms, [&](const data::Shard& shard, std::size_t user, std::uint32_t event) {
    const data::ItemEntry* item = log.find_item(shard.item[event]);
    CHECK(item != nullptr) << log.path() << ": an event of an item that is not listed";
    entries.push_back({place[&shard - log.shards().data()][user],
                       static_cast<std::uint32_t>(item - log.items().data()),
                       static_cast<float>(weight(shard, event))});
  });
  nn::SparseMatrix graph =
      nn::sparse_matrix(static_cast<std::int32_t>(log.users()),
                        static_cast<std::int32_t>(log.items().size()), entries);
  if (!fades) std::ranges::fill(graph.value, 1.0f);
  return std::make_shared<const nn::SparseMatrix>(nn::symmetrically_normalised(std::move(graph)));
}

Result<NodeMatrices> node_matrices(const data::PreparedLog& log, const data::NodeGraph& graph) {
  std::vector<std::uint64_t> nodes, words;
  for (const data::Shard& shard : log.shards()) {
    for (const data::UserEntry& user : shard.users) nodes.push_back(user.id);
  }
  for (const data::NodeWord& has : graph.words) words.push_back(has.word);
  for (auto* all : {&nodes, &words}) {
    std::ranges::sort(*all);
    all->erase(std::unique(all->begin(), all->end()), all->end());
  }
  const auto place = [](const std::vector<std::uint64_t>& all, std::uint64_t id) {
    return static_cast<std::uint32_t>(std::ranges::lower_bound(all, id) - all.begin());
  };
  const auto is_node = [&](std::uint64_t id) { return std::ranges::binary_search(nodes, id); };
  std::vector<nn::SparseEntry> links, has_words;
  for (std::uint32_t n = 0; n < nodes.size(); ++n) links.push_back({n, n, 1.0f});
  for (const data::NodeLink& link : graph.links) {
    if (!is_node(link.from) || !is_node(link.to)) {
      return invalid(log.path() + ": a link between " + std::to_string(link.from) + " and " +
                     std::to_string(link.to) + ", which are not both nodes");
    }
    const std::uint32_t from = place(nodes, link.from), to = place(nodes, link.to);
    if (from != to) links.insert(links.end(), {{from, to, 1.0f}, {to, from, 1.0f}});
  }
  for (const data::NodeWord& has : graph.words) {
    if (!is_node(has.node)) {
      return invalid(log.path() + ": words of " + std::to_string(has.node) + ", which is no node");
    }
    has_words.push_back({place(nodes, has.node), place(words, has.word), 1.0f});
  }
  const auto count = static_cast<std::int32_t>(nodes.size());
  nn::SparseMatrix adjacency = nn::sparse_matrix(count, count, links);
  std::ranges::fill(adjacency.value, 1.0f);  // a pair that is there twice is one link
  nn::SparseMatrix features =
      nn::sparse_matrix(count, static_cast<std::int32_t>(words.size()), has_words);
  std::ranges::fill(features.value, 1.0f);
  return NodeMatrices{
      std::make_shared<const nn::SparseMatrix>(nn::symmetrically_normalised(std::move(adjacency))),
      std::make_shared<const nn::SparseMatrix>(nn::row_normalised(std::move(features)))};
}

}  // namespace meander::launch
