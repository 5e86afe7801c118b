// SPDX-License-Identifier: Apache-2.0
// The ops that mix no steps of a history: each against finite differences through a whole step, in
// two parts of unlike size, and against its formula.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "nn/ops/affine.h"
#include "nn/ops/broadcast.h"
#include "nn/ops/click.h"
#include "nn/ops/concat.h"
#include "nn/ops/dense.h"
#include "nn/ops/dice.h"
#include "nn/ops/embedding.h"
#include "nn/ops/numeric.h"
#include "nn/ops/pool.h"
#include "nn/ops/prelu.h"
#include "nn/ops/product.h"
#include "tests/unit/nn/step_check.h"

namespace meander::nn {
namespace {

using ::testing::ElementsAre;

const std::vector<std::vector<std::int32_t>> kLengths = {{1, 4, 2}, {3, 3}};
constexpr std::int32_t kCandidates = 2;

StepCheck check_of(Graph graph) { return StepCheck(std::move(graph), kLengths, kCandidates, 7); }

TensorId target(Graph& graph) { return embedding(graph, "target", Source::kTarget, {0, 1, 2}); }
TensorId history(Graph& graph) { return embedding(graph, "history", Source::kHistory, {0, 1}); }

TEST(Embedding, BackwardMatchesFiniteDifference) {
  for (const Source source : {Source::kTarget, Source::kHistory, Source::kNegative}) {
    Graph graph = small_graph();
    probe(graph, embedding(graph, "rows", source, {1, 0}));
    check_of(std::move(graph)).expect_gradients_match();
  }
}

TEST(Embedding, PutsTheSlotsBesideEachOther) {
  Graph graph = small_graph();
  const TensorId rows = embedding(graph, "rows", Source::kTarget, {2, 0});
  probe(graph, rows);
  StepCheck check = check_of(std::move(graph));
  check.train();
  const PartInput& part = check.batch().inputs()[1];
  const ConstMatrix out = check.session().value(rows, 1);
  const auto& columns = part.columns[static_cast<int>(Source::kTarget)];
  ASSERT_EQ(out.rows, part.layout.samples());
  for (std::int32_t r = 0; r < out.rows; ++r) {
    const float* user = check.table(2).data() + 2 * columns[2][r];
    const float* item = check.table(0).data() + 3 * columns[0][r];
    EXPECT_THAT(std::vector<float>(out.row(r), out.row(r) + 5),
                ElementsAre(user[0], user[1], item[0], item[1], item[2]));
  }
}

// Item (width 3, trained) and content (4, frozen, `projected` columns), both in the history.
Graph content_graph(std::int32_t projected) {
  return Graph({{"item", 0, 3, true}, {"content", 1, 4, true, true, projected}}, 0);
}

TEST(Embedding, FrozenRowsAreReadAsTheyAreAndHaveNoGradient) {
  Graph graph = content_graph(0);
  const TensorId x = embedding(graph, "history", Source::kHistory, {0, 1});
  EXPECT_EQ(graph.spec(x).width, 7);
  probe(graph, x);
  StepCheck step(std::move(graph), {{1, 4}, {3}, {}}, 2, 5);
  step.train();
  const auto key = step.batch().inputs()[0].columns[static_cast<int>(Source::kHistory)][1][2];
  for (std::int32_t c = 0; c < 4; ++c) {
    EXPECT_EQ(step.session().value(x, 0).row(2)[3 + c], step.table(1)[4 * key + c]);
  }
  for (const float untouched : step.dtable(1)) EXPECT_EQ(untouched, 0);
  step.expect_gradients_match();  // of the trained rows
}

TEST(Embedding, ProjectionOfFrozenRowsIsOneLayerForAllLookUps) {
  Graph graph = content_graph(2);
  const TensorId target = embedding(graph, "target", Source::kTarget, {1});
  const TensorId history = embedding(graph, "history", Source::kHistory, {1, 0});
  const TensorId mean = pool(graph, "mean", history, Pooling::kMean);
  EXPECT_EQ(graph.spec(target).width, 2);
  EXPECT_EQ(graph.spec(history).width, 5);
  probe(graph, concat(graph, "both", {target, mean}));
  ASSERT_EQ(graph.params().size(), 2u);
  EXPECT_EQ(graph.params()[0].name, "content/kernel");
  EXPECT_EQ(graph.params()[1].name, "content/bias");
  StepCheck step(std::move(graph), {{1, 4, 2}, {3, 3}}, 3, 6);
  step.train();
  const auto key = step.batch().inputs()[1].columns[static_cast<int>(Source::kTarget)][1][4];
  for (std::int32_t c = 0; c < 2; ++c) {
    double sum = step.dense()[8 + c];
    for (std::int32_t k = 0; k < 4; ++k) {
      sum += double{step.table(1)[4 * key + k]} * step.dense()[2 * k + c];
    }
    EXPECT_NEAR(step.session().value(target, 1).row(4)[c], sum, 1e-5);
  }
  step.expect_gradients_match();
}

TEST(Embedding, ProjectsMoreRowsThanABlockHas) {
  Graph graph = content_graph(2);
  probe(graph, embedding(graph, "target", Source::kTarget, {1}));
  StepCheck step(std::move(graph), {std::vector<std::int32_t>(150, 1)}, 2, 7);  // 300 rows
  step.expect_gradients_match();
}

TEST(EmbeddingDeathTest, TrainedRowsAreNotProjected) {
  EXPECT_DEATH(Graph({{"item", 0, 3, true, false, 2}}, 0), "only frozen rows");
}

TEST(Embedding, NegativesMakeTheGraphAskForThem) {
  Graph graph = small_graph();
  history(graph);
  EXPECT_FALSE(graph.needs_negatives());
  embedding(graph, "negative", Source::kNegative, {0, 1});
  EXPECT_TRUE(graph.needs_negatives());
}

TEST(EmbeddingDeathTest, SlotOutsideTheHistoryIsRefused) {
  Graph graph = small_graph();
  EXPECT_DEATH(embedding(graph, "history", Source::kHistory, {2}), "user");
}

TEST(Numeric, BringsTheFeaturesAsTheyCame) {
  Graph graph = small_graph();
  const TensorId x = numeric_features(graph, "numeric");
  probe(graph, product(graph, "square", x, x));
  StepCheck check = check_of(std::move(graph));
  check.train();
  for (std::size_t p = 0; p < 2; ++p) {
    const ConstMatrix out = check.session().value(x, p);
    const std::vector<float> values(out.data, out.data + out.rows * out.cols);
    EXPECT_THAT(values, ::testing::ElementsAreArray(check.batch().inputs()[p].numeric));
  }
}

TEST(Concat, BackwardMatchesFiniteDifference) {
  Graph graph = small_graph();
  const TensorId q = target(graph);
  probe(graph, concat(graph, "all", {q, numeric_features(graph, "numeric"), q}));
  check_of(std::move(graph)).expect_gradients_match();
}

TEST(Product, BackwardMatchesFiniteDifference) {
  Graph graph = small_graph();
  const TensorId h = history(graph);
  const TensorId n = embedding(graph, "negative", Source::kNegative, {0, 1});
  probe(graph, product(graph, "product", h, n));
  check_of(std::move(graph)).expect_gradients_match();
}

TEST(Product, OfATensorWithItselfHasTwiceItsGradient) {
  Graph graph = small_graph();
  const TensorId q = target(graph);
  probe(graph, product(graph, "square", q, q));
  check_of(std::move(graph)).expect_gradients_match();
}

TEST(Pool, BackwardMatchesFiniteDifference) {
  for (const Pooling pooling : {Pooling::kSum, Pooling::kMean}) {
    Graph graph = small_graph();
    probe(graph, pool(graph, "pool", history(graph), pooling));
    check_of(std::move(graph)).expect_gradients_match();
  }
}

TEST(Pool, MeanIsTheSumOverTheLengthForEachCandidate) {
  Graph graph = small_graph();
  const TensorId h = history(graph);
  const TensorId sum = pool(graph, "sum", h, Pooling::kSum);
  const TensorId mean = pool(graph, "mean", h, Pooling::kMean);
  probe(graph, concat(graph, "both", {sum, mean}));
  StepCheck check = check_of(std::move(graph));
  check.train();
  const Layout& layout = check.batch().inputs()[0].layout;
  const ConstMatrix x = check.session().value(h, 0);
  for (std::int32_t s = 0; s < layout.samples(); ++s) {
    const std::int32_t g = s / kCandidates;
    float expected = 0;
    for (std::int32_t t = 0; t < layout.lengths[g]; ++t) {
      expected += x.row(layout.step_offset[t] + g)[4];
    }
    EXPECT_NEAR(check.session().value(sum, 0).row(s)[4], expected, 1e-6);
    EXPECT_NEAR(check.session().value(mean, 0).row(s)[4], expected / layout.lengths[g], 1e-6);
  }
}

// kHistory -> kGroup for the test of broadcast(): the first behaviour.
class FirstRows final : public Op {
 public:
  FirstRows(TensorId history, TensorId out) : history_(history), out_(out) {}
  std::string name() const override { return "first"; }
  std::vector<TensorId> inputs() const override { return {history_}; }
  std::vector<TensorId> outputs() const override { return {out_}; }
  void forward(const OpContext& context) const override {
    const Matrix x = context.value(history_), out = context.value(out_);
    for (std::int32_t g = 0; g < out.rows; ++g) std::copy_n(x.row(g), x.cols, out.row(g));
  }
  void backward(const OpContext& context) const override {
    const Matrix dx = context.grad(history_), dout = context.grad(out_);
    for (std::int32_t g = 0; g < dout.rows; ++g) {
      for (std::int32_t c = 0; c < dx.cols; ++c) dx.row(g)[c] += dout.row(g)[c];
    }
  }
  void emit_onnx(GraphWriter&) const override {}

