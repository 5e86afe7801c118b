// SPDX-License-Identifier: Apache-2.0
#include "worker/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "models/model.h"

namespace meander::worker {
namespace {

TEST(DenseBlocks, RowsAndVectorBecomeEachOther) {
  DenseBlocks blocks(3, 21, 8);  // the floats [3, 24)
  EXPECT_EQ(blocks.blocks(), 3u);
  std::vector<float> dense(30);
  std::iota(dense.begin(), dense.end(), 0.0f);
  std::vector<float> rows(24, -1.0f);
  blocks.scatter(dense, rows);
  EXPECT_EQ(rows[0], 3.0f);
  EXPECT_EQ(rows[20], 23.0f);
  for (std::size_t i = 21; i < 24; ++i) EXPECT_EQ(rows[i], 0.0f) << "padding";

  std::vector<float> back(30, -1.0f);
  blocks.gather(rows, back);
  for (std::size_t i = 0; i < 30; ++i) EXPECT_EQ(back[i], i >= 3 && i < 24 ? dense[i] : -1.0f);
}

TEST(DenseBlocks, OrderOfLanesChangesRowsAndNotTheVector) {
  constexpr std::size_t kFloats = 1000;
  DenseBlocks blocks(0, kFloats, 16);
  const PartitionMap partitions = PartitionMap::even(5);
  blocks.group(partitions);
  for (std::size_t i = 1; i < blocks.keys().size(); ++i) {
    EXPECT_LE(partitions.lane_of(blocks.keys()[i - 1]), partitions.lane_of(blocks.keys()[i]));
  }
  std::vector<float> dense(kFloats), back(kFloats), rows(blocks.blocks() * 16);
  std::iota(dense.begin(), dense.end(), 0.0f);
  blocks.scatter(dense, rows);
  EXPECT_EQ(rows[0], static_cast<float>(blocks.keys()[0] * 16));
  blocks.gather(rows, back);
  EXPECT_EQ(back, dense);
}

std::vector<Buffer> keys_of(const Trainer& trainer, const std::shared_ptr<Step>& step) {
  std::vector<Buffer> keys;
  trainer.keys(step, keys);
  return keys;
}
std::vector<Buffer> gradients_of(const Trainer& trainer, const std::shared_ptr<Step>& step) {
  std::vector<Buffer> gradients;
  trainer.gradients(step, gradients);
  return gradients;
}

class TrainerTest : public testing::Test {
 protected:
  static nn::Graph graph(const std::string& activation) {
    models::ModelSpec spec;
    spec.kind = "dnn";
    spec.slots = {{.name = "item", .table = 0, .width = 2, .in_history = true}};
    spec.head = {4, 3};
    spec.activation = activation;
    spec.dice = "moving";
    Result<nn::Graph> graph = models::build_model(spec);
    CHECK(graph.ok()) << graph.status().message();
    return std::move(graph).value();
  }
  // Four groups of one behaviour in one part, with the rows of three keys.
  static std::shared_ptr<Step> step(const nn::Graph& graph) {
    auto step = std::make_shared<Step>();
    data::Batch& batch = step->batch;
    batch.samples = 4;
    batch.longest = 1;
    batch.keys = {{7, 8, 9}};
    data::Part& part = batch.parts.emplace_back();
    part.groups = 4;
    part.lengths = {1, 1, 1, 1};
    part.step_rows = {4};
    part.step_offset = {0};
    part.target = {{0, 1, 2, 0}};
    part.history = {{1, 2, 0, 2}};
    part.label = {1, 0, 1, 0};
    const std::vector<float> dense = graph.initial_dense(1);
    step->rows.push_back(Buffer::own(std::vector<float>{1, 2, 3, -1, -2, -3}));
    for (const DenseBlocks& table : dense_tables(graph, kBlock)) {
      std::vector<float> rows(table.blocks() * kBlock);
      table.scatter(dense, rows);
      step->rows.push_back(Buffer::own(std::move(rows)));
    }
    return step;
  }
  // Of the trained part and of the statistics of what would be pushed.
  std::pair<double, double> norms(const Trainer& trainer, const std::shared_ptr<Step>& step) const {
    const std::vector<Buffer> gradients = gradients_of(trainer, step);
    const auto norm = [](std::span<const float> values) {
      double squares = 0;
      for (float value : values) squares += double{value} * value;
      return std::sqrt(squares);
    };
    return {norm(gradients.at(1).as<float>()), norm(gradients.at(2).as<float>())};
  }

