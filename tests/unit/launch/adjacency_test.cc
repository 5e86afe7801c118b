// SPDX-License-Identifier: Apache-2.0
#include "launch/adjacency.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <string>

#include "data/prepare.h"

namespace meander::launch {
namespace {

constexpr std::int64_t kEver = std::numeric_limits<std::int64_t>::max();
constexpr double kHourMs = 3'600'000;

// Users 30, 10, 20 over several shards; the last event of each is held out. Item 7 twice by 30.
class AdjacencyTest : public ::testing::Test {
 protected:
  std::shared_ptr<const data::PreparedLog> log(bool has_time) {
    const std::string csv =
        "time,user,item\n"
        "0,30,7\n3600000,10,7\n7200000,30,5\n7200000,20,9\n10800000,30,7\n14400000,30,9\n"
        "14400000,10,5\n18000000,20,5\n";
    EXPECT_TRUE(storage_->write_atomic("a.csv", csv.data(), csv.size()).ok());
    data::PrepareOptions options;
    options.format = data::Format::kCsv;
    options.in = {"a.csv"};
    options.out = has_time ? "timed" : "plain";
    using data::ColumnRole;
    options.schema.columns = {
        {"time", has_time ? ColumnRole::kTime : ColumnRole::kIgnore, data::ColumnType::kInt},
        {"user", ColumnRole::kUser, data::ColumnType::kInt},
        {"item", ColumnRole::kItem, data::ColumnType::kInt}};
    const auto report = data::prepare(*storage_, options);
    EXPECT_TRUE(report.ok()) << report.status().message();
    return data::PreparedLog::open(*storage_, options.out).value();
  }
  // Expected: weights by (user, item) of 10, 20, 30 and 5, 7, 9, before they are normalised.
  static void expect_graph(const nn::SparseMatrix& a,
                           const std::map<std::pair<int, int>, double>& weights) {
    ASSERT_EQ(a.rows, 3);
    ASSERT_EQ(a.cols, 3);
    ASSERT_EQ(a.entries(), weights.size());
    std::map<int, double> of_user, of_item;
    for (const auto& [at, weight] : weights) {
      of_user[at.first] += weight;
      of_item[at.second] += weight;
    }
    for (std::int32_t u = 0; u < 3; ++u) {
      for (std::uint32_t e = a.begin[u]; e < a.begin[u + 1]; ++e) {
        const int i = static_cast<int>(a.column[e]);
        ASSERT_TRUE(weights.contains({u, i})) << u << ", " << i;
        EXPECT_NEAR(a.value[e], weights.at({u, i}) / std::sqrt(of_user[u] * of_item[i]), 1e-6);
      }
    }
  }
  std::unique_ptr<Storage> storage_ = make_memory_storage();
};

TEST_F(AdjacencyTest, HasAnEdgeForWhatWasTakenInTrainingHoweverOften) {
  const auto graph = adjacency_of(*log(false), kEver, 0);
  expect_graph(*graph, {{{0, 1}, 1}, {{1, 2}, 1}, {{2, 0}, 1}, {{2, 1}, 1}});
  const auto timed = adjacency_of(*log(true), kEver, 0);
  EXPECT_EQ(timed->value, graph->value);
  EXPECT_EQ(adjacency_of(*log(false), kEver, 5)->value, graph->value) << "it has no ages";
}

TEST_F(AdjacencyTest, AnEdgeOfTimesIsTheSumOfItsEventsHalvedEachHalfLife) {
  // The newest event of training is that of 10800000.
  expect_graph(*adjacency_of(*log(true), kEver, 2.0f), {{{0, 1}, std::exp2(-1.0)},
                                                        {{1, 2}, std::exp2(-0.5)},
                                                        {{2, 0}, std::exp2(-0.5)},
                                                        {{2, 1}, std::exp2(-1.5) + 1}});
}

TEST_F(AdjacencyTest, EndsWhereTrainingDoes) {
  expect_graph(*adjacency_of(*log(true), static_cast<std::int64_t>(2.5 * kHourMs), 2.0f),
               {{{0, 1}, std::exp2(-0.5)}, {{1, 2}, 1}, {{2, 0}, 1}, {{2, 1}, std::exp2(-1.0)}});
  EXPECT_EQ(adjacency_of(*log(true), -5, 0)->entries(), 0u);
}

TEST_F(AdjacencyTest, NeighboursOfAUserAndOfAnItemAreEachOthersByTheSameWeight) {
  const data::NeighbourGraph graph = neighbours_of(*log(true), kEver, 2.0f);
  EXPECT_EQ(graph.users, (std::vector<std::uint64_t>{10, 20, 30}));
  EXPECT_EQ(graph.items, (std::vector<std::uint64_t>{5, 7, 9}));
  EXPECT_EQ(graph.user_node(30), 2u);
  EXPECT_EQ(graph.item_node(5), 3u);
  EXPECT_EQ(graph.begin, (std::vector<std::uint64_t>{0, 1, 2, 4, 5, 7, 8}));
  EXPECT_EQ(graph.neighbour, (std::vector<std::uint32_t>{4, 5, 3, 4, 2, 0, 2, 1}));
  const double a = std::exp2(-1.0), b = std::exp2(-0.5), c = std::exp2(-1.5) + 1;
  const std::vector<double> up_to = {a, b, b, b + c, b, a, a + c, b};
  for (std::size_t e = 0; e < up_to.size(); ++e) {
    EXPECT_NEAR(graph.weight_up_to[e], up_to[e], 1e-6) << e;
  }
  EXPECT_EQ(graph.key, (std::vector<std::uint64_t>{10, 20, 30, 5, 7, 9}));
}

// Nodes 0, 2, 5 with words 7, 9, 11; 2 is linked to both others, once in each direction to 5.
class NodeTest : public ::testing::Test {
 protected:
  Result<std::shared_ptr<const data::PreparedLog>> prepare(const std::string& nodes,
                                                           const std::string& links) {
    EXPECT_TRUE(storage_->make_directories("in").ok());
    EXPECT_TRUE(storage_->write_atomic("in/a_nodes.txt", nodes.data(), nodes.size()).ok());
    EXPECT_TRUE(storage_->write_atomic("in/a_edges.txt", links.data(), links.size()).ok());
    data::PrepareOptions options;
    options.format = data::Format::kCora;
    options.in = {"in"};
    options.out = "prepared";
    RETURN_IF_ERROR(data::prepare(*storage_, options).status());
    return data::PreparedLog::open(*storage_, "prepared");
  }
  std::unique_ptr<Storage> storage_ = make_memory_storage();
};
constexpr const char* kNodes = "5 1 train 9 7\n0 0 test 7\n2 0 val 11 9 7\n";

TEST_F(NodeTest, ANodeIsAUserItsClassAnItemAndItsPartThatOfTheLog) {
  const auto log = prepare(kNodes, "0 2\n2 5\n5 2\n").value();
  EXPECT_EQ(log->users(), 3u);
  EXPECT_EQ(log->items().size(), 2u);
  EXPECT_EQ(log->train_targets(), 1u);
  EXPECT_EQ(log->test_targets(), 1u);
  EXPECT_EQ(log->test_negatives(), 0u);
  EXPECT_TRUE(log->test_history_is_known_part());
}

TEST_F(NodeTest, MatricesAreOfLinksWithSelfLoopsAndOfTheShareOfEachWord) {
  const auto log = prepare(kNodes, "0 2\n2 5\n5 2\n").value();
  const auto nodes = data::read_node_graph(*storage_, log->path()).value();
  const NodeMatrices matrices = node_matrices(*log, nodes).value();
  const nn::SparseMatrix &a = *matrices.adjacency, &x = *matrices.features;
  // Degrees 2, 3, 2 with the loops.
  const float root = 1 / std::sqrt(6.0f), third = 1 / 3.0f;
  EXPECT_EQ(a.begin, (std::vector<std::uint32_t>{0, 2, 5, 7}));
  EXPECT_EQ(a.column, (std::vector<std::uint32_t>{0, 1, 0, 1, 2, 1, 2}));
  const std::vector<float> weights = {0.5f, root, root, third, root, root, 0.5f};
  for (std::size_t e = 0; e < weights.size(); ++e) EXPECT_NEAR(a.value[e], weights[e], 1e-6);
  EXPECT_EQ(x.cols, 3);
  EXPECT_EQ(x.begin, (std::vector<std::uint32_t>{0, 1, 4, 6}));
  EXPECT_EQ(x.column, (std::vector<std::uint32_t>{0, 0, 1, 2, 0, 1}));
  EXPECT_EQ(x.value, (std::vector<float>{1, third, third, third, 0.5f, 0.5f}));
}

TEST_F(NodeTest, NeighboursAreLinkedNodesWithoutItselfAndWordsDescribeThem) {
  const auto log = prepare(kNodes, "0 2\n2 5\n5 2\n2 2\n").value();
  const auto nodes = data::read_node_graph(*storage_, log->path()).value();
  const data::NeighbourGraph graph = neighbours_of(*log, nodes).value();
  EXPECT_EQ(graph.users, (std::vector<std::uint64_t>{0, 2, 5}));
  EXPECT_TRUE(graph.items.empty());
  EXPECT_EQ(graph.begin, (std::vector<std::uint64_t>{0, 1, 3, 4}));
  EXPECT_EQ(graph.neighbour, (std::vector<std::uint32_t>{1, 0, 2, 1}));
  EXPECT_EQ(graph.weight_up_to, (std::vector<float>{1, 1, 2, 1}));
  EXPECT_EQ(graph.key_begin, (std::vector<std::uint64_t>{0, 1, 4, 6}));
  EXPECT_EQ(graph.key, (std::vector<std::uint64_t>{7, 7, 9, 11, 7, 9}));
}

TEST_F(NodeTest, WhatIsNoGraphIsRefused) {
  const auto strange = prepare(kNodes, "0 3\n").value();
  const auto nodes = data::read_node_graph(*storage_, strange->path()).value();
  const auto matrices = node_matrices(*strange, nodes);
  ASSERT_FALSE(matrices.ok());
  EXPECT_EQ(matrices.status().code(), Code::kInvalid);
  EXPECT_NE(matrices.status().message().find("a link between 0 and 3"), std::string::npos);
  const auto words = prepare(kNodes, "0 2\nzero one\n");
  ASSERT_FALSE(words.ok());
  EXPECT_NE(words.status().message().find("a_edges.txt:2: not a pair"), std::string::npos)
      << words.status().message();
  ASSERT_TRUE(storage_->remove("prepared/links.col").ok());
  EXPECT_EQ(data::read_node_graph(*storage_, "prepared").status().code(), Code::kNotFound);
}

}  // namespace
}  // namespace meander::launch
