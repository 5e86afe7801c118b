// SPDX-License-Identifier: Apache-2.0
#include "data/neighbours.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <set>

namespace meander::data {
namespace {

// Users 10, 20, 30 and items 5 ... 5 + kItems - 1: user 10 has all items, item i with weight i + 1;
// user 20 items 5 and 6; user 30 nothing.
constexpr std::uint32_t kItems = 40, kUsers = 3;
NeighbourGraph small_graph() {
  NeighbourGraph graph;
  graph.users = {10, 20, 30};
  for (std::uint32_t i = 0; i < kItems; ++i) graph.items.push_back(5 + i);
  graph.begin = {0};
  const auto edge = [&](std::uint32_t to, float up_to) {
    graph.neighbour.push_back(to);
    graph.weight_up_to.push_back(up_to);
  };
  const auto end_node = [&] { graph.begin.push_back(graph.neighbour.size()); };
  for (std::uint32_t i = 0; i < kItems; ++i) {
    edge(kUsers + i, static_cast<float>((i + 1) * (i + 2) / 2));
  }
  end_node();
  edge(kUsers, 1);
  edge(kUsers + 1, 4);
  end_node();
  end_node();
  for (std::uint32_t i = 0; i < kItems; ++i) {
    edge(0, static_cast<float>(i + 1));
    if (i < 2) edge(1, static_cast<float>(i + 1 + (i == 0 ? 1 : 3)));
    end_node();
  }
  graph.key = graph.users;
  graph.key.insert(graph.key.end(), graph.items.begin(), graph.items.end());
  graph.key_begin.resize(graph.key.size() + 1);
  std::iota(graph.key_begin.begin(), graph.key_begin.end(), 0);
  graph.user_table = 1;
  return graph;
}

struct Drawn {
  explicit Drawn(const NeighbourGraph& graph, std::vector<std::uint32_t> fanout,
                 const NeighbourTargets& targets, std::uint64_t seed) {
    NeighbourDraws(graph, std::move(fanout)).draw(seed, targets, tables, around);
  }
  // What describes a node: the key in its table.
  std::pair<int, std::uint64_t> name(std::uint32_t node) const {
    for (int t = 0; t < 2; ++t) {
      const SparseDraw& input = around.inputs[t];
      if (input.begin[node] == input.begin[node + 1]) continue;
      EXPECT_EQ(input.begin[node] + 1, input.begin[node + 1]);
      EXPECT_EQ(input.value[input.begin[node]], 1.0f);
      return {t, tables[t].keys()[input.column[input.begin[node]]]};
    }
    ADD_FAILURE() << "nothing describes node " << node;
    return {};
  }
  std::map<std::uint64_t, float> row(std::size_t hop, std::uint32_t node) const {
    std::map<std::uint64_t, float> row;
    const SparseDraw& draw = around.hops[hop];
    for (std::uint32_t e = draw.begin[node]; e < draw.begin[node + 1]; ++e) {
      row[name(draw.column[e]).second] += draw.value[e];
    }
    return row;
  }
  std::vector<KeySet> tables = std::vector<KeySet>(2);
  Neighbourhood around;
};

TEST(NeighbourDraws, TakeAllNeighboursByTheirShareWhereTheyAreFew) {
  const NeighbourGraph graph = small_graph();
  const Drawn drawn(graph, {10, 10}, {{20, 30, 20}, {6, 5, 5}, {}}, 1);
  EXPECT_EQ(drawn.around.users, (std::vector<std::uint32_t>{0, 1, 0}));
  EXPECT_EQ(drawn.around.items, (std::vector<std::uint32_t>{2, 3, 3}));
  EXPECT_EQ(drawn.name(0), (std::pair<int, std::uint64_t>(1, 20)));
  EXPECT_EQ(drawn.name(2), (std::pair<int, std::uint64_t>(0, 6)));
  EXPECT_EQ(drawn.row(0, 0), (std::map<std::uint64_t, float>{{5, 0.25f}, {6, 0.75f}}));
  EXPECT_TRUE(drawn.row(0, 1).empty());
  EXPECT_EQ(drawn.row(0, 3), (std::map<std::uint64_t, float>{{10, 0.5f}, {20, 0.5f}}));
  // Targets, then user 10, then the ten that were drawn for him.
  ASSERT_EQ(drawn.around.nodes.size(), 3u);
  EXPECT_EQ(drawn.around.nodes[0], 4);
  EXPECT_EQ(drawn.around.nodes[1], 5);
  EXPECT_LE(drawn.around.nodes[2], 5 + 10);
  EXPECT_EQ(drawn.around.hops[1].begin.size(), 6u);
}

TEST(NeighbourDraws, OfManyNeighboursTheMeanIsRightOnAverageAndOnlyThoseDrawnAreKeys) {
  const NeighbourGraph graph = small_graph();
  constexpr std::uint32_t kFanout = 8;
  constexpr int kDraws = 4000;
  std::map<std::uint64_t, double> mean;
  std::set<std::map<std::uint64_t, float>> different;
  for (int seed = 0; seed < kDraws; ++seed) {
    const Drawn drawn(graph, {kFanout}, {{10}, {}, {}}, static_cast<std::uint64_t>(seed));
    const auto row = drawn.row(0, 0);
    EXPECT_LE(row.size(), kFanout);
    EXPECT_EQ(drawn.tables[0].keys().size(), row.size());
    float sum = 0;
    for (const auto& [item, share] : row) {
      mean[item] += double{share} / kDraws;
      sum += share;
    }
    EXPECT_NEAR(sum, 1, 1e-6);
    different.insert(row);
  }
  EXPECT_GT(different.size(), static_cast<std::size_t>(kDraws * 9 / 10));
  for (std::uint32_t i = 0; i < kItems; ++i) {
    EXPECT_NEAR(mean[5 + i], (i + 1) / 820.0, 0.004) << i;
  }
}

TEST(NeighbourDraws, AreAFunctionOfTheSeed) {
  const NeighbourGraph graph = small_graph();
  const auto rows = [&](std::uint64_t seed) {
    return Drawn(graph, {5, 5}, {{10, 20}, {}, {}}, seed).around.hops[0].column;
  };
  EXPECT_EQ(rows(7), rows(7));
  const Drawn once(graph, {5}, {{10}, {}, {}}, 7), other(graph, {5}, {{10}, {}, {}}, 8);
  EXPECT_NE(once.row(0, 0), other.row(0, 0));
}

TEST(NeighbourDraws, LeaveOutEdgesThatAreToBeForetold) {
  const NeighbourGraph graph = small_graph();
  const Drawn drawn(graph, {10}, {{20}, {6, 5}, {{20, 6}}}, 1);
  EXPECT_EQ(drawn.row(0, 0), (std::map<std::uint64_t, float>{{5, 1.0f}}));
  EXPECT_EQ(drawn.row(0, 1), (std::map<std::uint64_t, float>{{10, 1.0f}}));
  EXPECT_EQ(drawn.row(0, 2), (std::map<std::uint64_t, float>{{10, 0.5f}, {20, 0.5f}}));
}

// Item 44 has 40 of 820 parts: of 39 strips one is its own, and another in part.
TEST(NeighbourDraws, SharesOfAHiddenEdgeThatIsDrawnTwiceGoToNoOther) {
  const NeighbourGraph graph = small_graph();
  constexpr std::uint32_t kFanout = 39;
  for (std::uint64_t seed = 0; seed < 500; ++seed) {
    const auto all = Drawn(graph, {kFanout}, {{10}, {}, {}}, seed).row(0, 0);
    const auto row = Drawn(graph, {kFanout}, {{10}, {}, {{10, 44}}}, seed).row(0, 0);
    EXPECT_TRUE(all.contains(44));
    EXPECT_FALSE(row.contains(44));
    ASSERT_EQ(row.size() + 1, all.size());
    for (const auto& [item, share] : row) {
      EXPECT_NEAR(share, all.at(item) / (1 - all.at(44)), 1e-5) << item;
    }
  }
}

}  // namespace
}  // namespace meander::data
