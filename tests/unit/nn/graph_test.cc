// SPDX-License-Identifier: Apache-2.0
#include "nn/graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "nn/ops/click.h"
#include "nn/ops/dense.h"
#include "nn/ops/dice.h"
#include "nn/ops/embedding.h"
#include "nn/ops/pool.h"

namespace meander::nn {
namespace {

using ::testing::Each;

Graph two_layers(const std::string& first = "first") {
  Graph graph({{"item", 0, 4, true}, {"category", 1, 2, true}}, 0);
  TensorId x = embedding(graph, "target", Source::kTarget, {0, 1});
  x = dice(graph, "dice", dense(graph, first, x, 8), DiceStatistics::kMoving);
  graph.set_logits(dense(graph, "second", x, 1));
  graph.finish();
  return graph;
}

const ParamSpec& param(const Graph& graph, const std::string& name) {
  for (const ParamSpec& spec : graph.params()) {
    if (spec.name == name) return spec;
  }
  ADD_FAILURE() << "no parameter " << name;
  return graph.params()[0];
}

std::vector<float> values(const Graph& graph, const std::string& name, std::uint64_t seed) {
  const ParamSpec& spec = param(graph, name);
  const std::vector<float> dense = graph.initial_dense(seed);
  const auto begin = dense.begin() + static_cast<std::ptrdiff_t>(spec.offset);
  return {begin, begin + spec.rows * spec.cols};
}

TEST(Graph, StatisticsComeAfterAllThatIsTrained) {
  const Graph graph = two_layers();
  EXPECT_EQ(graph.dense_trained(), 6u * 8 + 8 + 8 + 8 + 1);
  EXPECT_EQ(graph.dense_size(), graph.dense_trained() + 16);
  EXPECT_EQ(param(graph, "dice/mean").offset, graph.dense_trained());
  EXPECT_LT(param(graph, "second/bias").offset, graph.dense_trained());
}

TEST(Graph, ParametersFillTheDenseVectorWithoutGaps) {
  const Graph graph = two_layers();
  std::vector<int> owners(graph.dense_size(), 0);
  for (const ParamSpec& spec : graph.params()) {
    for (std::int32_t i = 0; i < spec.rows * spec.cols; ++i) ++owners[spec.offset + i];
  }
  EXPECT_THAT(owners, Each(1));
}

TEST(Graph, InitialValuesDependOnSeedAndNameAlone) {
  const Graph graph = two_layers();
  EXPECT_EQ(graph.initial_dense(3), graph.initial_dense(3));
  EXPECT_NE(values(graph, "second/kernel", 3), values(graph, "second/kernel", 4));
  const Graph renamed = two_layers("another");
  EXPECT_EQ(values(graph, "second/kernel", 3), values(renamed, "second/kernel", 3));
  EXPECT_NE(values(graph, "first/kernel", 3), values(renamed, "another/kernel", 3));
}

TEST(Graph, GlorotFillsItsRangeEvenly) {
  Graph graph({{"item", 0, 60, true}}, 0);
  const TensorId x = embedding(graph, "target", Source::kTarget, {0});
  graph.set_logits(dense(graph, "out", dense(graph, "wide", x, 100), 1));
  graph.finish();
  const std::vector<float> kernel = values(graph, "wide/kernel", 5);
  const float bound = std::sqrt(6.0f / 160);
  double mean = 0, square = 0;
  for (float v : kernel) {
    EXPECT_LE(std::abs(v), bound);
    mean += v / static_cast<double>(kernel.size());
    square += v * v / static_cast<double>(kernel.size());
  }
  EXPECT_NEAR(mean, 0, 0.02 * bound);
  EXPECT_NEAR(square, bound * bound / 3, 0.02 * bound * bound);
  EXPECT_THAT(values(graph, "wide/bias", 5), Each(0.0f));
}

TEST(Graph, KnowsItsTables) {
  Graph graph({{"item", 0, 4, true}, {"liked_item", 0, 4, true}, {"user", 1, 3, false}}, 0);
  EXPECT_EQ(graph.tables(), 2);
  EXPECT_EQ(graph.table_width(0), 4);
  EXPECT_EQ(graph.table_width(1), 3);
}

TEST(GraphDeathTest, OneTableHasOneWidth) {
  EXPECT_DEATH(Graph({{"item", 0, 4, true}, {"user", 0, 3, false}}, 0), "user");
}

TEST(GraphDeathTest, TwoParametersOfOneNameAreRefused) {
  Graph graph({{"item", 0, 4, true}}, 0);
  const TensorId x = embedding(graph, "target", Source::kTarget, {0});
  dense(graph, "layer", x, 4);
  EXPECT_DEATH(dense(graph, "layer", x, 4), "layer/kernel");
}

TEST(GraphDeathTest, AnOpOfOnePartCannotFollowOneOfTheBatch) {
  Graph graph({{"item", 0, 4, true}}, 0);
  const TensorId x = embedding(graph, "target", Source::kTarget, {0});
  dice(graph, "dice", x, DiceStatistics::kBatch);
  EXPECT_DEATH(embedding(graph, "history", Source::kHistory, {0}), "history.*dice");
}

TEST(GraphDeathTest, HistoryRowsDoNotReachTheBatch) {
  Graph graph({{"item", 0, 4, true}}, 0);
  const TensorId x = embedding(graph, "target", Source::kTarget, {0});
  const TensorId history = embedding(graph, "history", Source::kHistory, {0});
  dice(graph, "dice", x, DiceStatistics::kBatch);
  EXPECT_DEATH(dense(graph, "late", history, 2), "late");
}

TEST(GraphDeathTest, LogitsMustBeSet) {
  Graph graph({{"item", 0, 4, true}}, 0);
  EXPECT_DEATH(graph.finish(), "logits");
}

}  // namespace
}  // namespace meander::nn