  static constexpr std::uint32_t kBlock = 16;
  const nn::Graph graph_ = graph("dice");
  InlineExecutor executor_;
};

TEST_F(TrainerTest, TablesAreTheGraphsThenDenseThenStatistics) {
  ASSERT_LT(graph_.dense_trained(), graph_.dense_size()) << "the test wants statistics";
  EXPECT_THAT(Trainer(graph_, kBlock, 0).widths(), testing::ElementsAre(2, kBlock, kBlock));
}

TEST_F(TrainerTest, FrozenRowsAreNeitherPulledNorPushed) {
  models::ModelSpec spec;
  spec.kind = "dnn";
  spec.slots = {{.name = "item", .table = 0, .width = 2, .in_history = true},
                {.name = "content", .table = 1, .width = 2, .in_history = true, .frozen = true}};
  spec.head = {4, 3};
  spec.activation = "relu";
  const nn::Graph graph = models::build_model(spec).value();
  const std::vector<float> rows = {1, 2, 3, 4, 0, 0};
  const auto train = [&](const std::vector<float>& frozen) {
    Trainer trainer(graph, kBlock, 0, nullptr, nn::Precision::kF32, {{}, {frozen.data(), 3, 2, 2}});
    trainer.set_partitions(PartitionMap::even(1));
    const std::shared_ptr<Step> step = this->step(graph);
    step->batch.keys.emplace_back();
    step->batch.parts[0].target.push_back({2, 0, 1, 2});
    step->batch.parts[0].history.push_back({0, 2, 2, 1});
    step->rows.insert(step->rows.begin() + 1, Buffer());
    EXPECT_EQ(keys_of(trainer, step).at(1).size(), 0u);
    EXPECT_TRUE(trainer.train(*step, executor_).ok());
    const std::vector<Buffer> gradients = gradients_of(trainer, step);
    EXPECT_EQ(gradients.at(0).size(), 6 * sizeof(float));
    EXPECT_EQ(gradients.at(1).size(), 0u);
    EXPECT_GT(gradients.at(2).size(), 0u);
    return step->loss;
  };
  EXPECT_NE(train(rows), train(std::vector<float>(6, 0.5f))) << "the rows are not read";
}

TEST_F(TrainerTest, ClipsTheTrainedGradientAndLeavesStatisticsAlone) {
  Trainer free(graph_, kBlock, 0), clipped(graph_, kBlock, 1e-3f);
  const PartitionMap partitions = PartitionMap::even(1);
  free.set_partitions(partitions);
  clipped.set_partitions(partitions);
  const std::shared_ptr<Step> a = step(graph_), b = step(graph_);
  ASSERT_TRUE(free.train(*a, executor_).ok());
  ASSERT_TRUE(clipped.train(*b, executor_).ok());
  const auto [norm, statistics] = norms(free, a);
  const auto [clipped_norm, same_statistics] = norms(clipped, b);
  EXPECT_GT(norm, 1e-3);
  EXPECT_NEAR(clipped_norm, 1e-3, 1e-8);
  EXPECT_GT(statistics, 0);
  EXPECT_EQ(same_statistics, statistics);
  EXPECT_EQ(std::memcmp(a->gradients[0].get().data(), b->gradients[0].get().data(),
                        a->gradients[0].get().size_bytes()),
            0)
      << "rows of tables are not clipped";
}

TEST_F(TrainerTest, TrainAndInferScoreAlikeWhereNothingIsRandom) {
  const nn::Graph relu = graph("relu");
  Trainer trainer(relu, kBlock, 0);
  trainer.set_partitions(PartitionMap::even(1));
  const std::shared_ptr<Step> step = this->step(relu);
  ASSERT_TRUE(trainer.train(*step, executor_).ok());
  const std::vector<float> trained(step->logits.get().begin(), step->logits.get().end());
  trainer.infer(*step, executor_);
  EXPECT_THAT(trained, testing::ElementsAreArray(step->logits.get()));
  ScoreSums scores;
  add_scores(*step, scores);
  EXPECT_EQ(scores.samples(), 4u);
  EXPECT_EQ(scores.positives(), 2u);
}

// Stands for all other workers: what they add to each sum.
class Others final : public Collective {
 public:
  Status sum(std::span<float> values) override {
    own.emplace_back(values.begin(), values.end());
    const std::vector<float>& added = adds.at(own.size() - 1);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] += added.at(i);
    return {};
  }
  std::vector<std::vector<float>> adds, own;
};

TEST_F(TrainerTest, WorkerOfStreamZeroMovesTheDenseVectorAndTheMeanGradient) {
  const std::size_t size = graph_.dense_size();
  Others others;
  others.adds = {std::vector<float>(size, 0.0f), std::vector<float>(size + 1, 1.0f)};
  Trainer alone(graph_, kBlock, 0), together(graph_, kBlock, 0, &others);
  alone.set_partitions(PartitionMap::even(1));
  together.set_partitions(PartitionMap::even(1));
  const auto a = step(graph_), b = step(graph_);
  ASSERT_TRUE(alone.train(*a, executor_).ok());
  ASSERT_TRUE(together.train(*b, executor_).ok());
  for (std::size_t i = 0; i < size; ++i) {
    EXPECT_FLOAT_EQ(b->ddense.get()[i], (a->ddense.get()[i] + 1) / 2) << i;
  }
  EXPECT_FALSE(keys_of(together, b)[1].empty());
  EXPECT_EQ(gradients_of(together, b)[1].size(), gradients_of(alone, a)[1].size());
}

TEST_F(TrainerTest, OtherWorkersTakeTheDenseVectorFromTheSumAndPushNoneOfIt) {
  const std::size_t size = graph_.dense_size();
  Others others;
  others.adds = {graph_.initial_dense(1), std::vector<float>(size + 1, 0.0f)};
  Trainer alone(graph_, kBlock, 0), together(graph_, kBlock, 0, &others);
  together.set_partitions(PartitionMap::even(1));
  const auto a = step(graph_), b = step(graph_);
  b->id.stream = 1;
  b->rows.resize(1);  // nothing dense was pulled
  ASSERT_TRUE(alone.train(*a, executor_).ok());
  ASSERT_TRUE(together.train(*b, executor_).ok());
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(b->logits.get()[i], a->logits.get()[i]);
  EXPECT_TRUE(keys_of(together, b)[1].empty());
  EXPECT_TRUE(gradients_of(together, b)[1].empty());
  EXPECT_FALSE(gradients_of(together, b)[0].empty());
}

TEST_F(TrainerTest, StepWithoutSamplesCountsNothingInTheMean) {
  const std::size_t size = graph_.dense_size();
  Others others;
  others.adds = {graph_.initial_dense(1), std::vector<float>(size + 1, 1.0f)};
  Trainer together(graph_, kBlock, 0, &others);
  together.set_partitions(PartitionMap::even(1));
  const auto b = step(graph_);
  b->batch.samples = 0;
  EXPECT_TRUE(together.has_work(*b));
  EXPECT_FALSE(Trainer(graph_, kBlock, 0).has_work(*b));
  ASSERT_TRUE(together.train(*b, executor_).ok());
  EXPECT_THAT(others.own[1], testing::Each(0.0f));
  EXPECT_EQ(b->ddense.get()[0], 1.0f);
  EXPECT_TRUE(gradients_of(together, b)[0].empty());
  EXPECT_FALSE(gradients_of(together, b)[1].empty());
}

}  // namespace
}  // namespace meander::worker
