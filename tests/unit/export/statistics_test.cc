// SPDX-License-Identifier: Apache-2.0
#include "export/statistics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "models/model.h"
#include "tests/jagged_batch.h"

namespace meander::artefact {
namespace {

models::ModelSpec spec_of(const char* dice) {
  models::ModelSpec spec;
  spec.kind = "dnn";
  spec.slots = {{"item", 0, 4, true}};
  spec.head = {6, 5};
  spec.dice = dice;
  return spec;
}

struct Rows {
  Rows(std::uint32_t n, std::uint64_t seed) : values(n * 4) {
    Rng rng(seed);
    for (float& v : values) v = static_cast<float>(2 * rng.uniform() - 1);
    matrix = {values.data(), static_cast<std::int32_t>(n), 4, 4};
  }
  std::vector<float> values;
  nn::ConstMatrix matrix;
};

std::vector<float> infer(const nn::Graph& graph, nn::Session& session, const JaggedBatch& batch,
                         const Rows& rows, const std::vector<float>& dense, std::size_t samples) {
  InlineExecutor executor;
  std::vector<float> logits(samples);
  session.infer({batch.inputs(), {&rows.matrix, 1}, dense}, executor, logits);
  return logits;
}

TEST(Statistics, OfOneBatchMakeTheServingModelScoreThatBatchAlike) {
  const nn::Graph trained = models::build_model(spec_of("batch")).value();
  const nn::Graph serving = models::build_model(spec_of("moving")).value();
  const std::vector<float> dense = trained.initial_dense(5);
  const Rows rows(30, 3);
  Rng rng(7);
  const JaggedBatch batch(
      {random_groups(rng, {9, 4, 2}, 2, {30}, 1), random_groups(rng, {5, 1}, 2, {30}, 1)});
  nn::Session session(trained), serving_session(serving);
  const auto expected = infer(trained, session, batch, rows, dense, 10);

  StatisticsObserver observer(trained, serving);
  ASSERT_TRUE(observer.has_work());
  observer.observe(session);
  std::vector<float> converted = convert_dense(trained, dense, serving);
  const auto before = infer(serving, serving_session, batch, rows, converted, 10);
  observer.write(converted);
  const auto after = infer(serving, serving_session, batch, rows, converted, 10);
  float worst_before = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_NEAR(after[i], expected[i], 1e-5);
    worst_before = std::max(worst_before, std::abs(before[i] - expected[i]));
  }
  EXPECT_GT(worst_before, 1e-3) << "the test must be able to see a difference";
}

TEST(Statistics, ConversionKeepsParametersByName) {
  const nn::Graph trained = models::build_model(spec_of("moving")).value();
  const nn::Graph serving = models::build_model(spec_of("batch")).value();
  std::vector<float> dense = trained.initial_dense(5);
  for (std::size_t i = 0; i < dense.size(); ++i) dense[i] = static_cast<float>(i);
  const std::vector<float> converted = convert_dense(trained, dense, serving);
  ASSERT_LT(converted.size(), dense.size());
  for (const nn::ParamSpec& p : serving.params()) {
    for (const nn::ParamSpec& q : trained.params()) {
      if (p.name != q.name) continue;
      EXPECT_EQ(converted[p.offset], dense[q.offset]) << p.name;
    }
  }
  EXPECT_FALSE(StatisticsObserver(trained, serving).has_work());
  EXPECT_FALSE(StatisticsObserver(trained, trained).has_work());
}

}  // namespace
}  // namespace meander::artefact
