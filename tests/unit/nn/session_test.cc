// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <new>

#include "nn/ops/affine.h"
#include "nn/ops/click.h"
#include "nn/ops/concat.h"
#include "nn/ops/dense.h"
#include "nn/ops/dice.h"
#include "nn/ops/embedding.h"
#include "nn/ops/pool.h"
#include "nn/ops/product.h"
#include "tests/unit/nn/step_check.h"
#include "tests/unit/nn/threads_executor.h"

// Every allocation of this program is counted, for the test that there is none; but for the address
// sanitizer, which wants to be the only one to replace the allocator.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kCountsAllocations = false;
constexpr std::int64_t allocations = 0;
#else
constexpr bool kCountsAllocations = true;
namespace {
std::atomic<std::int64_t> allocations{0};

void* counted(std::size_t size, std::size_t align) {
  ++allocations;
  void* p = std::aligned_alloc(align, (size + align - 1) / align * align);
  if (p == nullptr) std::abort();
  return p;
}
}  // namespace

void* operator new(std::size_t size) { return counted(size, alignof(std::max_align_t)); }
void* operator new[](std::size_t size) { return counted(size, alignof(std::max_align_t)); }
void* operator new(std::size_t size, std::align_val_t align) {
  return counted(size, static_cast<std::size_t>(align));
}
void* operator new[](std::size_t size, std::align_val_t align) {
  return counted(size, static_cast<std::size_t>(align));
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
#endif

namespace meander::nn {
namespace {

// Both scopes: pooled history and target, a layer, Dice, a layer.
Graph small_model() {
  Graph graph = small_graph();
  const TensorId q = embedding(graph, "target", Source::kTarget, {0, 1});
  const TensorId h = embedding(graph, "history", Source::kHistory, {0, 1});
  const TensorId mean = pool(graph, "mean", h, Pooling::kMean);
  const TensorId user = embedding(graph, "user", Source::kTarget, {2});
  TensorId x = concat(graph, "all", {user, q, mean, product(graph, "both", q, mean)});
  x = dense(graph, "dense1", fixed_affine(graph, "scale", x), 6);
  x = dice(graph, "dice1", x, DiceStatistics::kBatch);
  const TensorId logits = pair_logit(graph, "logit", dense(graph, "dense2", x, 2));
  graph.set_logits(logits);
  click_loss(graph, "loss", logits, 0.5f);
  graph.finish();
  return graph;
}

TEST(Session, GradientsThroughBothScopesMatchFiniteDifference) {
  StepCheck(small_model(), {{2, 1}, {4, 3, 1}}, 2, 11).expect_gradients_match();
}

TEST(Session, ThreadsDoNotChangeOneBit) {
  StepCheck alone(small_model(), {{2, 1}, {4, 3, 1}, {5}}, 2, 11);
  StepCheck threaded(small_model(), {{2, 1}, {4, 3, 1}, {5}}, 2, 11);
  ThreadsExecutor executor;
  const StepOutput expected = alone.train();
  const StepOutput output = threaded.train(executor);
  EXPECT_EQ(output.loss, expected.loss);
  EXPECT_EQ(threaded.logits(), alone.logits());
  EXPECT_EQ(threaded.ddense(), alone.ddense());
  for (std::int32_t t = 0; t < 3; ++t) EXPECT_EQ(threaded.dtable(t), alone.dtable(t));
}

TEST(Session, AnEmptyPartChangesNothing) {
  StepCheck without(small_model(), {{2, 1}, {4}}, 2, 11);
  StepCheck with(small_model(), {{2, 1}, {4}, {}}, 2, 11);
  without.train();
  with.train();
  EXPECT_EQ(with.logits(), without.logits());
  EXPECT_EQ(with.ddense(), without.ddense());
  EXPECT_EQ(with.dtable(0), without.dtable(0));
}

TEST(Session, CuttingABatchIntoPartsChangesRoundingOnly) {
  StepCheck whole(small_model(), {{4, 3, 2, 1}}, 2, 11);
  StepCheck cut(small_model(), {{4}, {3}, {2}, {1}}, 2, 11);
  whole.train();
  cut.train();
  for (std::size_t i = 0; i < whole.logits().size(); ++i) {
    EXPECT_NEAR(cut.logits()[i], whole.logits()[i], 1e-5);
  }
  for (std::size_t i = 0; i < whole.ddense().size(); ++i) {
    EXPECT_NEAR(cut.ddense()[i], whole.ddense()[i], 1e-5);
  }
}

TEST(Session, ASecondStepStartsFromZeroGradients) {
  StepCheck check(small_model(), {{2, 1}, {4, 3, 1}}, 2, 11);
  check.train();
  const std::vector<float> ddense = check.ddense(), dtable = check.dtable(0);
  check.train();
  EXPECT_EQ(check.ddense(), ddense);
  EXPECT_EQ(check.dtable(0), dtable);
}

TEST(Session, InferenceGivesTheLogitsOfTraining) {
  StepCheck check(small_model(), {{2, 1}, {4, 3, 1}}, 2, 11);
  const std::vector<float> scores = check.infer();
  check.train();
  EXPECT_EQ(scores, check.logits());
}

TEST(Session, CrossEntropyIsOfTheLogits) {
  StepCheck check(small_model(), {{2, 1}, {4, 3, 1}}, 2, 11);
  const StepOutput output = check.train();
  double sum = 0;
  std::size_t s = 0;
  for (const PartInput& part : check.batch().inputs()) {
    for (float label : part.label) {
      const double p = 1 / (1 + std::exp(-double{check.logits()[s++]}));
      sum -= label == 1 ? std::log(p) : std::log(1 - p);
    }
  }
  EXPECT_NEAR(output.cross_entropy, sum / static_cast<double>(s), 1e-9);
}

TEST(Session, AStepOfASizeSeenBeforeAllocatesNothing) {
  if (!kCountsAllocations) GTEST_SKIP() << "the address sanitizer owns the allocator";
  const Graph graph = small_model();
  Session session(graph);
  std::vector<std::vector<float>> tables, dtables;
  std::vector<ConstMatrix> table_views;
  std::vector<Matrix> dtable_views;
  for (std::int32_t t = 0; t < graph.tables(); ++t) {
    const std::int32_t width = graph.table_width(t), keys = StepCheck::kKeys;
    tables.emplace_back(keys * width, 0.1f);
    dtables.emplace_back(keys * width);
    table_views.push_back({tables[t].data(), keys, width, width});
    dtable_views.push_back({dtables[t].data(), keys, width, width});
  }
  const std::vector<float> dense = graph.initial_dense(1);
  std::vector<float> ddense(dense.size());
  InlineExecutor executor;
  const auto run = [&](const JaggedBatch& batch, std::span<float> logits) {
    const std::int64_t before = allocations;
    StepOutput output{dtable_views, ddense, logits};
    session.train({batch.inputs(), table_views, dense}, executor, output);
    session.infer({batch.inputs(), table_views, dense}, executor, logits);
    return allocations - before;
  };
  Rng rng(5);
  const auto groups = [&](const std::vector<std::int32_t>& lengths) {
    return random_groups(rng, lengths, 2, {5, 5, 5}, 2, 2);
  };
  const JaggedBatch large({groups({9, 8, 7}), groups({6, 5})});
  const JaggedBatch small({groups({3}), groups({2, 1})});
  std::vector<float> logits(10);
  EXPECT_GT(run(large, logits), 0);
  EXPECT_EQ(run(large, logits), 0);
  EXPECT_EQ(run(small, std::span(logits).first(6)), 0);
  EXPECT_EQ(run(large, logits), 0);
}

}  // namespace
}  // namespace meander::nn
