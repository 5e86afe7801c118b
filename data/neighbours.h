// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "data/batch.h"
#include "data/key_set.h"

namespace meander::data {

// A graph that batches draw neighbours from: of users and items, weighted by interest, or of users
// alone. Node n is the n-th user; behind the users come the items. Immutable; streams share it.
// Costs 8 bytes for each end of an edge, however wide the rows of nodes are.
struct NeighbourGraph {
  std::vector<std::uint64_t> users, items;  // ids, rising; items may be empty

  // Node n's edges are begin[n] ... begin[n + 1]: where they lead, and what they weigh (above 0),
  // added up from the node's first on.
  std::vector<std::uint64_t> begin;
  std::vector<std::uint32_t> neighbour;
  std::vector<float> weight_up_to;

  // What a node is described by: the mean of the rows of its keys key[key_begin[n]] ... in a table,
  // which is one for all users and one for all items.
  std::vector<std::uint64_t> key_begin, key;
  std::uint32_t user_table = 0, item_table = 0;

  std::uint32_t nodes() const { return static_cast<std::uint32_t>(users.size() + items.size()); }
  std::uint32_t user_node(std::uint64_t id) const;  // CHECKs that there is one
  std::uint32_t item_node(std::uint64_t id) const;
};

// Who a batch is about: the user of each history and the item of each sample (none in a graph of
// users), in the order of its parts.
struct NeighbourTargets {
  std::vector<std::uint64_t> users, items;
  // Edges that the batch is to learn to foretell, and that are not there for it: user, item.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> hidden;
};

// Draws what lies around a batch's targets: of each target some neighbours, of each of these
// (and of the targets again) some, and so on. Keeps scratch memory: not thread-safe.
class NeighbourDraws {
 public:
  NeighbourDraws(const NeighbourGraph& graph, std::vector<std::uint32_t> fanout)
      : graph_(graph), fanout_(std::move(fanout)) {}

  // Adds the keys of all nodes to `tables`. A pure function of the graph, `seed` and the targets.
  //
  // Of a node with at most fanout[hop] neighbours all are taken, each by its share of their weight.
  // Of one with more, fanout[hop] are drawn in proportion to weight, one from each of as many equal
  // strips of it, so that the mean of what is drawn is right on average and no edge whose share is
  // below 1 / fanout comes often. Neighbours that are hidden are left out, and what is left is
  // scaled up.
  void draw(std::uint64_t seed, const NeighbourTargets& targets, std::vector<KeySet>& tables,
            Neighbourhood& out);

 private:
  void hide(const NeighbourTargets& targets);
  void draw_of(std::uint32_t node, std::uint32_t hop, std::uint64_t seed, SparseDraw& out);
  bool add(std::uint32_t to, float share, SparseDraw& out);  // false: it is hidden
  void describe(std::vector<KeySet>& tables, Neighbourhood& out);

  const NeighbourGraph& graph_;
  const std::vector<std::uint32_t> fanout_;
  KeySet nodes_;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> hidden_;          // both ways, rising
  std::span<const std::pair<std::uint32_t, std::uint32_t>> own_hidden_;  // of the node in hand
};

}  // namespace meander::data
