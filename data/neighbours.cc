// SPDX-License-Identifier: Apache-2.0
#include "data/neighbours.h"

#include <algorithm>

#include "common/check.h"
#include "common/rng.h"

namespace meander::data {
namespace {

constexpr std::uint64_t kDrawSalt = 0x6e65696768626f72ull;

std::uint32_t place(const std::vector<std::uint64_t>& ids, std::uint64_t id) {
  const auto at = std::ranges::lower_bound(ids, id);
  CHECK(at != ids.end() && *at == id) << "no node " << id;
  return static_cast<std::uint32_t>(at - ids.begin());
}

}  // namespace

std::uint32_t NeighbourGraph::user_node(std::uint64_t id) const { return place(users, id); }
std::uint32_t NeighbourGraph::item_node(std::uint64_t id) const {
  return static_cast<std::uint32_t>(users.size()) + place(items, id);
}

void NeighbourDraws::draw(std::uint64_t seed, const NeighbourTargets& targets,
                          std::vector<KeySet>& tables, Neighbourhood& out) {
  nodes_.clear();
  out.users.clear();
  out.items.clear();
  for (const std::uint64_t id : targets.users) {
    out.users.push_back(nodes_.index_of(graph_.user_node(id)));
  }
  for (const std::uint64_t id : targets.items) {
    out.items.push_back(nodes_.index_of(graph_.item_node(id)));
  }
  hide(targets);
  const auto count = [&] { return static_cast<std::int32_t>(nodes_.keys().size()); };
  out.nodes.assign(1, count());
  out.hops.resize(fanout_.size());
  for (std::uint32_t hop = 0; hop < fanout_.size(); ++hop) {
    SparseDraw& draws = out.hops[hop];
    draws.clear();
    for (std::int32_t n = 0; n < out.nodes[hop]; ++n) {
      draw_of(static_cast<std::uint32_t>(nodes_.keys()[n]), hop, seed, draws);
      draws.end_row();
    }
    out.nodes.push_back(count());
  }
  describe(tables, out);
}

void NeighbourDraws::hide(const NeighbourTargets& targets) {
  hidden_.clear();
  for (const auto& [user, item] : targets.hidden) {
    const std::uint32_t a = graph_.user_node(user), b = graph_.item_node(item);
    hidden_.insert(hidden_.end(), {{a, b}, {b, a}});
  }
  std::ranges::sort(hidden_);
}

void NeighbourDraws::draw_of(std::uint32_t node, std::uint32_t hop, std::uint64_t seed,
                             SparseDraw& out) {
  const std::uint64_t first = graph_.begin[node], end = graph_.begin[node + 1];
  if (first == end) return;
  const auto own =
      std::ranges::equal_range(hidden_, node, {}, [](const auto& e) { return e.first; });
  own_hidden_ = {own.begin(), own.end()};
  const std::uint32_t* const neighbour = &graph_.neighbour[first];
  const float* const up_to = &graph_.weight_up_to[first];
  const auto degree = static_cast<std::uint32_t>(end - first);
  const std::uint32_t fanout = fanout_[hop];
  const float all = up_to[degree - 1];
  const std::size_t row = out.value.size();
  if (degree <= fanout) {
    for (std::uint32_t e = 0; e < degree; ++e) {
      add(neighbour[e], (up_to[e] - (e == 0 ? 0 : up_to[e - 1])) / all, out);
    }
  } else {
    const std::uint64_t own = hash64(seed ^ kDrawSalt, node, hop);
    std::uint32_t last = degree;
    bool is_there = false;  // or hidden
    for (std::uint32_t i = 0; i < fanout; ++i) {
      const double at = (i + unit_double(hash64(own, i))) / fanout * all;
      const float* const above = std::upper_bound(up_to, up_to + degree - 1, at);
      const auto edge = static_cast<std::uint32_t>(above - up_to);
      const float share = 1.0f / static_cast<float>(fanout);
      if (edge != last) {
        is_there = add(neighbour[edge], share, out);
      } else if (is_there) {
        out.value.back() += share;
      }
      last = edge;
    }
  }
  float sum = 0;
  for (std::size_t e = row; e < out.value.size(); ++e) sum += out.value[e];
  for (std::size_t e = row; e < out.value.size(); ++e) out.value[e] /= sum;
}

bool NeighbourDraws::add(std::uint32_t to, float share, SparseDraw& out) {
  const auto leads_there = [to](const auto& edge) { return edge.second == to; };
  if (std::ranges::any_of(own_hidden_, leads_there)) return false;
  out.column.push_back(nodes_.index_of(to));
  out.value.push_back(share);
  return true;
}

void NeighbourDraws::describe(std::vector<KeySet>& tables, Neighbourhood& out) {
  out.inputs.resize(tables.size());
  for (SparseDraw& input : out.inputs) input.clear();
  const bool has_items = !graph_.items.empty();
  for (const std::uint64_t node : nodes_.keys()) {
    const bool is_user = node < graph_.users.size();
    const std::uint32_t table = is_user ? graph_.user_table : graph_.item_table;
    const std::uint64_t first = graph_.key_begin[node], end = graph_.key_begin[node + 1];
    for (std::uint64_t k = first; k < end; ++k) {
      out.inputs[table].column.push_back(tables[table].index_of(graph_.key[k]));
      out.inputs[table].value.push_back(1.0f / static_cast<float>(end - first));
    }
    out.inputs[graph_.user_table].end_row();
    if (has_items) out.inputs[graph_.item_table].end_row();
  }
}

}  // namespace meander::data
