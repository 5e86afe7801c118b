// SPDX-License-Identifier: Apache-2.0
// The example of docs/adding-a-model.md is real: it is this folder's two_towers.cc, and it trains.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <iterator>

#include "common/executor.h"
#include "models/model.h"
#include "tests/jagged_batch.h"

namespace meander::models {

nn::Graph build_two_towers(const ModelSpec& spec);

namespace {

std::string text_of(const std::string& path) {
  std::ifstream file(path);  // tests run in the root of the sources
  EXPECT_TRUE(file.is_open()) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(AddingAModel, ThePageShowsTheFileThatIsCompiledHere) {
  EXPECT_THAT(
      text_of("docs/adding-a-model.md"),
      ::testing::HasSubstr("```cpp\n" + text_of("tests/unit/models/two_towers.cc") + "```"));
}

TEST(AddingAModel, TheExampleLearnsABatchByHeart) {
  ModelSpec spec;
  spec.slots = {{"item", 0, 8, true}};
  spec.hidden = 16;
  nn::Graph graph = build_two_towers(spec);
  graph.finish();
  nn::Session session(graph);
  Rng rng(1);
  const JaggedBatch batch({random_groups(rng, {3, 2, 5, 1}, 2, {50}, 1)});
  std::vector<float> rows(50 * 8), drows(rows.size()), logits(8);
  for (float& x : rows) x = static_cast<float>(rng.uniform() - 0.5);
  std::vector<float> dense = graph.initial_dense(1), ddense(dense.size());
  const std::vector<nn::ConstMatrix> tables = {{rows.data(), 50, 8, 8}};
  const std::vector<nn::Matrix> dtables = {{drows.data(), 50, 8, 8}};
  nn::StepOutput output{dtables, ddense, logits};
  InlineExecutor executor;
  const auto step = [&] {
    session.train({batch.inputs(), tables, dense}, executor, output);
    for (std::size_t i = 0; i < dense.size(); ++i) dense[i] -= 0.5f * ddense[i];
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] -= 0.5f * drows[i];
    return output.loss;
  };
  const double first = step();
  for (int i = 0; i < 300; ++i) step();
  EXPECT_NEAR(first, std::log(2), 0.1);
  EXPECT_LT(step(), 0.1);
}

}  // namespace
}  // namespace meander::models