 private:
  TensorId history_, out_;
};

TEST(Broadcast, BackwardMatchesFiniteDifference) {
  Graph graph = small_graph();
  const TensorId h = history(graph);
  const TensorId first = graph.tensor(Rows::kGroup, 5);
  graph.add(std::make_unique<FirstRows>(h, first));
  const TensorId all = broadcast(graph, "all", first);
  probe(graph, all);
  StepCheck check = check_of(std::move(graph));
  check.expect_gradients_match();
  EXPECT_EQ(check.session().value(all, 0).row(0)[1], check.session().value(first, 0).row(0)[1]);
  EXPECT_EQ(check.session().value(all, 0).row(1)[1], check.session().value(first, 0).row(0)[1]);
}

TEST(FixedAffine, BackwardMatchesFiniteDifference) {
  Graph graph = small_graph();
  probe(graph, fixed_affine(graph, "scale", target(graph)));
  check_of(std::move(graph)).expect_gradients_match();
}

TEST(FixedAffine, StartsAsADivisionByTheDeviation) {
  Graph graph = small_graph();
  const TensorId x = target(graph);
  const TensorId y = fixed_affine(graph, "scale", x);
  probe(graph, y);
  StepCheck check = check_of(std::move(graph));
  check.dense() = check.graph().initial_dense(1);
  check.train();
  EXPECT_NEAR(check.session().value(y, 0).row(0)[0],
              check.session().value(x, 0).row(0)[0] / std::sqrt(1.001), 1e-6);
}

TEST(Prelu, BackwardMatchesFiniteDifference) {
  Graph graph = small_graph();
  probe(graph, prelu(graph, "prelu", target(graph)));
  StepCheck check = check_of(std::move(graph));
  for (std::int32_t t = 0; t < 3; ++t) {
    for (float& x : check.table(t)) x += x < 0 ? -0.1f : 0.1f;  // a difference over the kink lies
  }
  check.expect_gradients_match();
}

TEST(Dense, BackwardMatchesFiniteDifference) {
  for (const Activation activation : {Activation::kNone, Activation::kSigmoid}) {
    Graph graph = small_graph();
    const TensorId hidden = dense(graph, "one", history(graph), 6, activation);
    probe(graph, dense(graph, "two", hidden, 3, activation));
    check_of(std::move(graph)).expect_gradients_match();
  }
}

TEST(Dense, OfNumbersAloneNeedsNoGradientOfThem) {
  Graph graph = small_graph();
  probe(graph, dense(graph, "dense", numeric_features(graph, "numeric"), 3, Activation::kSigmoid));
  check_of(std::move(graph)).expect_gradients_match();
}

TEST(Dense, ReluCutsTheValueAndItsGradient) {
  Graph graph = small_graph();
  const TensorId y = dense(graph, "dense", target(graph), 8, Activation::kRelu);
  probe(graph, y);
  StepCheck check = check_of(std::move(graph));
  // One column below zero whatever the input, and one above.
  const ParamSpec& bias = check.graph().params()[1];
  ASSERT_EQ(bias.name, "dense/bias");
  check.dense()[bias.offset] = -100;
  check.dense()[bias.offset + 1] = 100;
  check.train();
  EXPECT_EQ(check.session().value(y, 0).row(0)[0], 0);
  EXPECT_GT(check.session().value(y, 0).row(0)[1], 0);
  EXPECT_EQ(check.ddense()[bias.offset], 0);
  EXPECT_NE(check.ddense()[bias.offset + 1], 0);
}

TEST(Dice, BackwardMatchesFiniteDifference) {
  for (const DiceStatistics statistics : {DiceStatistics::kBatch, DiceStatistics::kMoving}) {
    Graph graph = small_graph();
    const TensorId hidden = dense(graph, "dense", target(graph), 4);
    const TensorId first = dice(graph, "dice1", hidden, statistics);
    const TensorId second = dense(graph, "dense2", first, 3);
    probe(graph, dice(graph, "dice2", second, statistics));
    check_of(std::move(graph)).expect_gradients_match();
  }
}

TEST(Dice, TakesItsStatisticsFromTheWholeBatch) {
  Graph graph = small_graph();
  const TensorId x = target(graph);
  const TensorId y = dice(graph, "dice", x, DiceStatistics::kBatch);
  probe(graph, y);
  StepCheck check = check_of(std::move(graph));
  check.train();
  const ConstMatrix in = check.session().value(x, 0), out = check.session().value(y, 0);
  ASSERT_EQ(in.rows, 10) << "the samples of both parts lie together";
  double mean = 0, variance = 0;
  for (std::int32_t r = 0; r < in.rows; ++r) mean += in.row(r)[2] / in.rows;
  for (std::int32_t r = 0; r < in.rows; ++r) {
    variance += (in.row(r)[2] - mean) * (in.row(r)[2] - mean) / in.rows;
  }
  const double alpha = check.dense()[2];
  for (std::int32_t r = 0; r < in.rows; ++r) {
    const double p =
        1 / (1 + std::exp(-(in.row(r)[2] - mean) / (std::sqrt(variance + 1e-9) + 1e-9)));
    EXPECT_NEAR(out.row(r)[2], in.row(r)[2] * (p + (1 - p) * alpha), 2e-6);
  }
}

TEST(Dice, MovingStatisticsGoTowardsTheBatchAndServeInference) {
  Graph graph = small_graph();
  const TensorId x = target(graph);
  const TensorId y = dice(graph, "dice", x, DiceStatistics::kMoving);
  probe(graph, y);
  StepCheck check = check_of(std::move(graph));
  EXPECT_EQ(check.graph().dense_trained(), 7u) << "alpha";
  EXPECT_EQ(check.graph().dense_size(), 21u) << "and, after it, mean and variance";
  check.train();
  const ConstMatrix batch = check.session().value(y, 0);
  const std::vector<float> trained(batch.data, batch.data + batch.rows * batch.cols);
  // A step of rate 1 along the gradient puts the statistics of this batch in place, and inference
  // with them is the training pass.
  for (std::size_t i = 7; i < 21; ++i) check.dense()[i] -= check.ddense()[i];
  check.infer();
  const ConstMatrix served = check.session().value(y, 0);
  for (std::size_t i = 0; i < trained.size(); ++i) EXPECT_NEAR(served.data[i], trained[i], 1e-5);
}

TEST(ClickLoss, BackwardMatchesFiniteDifference) {
  Graph graph = small_graph();
  const TensorId logits = dense(graph, "dense", target(graph), 1);
  graph.set_logits(logits);
  click_loss(graph, "loss", logits, 1.0f);
  graph.finish();
  check_of(std::move(graph)).expect_gradients_match();
}

// A graph whose second task is a dense layer on the target, behind a click loss at either scope.
Graph two_tasks(bool at_batch, float weight) {
  Graph graph = small_graph();
  TensorId x = target(graph);
  if (at_batch) x = dice(graph, "dice", x, DiceStatistics::kBatch);
  const TensorId logits = dense(graph, "first", x, 1), second = dense(graph, "second", x, 1);
  graph.set_logits(logits);
  graph.set_second_logits(second);
  click_loss(graph, "loss", logits, 1.0f);
  second_loss(graph, "second/loss", second, weight);
  graph.finish();
  return graph;
}

TEST(SecondLoss, BackwardMatchesFiniteDifference) {
  for (const bool at_batch : {false, true}) {
    check_of(two_tasks(at_batch, 0.75f)).expect_gradients_match();
  }
}

TEST(SecondLoss, IsTheMeanOverThoseWhoseLabelIsKnown) {
  const double without = check_of(two_tasks(false, 0)).train().loss;
  StepCheck check = check_of(two_tasks(false, 0.75f));
  const StepOutput output = check.train();
  const std::span<const float> logits = second_logits(check.graph(), check.session());
  ASSERT_EQ(logits.size(), check.logits().size());
  double sum = 0;
  std::size_t at = 0, known = 0;
  for (const PartInput& part : check.batch().inputs()) {
    for (const float label : part.second_label) {
      const double p = 1 / (1 + std::exp(-logits[at++]));
      if (std::isnan(label)) continue;
      sum -= std::log(label > 0 ? p : 1 - p);
      ++known;
    }
  }
  EXPECT_GT(known, 1u);
  EXPECT_LT(known, at) << "some are not known";
  EXPECT_NEAR(output.loss - without, 0.75 * sum / static_cast<double>(known), 1e-6);
}

TEST(SecondLoss, NothingKnownIsNoLossAndNoGradient) {
  const JaggedBatch batch([] {
    Rng rng(3);
    std::vector<JaggedGroup> groups = random_groups(rng, {3, 1}, 2, {5, 5, 5}, 2, 2);
    for (JaggedGroup& group : groups) group.second_label.assign(2, NAN);
    return std::vector<std::vector<JaggedGroup>>{groups};
  }());
  const Graph graph = two_tasks(true, 1);
  Session session(graph);
  std::vector<float> dense = graph.initial_dense(1), ddense(dense.size()), logits(4);
  std::vector<std::vector<float>> rows, drows;
  std::vector<ConstMatrix> tables;
  std::vector<Matrix> dtables;
  for (std::int32_t t = 0; t < graph.tables(); ++t) {
    const std::int32_t width = graph.table_width(t);
    rows.emplace_back(5 * width, 0.1f);
    drows.emplace_back(5 * width);
    tables.push_back({rows[t].data(), 5, width, width});
    dtables.push_back({drows[t].data(), 5, width, width});
  }
  StepOutput output{dtables, ddense, logits};
  InlineExecutor executor;
  session.train({batch.inputs(), tables, dense}, executor, output);
  EXPECT_NEAR(output.loss, output.cross_entropy, 1e-6);
  for (const ParamSpec& param : graph.params()) {
    if (!param.name.starts_with("second")) continue;
    for (std::int32_t i = 0; i < param.rows * param.cols; ++i) {
      EXPECT_EQ(ddense[param.offset + i], 0) << param.name;
    }
  }
}

TEST(ClickLoss, OfAPairIsTheMeanOverBothColumnsOfTheSoftmax) {
  Graph graph = small_graph();
  const TensorId pair =
      dense(graph, "dense", dice(graph, "dice", target(graph), DiceStatistics::kBatch), 2);
  const TensorId logits = pair_logit(graph, "logit", pair);
  graph.set_logits(logits);
  click_loss(graph, "loss", logits, 0.5f);
  graph.finish();
  StepCheck check = check_of(std::move(graph));
  check.expect_gradients_match();
  const StepOutput output = check.train();
  const ConstMatrix columns = check.session().value(pair, 0);
  double loss = 0;
  std::int32_t r = 0;
  for (const PartInput& part : check.batch().inputs()) {
    for (float label : part.label) {
      const double a = std::exp(columns.row(r)[0]), b = std::exp(columns.row(r)[1]);
      loss -= label * std::log(a / (a + b)) + (1 - label) * std::log(b / (a + b));
      EXPECT_NEAR(1 / (1 + std::exp(-check.logits()[r])), a / (a + b), 1e-6);
      ++r;
    }
  }
  EXPECT_NEAR(output.loss, loss / (2 * r), 1e-6);
  EXPECT_NEAR(output.cross_entropy, 2 * output.loss, 1e-6);
}

}  // namespace
}  // namespace meander::nn
