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

// (users, items), both by id: what each edge weighs.
nn::SparseMatrix weights_of(const data::PreparedLog& log, std::int64_t until_ms,
                            float half_life_h) {
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
  return graph;
}

// The users or nodes of a log, by id.
std::vector<std::uint64_t> user_ids(const data::PreparedLog& log) {
  std::vector<std::uint64_t> ids;
  for (const data::Shard& shard : log.shards()) {
    for (const data::UserEntry& user : shard.users) ids.push_back(user.id);
  }
  std::ranges::sort(ids);
  return ids;
}

// Adds a node for each row of `a`, whose columns are the nodes from `first` on.
void add_edges(const nn::SparseMatrix& a, std::uint32_t first, data::NeighbourGraph& graph) {
  if (graph.begin.empty()) graph.begin.push_back(0);
  for (std::int32_t row = 0; row < a.rows; ++row) {
    double weight = 0;
    for (std::uint32_t e = a.begin[row]; e < a.begin[row + 1]; ++e) {
      weight += a.value[e];
      graph.neighbour.push_back(first + a.column[e]);
      graph.weight_up_to.push_back(static_cast<float>(weight));
    }
    graph.begin.push_back(graph.neighbour.size());
  }
}

// Links of both directions, and the words, as matrices of ones; `own`: with a link of each node to
// itself.
struct Nodes {
  nn::SparseMatrix links, words;
  std::vector<std::uint64_t> word_ids;  // by column
};
Result<Nodes> nodes_of(const data::PreparedLog& log, const data::NodeGraph& graph, bool own) {
  const std::vector<std::uint64_t> nodes = user_ids(log);
  std::vector<std::uint64_t> words;
  for (const data::NodeWord& has : graph.words) words.push_back(has.word);
  std::ranges::sort(words);
  words.erase(std::unique(words.begin(), words.end()), words.end());
  const auto place = [](const std::vector<std::uint64_t>& all, std::uint64_t id) {
    return static_cast<std::uint32_t>(std::ranges::lower_bound(all, id) - all.begin());
  };
  const auto is_node = [&](std::uint64_t id) { return std::ranges::binary_search(nodes, id); };
  std::vector<nn::SparseEntry> links, has_words;
  for (std::uint32_t n = 0; own && n < nodes.size(); ++n) links.push_back({n, n, 1.0f});
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
  Nodes all{nn::sparse_matrix(count, count, links),
            nn::sparse_matrix(count, static_cast<std::int32_t>(words.size()), has_words),
            std::move(words)};
  // What is there twice is one link, or one word.
  for (nn::SparseMatrix* matrix : {&all.links, &all.words}) {
    std::ranges::fill(matrix->value, 1.0f);
  }
  return all;
}

}  // namespace

std::shared_ptr<const nn::SparseMatrix> adjacency_of(const data::PreparedLog& log,
                                                     std::int64_t until_ms, float half_life_h) {
  return std::make_shared<const nn::SparseMatrix>(
      nn::symmetrically_normalised(weights_of(log, until_ms, half_life_h)));
}

data::NeighbourGraph neighbours_of(const data::PreparedLog& log, std::int64_t until_ms,
                                   float half_life_h) {
  data::NeighbourGraph graph;
  graph.users = user_ids(log);
  for (const data::ItemEntry& item : log.items()) graph.items.push_back(item.item);
  const nn::SparseMatrix weights = weights_of(log, until_ms, half_life_h);
  add_edges(weights, static_cast<std::uint32_t>(graph.users.size()), graph);
  add_edges(nn::transposed(weights), 0, graph);
  graph.key = graph.users;
  graph.key.insert(graph.key.end(), graph.items.begin(), graph.items.end());
  for (std::uint64_t n = 0; n <= graph.key.size(); ++n) graph.key_begin.push_back(n);
  return graph;
}

Result<NodeMatrices> node_matrices(const data::PreparedLog& log, const data::NodeGraph& graph) {
  ASSIGN_OR_RETURN(Nodes nodes, nodes_of(log, graph, true));
  return NodeMatrices{
      std::make_shared<const nn::SparseMatrix>(
          nn::symmetrically_normalised(std::move(nodes.links))),
      std::make_shared<const nn::SparseMatrix>(nn::row_normalised(std::move(nodes.words)))};
}

Result<data::NeighbourGraph> neighbours_of(const data::PreparedLog& log,
                                           const data::NodeGraph& graph) {
  ASSIGN_OR_RETURN(const Nodes nodes, nodes_of(log, graph, false));
  data::NeighbourGraph out;
  out.users = user_ids(log);
  add_edges(nodes.links, 0, out);
  out.key_begin.assign(nodes.words.begin.begin(), nodes.words.begin.end());
  for (const std::uint32_t column : nodes.words.column) {
    out.key.push_back(nodes.word_ids[column]);
  }
  return out;
}

}  // namespace meander::launch
