// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>
#include <vector>

namespace meander::ps {

// Entries of maps of which as many come as go: one that has ended waits here for the next, with the
// memory of its lists. Map::mapped_type::clear() lets go of what an entry holds but that memory.
template <class Map>
class SpareNodes {
 public:
  using iterator = typename Map::iterator;

  // A cleared entry of `key`, which is not in `map`.
  iterator insert(Map& map, const typename Map::key_type& key) {
    if (nodes_.empty()) return map.try_emplace(key).first;
    auto node = std::move(nodes_.back());
    nodes_.pop_back();
    node.key() = key;
    return map.insert(std::move(node)).position;
  }
  // An empty handle is as good as none.
  void give(typename Map::node_type node) {
    if (node.empty()) return;
    node.mapped().clear();
    if (nodes_.size() < kKeptMax) nodes_.push_back(std::move(node));
  }

 private:
  static constexpr std::size_t kKeptMax = 64;
  std::vector<typename Map::node_type> nodes_;
};

}  // namespace meander::ps
