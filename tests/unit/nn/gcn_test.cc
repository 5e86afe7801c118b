// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/gcn.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/unit/nn/step_check.h"

namespace meander::nn {
namespace {

constexpr std::int32_t kNodes = StepCheck::kKeys, kClasses = StepCheck::kKeys;
constexpr std::int32_t kWords = 4, kHidden = 3, kCandidates = 2;
constexpr std::int32_t kClass = 0, kNode = 1;  // slots, and their tables
const std::vector<std::vector<std::int32_t>> kParts = {{0, 0, 0}, {0, 0}};  // no histories

// A ring with a chord, and self loops. Node 4 has no words.
std::shared_ptr<const SparseMatrix> small_adjacency() {
  std::vector<SparseEntry> entries;
  const auto connect = [&](std::uint32_t a, std::uint32_t b) {
    entries.insert(entries.end(), {{a, b, 1}, {b, a, 1}});
  };
  for (std::uint32_t n = 0; n < kNodes; ++n) {
    entries.push_back({n, n, 1});
    connect(n, (n + 1) % kNodes);
  }
  connect(0, 2);
  return std::make_shared<const SparseMatrix>(
      symmetrically_normalised(sparse_matrix(kNodes, kNodes, entries)));
}
std::shared_ptr<const SparseMatrix> small_features() {
  const std::vector<SparseEntry> entries = {{0, 0, 1}, {0, 2, 1}, {1, 1, 1}, {2, 0, 1},
                                            {2, 1, 1}, {2, 3, 1}, {3, 3, 1}};
  return std::make_shared<const SparseMatrix>(
      row_normalised(sparse_matrix(kNodes, kWords, entries)));
}

Graph small_model(GcnOptions options) {
  options.hidden = kHidden;
  options.classes = kClasses;
  Graph graph({{"class", kClass, 1, true}, {"node", kNode, 1, false}}, 0);
  const TensorId scores = gcn(graph, "gcn", small_adjacency(), small_features(), kNode, options);
  const ClassHead out = class_head(graph, "class", scores, kClass);
  graph.set_logits(out.logits);
  graph.set_ranks(out.ranks);
  graph.finish();
  return graph;
}

using Rows64 = std::vector<std::vector<double>>;

Rows64 product(const Rows64& a, const Rows64& b) {
  Rows64 c(a.size(), std::vector<double>(b[0].size()));
  for (std::size_t i = 0; i < a.size(); ++i) {
    for (std::size_t k = 0; k < b.size(); ++k) {
      for (std::size_t j = 0; j < b[0].size(); ++j) c[i][j] += a[i][k] * b[k][j];
    }
  }
  return c;
}
Rows64 whole(const SparseMatrix& a) {
  Rows64 rows(a.rows, std::vector<double>(a.cols));
  for (std::int32_t r = 0; r < a.rows; ++r) {
    for (std::uint32_t e = a.begin[r]; e < a.begin[r + 1]; ++e) rows[r][a.column[e]] = a.value[e];
  }
  return rows;
}
Rows64 param(const StepCheck& check, std::size_t index) {
  const ParamSpec& spec = check.graph().params()[index];
  StepCheck& mutable_check = const_cast<StepCheck&>(check);
  Rows64 rows;
  for (std::int32_t r = 0; r < spec.rows; ++r) {
    const float* p = &mutable_check.dense()[spec.offset + r * spec.cols];
    rows.emplace_back(p, p + spec.cols);
  }
  return rows;
}

// The scores of all nodes, by dense matrices from the formula.
Rows64 naive_scores(const StepCheck& check) {
  const Rows64 a = whole(*small_adjacency());
  Rows64 hidden = product(a, product(whole(*small_features()), param(check, 0)));
  for (auto& row : hidden) {
    for (double& x : row) x = std::max(x, 0.0);
  }
  return product(a, product(hidden, param(check, 1)));
}

std::size_t place(const StepCheck& check, std::int32_t table, std::uint32_t row) {
  const auto& rows = check.catalogue_rows(table);
  return std::ranges::find(rows, row) - rows.begin();
}

TEST(Gcn, ScoresLossAndRanksAreThoseOfTheFormula) {
  constexpr float kDecay = 0.1f;
  StepCheck check(small_model({.dropout = 0, .decay = kDecay}), kParts, kCandidates, 9);
  const StepOutput output = check.train();
  const Rows64 scores = naive_scores(check);
  const std::vector<float> ranks = check.infer_ranks(check.batch().inputs());
  double loss = 0;
  std::size_t sample = 0, group = 0;
  for (const PartInput& part : check.batch().inputs()) {
    const auto& columns = part.columns[static_cast<int>(Source::kTarget)];
    for (std::int32_t g = 0; g < part.layout.groups; ++g, ++group) {
      const auto& own = scores[place(check, kNode, columns[kNode][g * kCandidates])];
      const std::size_t first = place(check, kClass, columns[kClass][g * kCandidates]);
      double sum = 0;
      for (const double x : own) sum += std::exp(x);
      loss += std::log(sum) - own[first];
      EXPECT_EQ(ranks[group], std::ranges::count_if(own, [&](double x) { return x > own[first]; }));
      for (std::int32_t k = 0; k < kCandidates; ++k, ++sample) {
        const std::size_t c = place(check, kClass, columns[kClass][g * kCandidates + k]);
        EXPECT_NEAR(output.logits[sample], own[c], 1e-5);
      }
    }
  }
  double squares = 0;
  for (const auto& row : param(check, 0)) {
    for (const double x : row) squares += x * x;
  }
  EXPECT_NEAR(output.loss, loss / static_cast<double>(group) + 0.5 * kDecay * squares, 1e-5);
}

TEST(Gcn, GradientsMatchFiniteDifference) {
  StepCheck(small_model({.dropout = 0, .decay = 0.1f}), kParts, kCandidates, 9)
      .expect_gradients_match();
}

// What a seed drops is a function of the seed: the loss of one seed has a gradient.
TEST(Gcn, GradientsMatchFiniteDifferenceUnderDropout) {
  for (const std::uint64_t seed : {1, 2, 3}) {
    StepCheck check(small_model({.dropout = 0.3f}), kParts, kCandidates, 9);
    check.seed = seed;
    check.expect_gradients_match();
  }
}

TEST(Gcn, DropoutKeepsTheMeanAndIsOffAtInference) {
  StepCheck without(small_model({.dropout = 0}), kParts, kCandidates, 9);
  StepCheck with(small_model({.dropout = 0.3f}), kParts, kCandidates, 9);
  EXPECT_EQ(with.infer(), without.infer());
  without.train();
  std::vector<double> mean(with.logits().size());
  constexpr int kSteps = 20'000;
  int differ = 0;
  for (int step = 0; step < kSteps; ++step) {
    with.seed = static_cast<std::uint64_t>(step);
    with.train();
    differ += with.logits() != without.logits();
    for (std::size_t i = 0; i < mean.size(); ++i) mean[i] += with.logits()[i] / kSteps;
  }
  EXPECT_GT(differ, kSteps * 9 / 10);
  // Not exactly: the hidden layer is not linear in what is dropped before it.
  for (std::size_t i = 0; i < mean.size(); ++i) EXPECT_NEAR(mean[i], without.logits()[i], 0.15);
}

TEST(Gcn, AnEmptyPartAndAFormerStepChangeNothing) {
  // A seed of a batch depends on the number of its parts: no dropout.
  StepCheck alone(small_model({.dropout = 0}), kParts, kCandidates, 9);
  StepCheck more(small_model({.dropout = 0}), {kParts[0], {}, kParts[1]}, kCandidates, 9);
  const StepOutput expected = alone.train();
  more.train();
  const StepOutput output = more.train();
  EXPECT_EQ(output.loss, expected.loss);
  EXPECT_EQ(more.ddense(), alone.ddense());
}

}  // namespace
}  // namespace meander::nn
