// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/sage.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "nn/ops/broadcast.h"
#include "nn/ops/gcn.h"
#include "nn/ops/product.h"
#include "nn/sparse.h"
#include "tests/unit/nn/step_check.h"
#include "tests/unit/nn/threads_executor.h"

namespace meander::nn {
namespace {

constexpr std::int32_t kWidth = 3, kHidden = 4, kCandidates = 2, kGroups = 5;
constexpr std::int32_t kClasses = StepCheck::kKeys;
const std::vector<std::vector<std::int32_t>> kParts = {{0, 0, 0}, {0, 0}};  // no histories

// Four targets; seven nodes within one hop, nine within two. Nodes are of one table or of two, as
// words or as themselves: here the mean of a few rows. Node 3 has no neighbours, node 8 no rows.
class Around {
 public:
  explicit Around(bool has_items) : nodes_{4, 7, 9} {
    const std::vector<SparseEntry> near = {
        {0, 4, .5f}, {0, 5, .5f}, {1, 0, 1}, {2, 6, .25f}, {2, 5, .75f}};
    const std::vector<SparseEntry> far = {{0, 7, 1},   {1, 0, .5f}, {1, 8, .5f}, {2, 2, 1},
                                          {4, 8, .5f}, {4, 3, .5f}, {5, 7, 1},   {6, 1, 1}};
    hops_ = {sparse_matrix(4, 7, near), sparse_matrix(7, 9, far)};
    const std::vector<SparseEntry> described[2] = {
        {{0, 1, 1}, {1, 0, .5f}, {1, 4, .5f}, {2, 3, 1}, {5, 1, .5f}, {5, 2, .5f}, {7, 3, 1}},
        {{3, 4, 1}, {4, 0, 1}, {6, 2, .5f}, {6, 1, .5f}}};
    for (const auto& rows : described) {
      inputs_.push_back(sparse_matrix(9, StepCheck::kKeys, rows));
    }
    view.nodes = nodes_;
    for (const SparseMatrix& hop : hops_) view.hops.push_back(hop.view());
    for (const SparseMatrix& input : inputs_) view.inputs.push_back(input.view());
    view.users = users_;
    if (has_items) view.items = items_;
  }
  const SparseMatrix& hop(std::size_t h) const { return hops_[h]; }
  const SparseMatrix& input(std::size_t t) const { return inputs_[t]; }

  Neighbourhood view;

 private:
  std::vector<std::int32_t> nodes_;
  std::vector<SparseMatrix> hops_, inputs_;
  // Groups 0 and 3 are of one node, and a node may be of a group and of a sample.
  std::vector<std::uint32_t> users_ = {0, 1, 2, 0, 3};
  std::vector<std::uint32_t> items_ = {2, 1, 3, 3, 0, 1, 2, 2, 1, 0};
};

std::vector<SlotSpec> slots(std::int32_t width = kWidth) {
  return {{"class", 0, width, true}, {"node", 1, width, false}};
}
Graph of_nodes(SageOptions options) {
  options.hidden = kHidden;
  options.out = kClasses;
  const std::int32_t width = options.rows_are_weights ? 2 * kHidden : kWidth;
  Graph graph(slots(width), 0);
  const Sage nodes = sage(graph, "sage", width, false, options);
  const ClassHead out = class_head(graph, "class", nodes.users, 0);
  graph.set_logits(out.logits);
  graph.set_ranks(out.ranks);
  graph.finish();
  return graph;
}
Graph of_users_and_items(SageOptions options) {
  options.hidden = options.out = kHidden;
  Graph graph(slots(), 0);
  const Sage nodes = sage(graph, "sage", kWidth, true, options);
  probe(graph, product(graph, "both", broadcast(graph, "user", nodes.users), nodes.items));
  return graph;
}

using Rows64 = std::vector<std::vector<double>>;

Rows64 param(StepCheck& check, const std::string& name) {
  for (const ParamSpec& spec : check.graph().params()) {
    if (spec.name != name) continue;
    Rows64 rows;
    for (std::int32_t r = 0; r < spec.rows; ++r) {
      const float* p = &check.dense()[spec.offset + r * spec.cols];
      rows.emplace_back(p, p + spec.cols);
    }
    return rows;
  }
  ADD_FAILURE() << "no " << name;
  return {};
}

// What the rows say of a node.
Rows64 described(StepCheck& check, const Around& around) {
  const std::int32_t width = check.graph().table_width(0);
  Rows64 h(9, std::vector<double>(width));
  for (std::size_t t = 0; t < 2; ++t) {
    const SparseMatrix& input = around.input(t);
    for (std::int32_t n = 0; n < 9; ++n) {
      for (std::uint32_t e = input.begin[n]; e < input.begin[n + 1]; ++e) {
        for (std::int32_t c = 0; c < width; ++c) {
          h[n][c] += double{input.value[e]} *
                     check.table(static_cast<std::int32_t>(t))[input.column[e] * width + c];
        }
      }
    }
  }
  return h;
}

// The vectors of the targets, node by node from the formula.
Rows64 naive(StepCheck& check, const Around& around, bool rows_are_weights) {
  Rows64 h = described(check, around);
  for (std::size_t l = 0; l < 2; ++l) {
    const Rows64 b = param(check, "sage/bias" + std::to_string(l));
    const std::size_t in = h[0].size(), out = b[0].size();
    Rows64 w;
    if (l == 0 && rows_are_weights) {
      // What the layer adds up for a node is there already, in its half of the row.
      w.assign(2 * in, std::vector<double>(out));
      for (std::size_t c = 0; c < out; ++c) w[c][c] = w[in + out + c][c] = 1;
    } else {
      w = param(check, "sage/kernel" + std::to_string(l));
    }
    const SparseMatrix& hop = around.hop(1 - l);
    Rows64 next;
    for (std::int32_t n = 0; n < hop.rows; ++n) {
      std::vector<double> z = h[n];
      z.resize(2 * in);
      for (std::uint32_t e = hop.begin[n]; e < hop.begin[n + 1]; ++e) {
        for (std::size_t c = 0; c < in; ++c) {
          z[in + c] += double{hop.value[e]} * h[hop.column[e]][c];
        }
      }
      std::vector<double>& of_node = next.emplace_back(b[0]);
      for (std::size_t i = 0; i < z.size(); ++i) {
        for (std::size_t c = 0; c < out; ++c) of_node[c] += z[i] * w[i][c];
      }
      for (double& x : of_node) x = l == 0 ? std::max(x, 0.0) : x;
    }
    h = next;
  }
  return h;
}

TEST(Sage, VectorsOfTargetsAndLossAreThoseOfTheFormula) {
  const Around around(false);
  for (const bool rows_are_weights : {false, true}) {
    StepCheck check(of_nodes({.rows_are_weights = rows_are_weights}), kParts, kCandidates, 9);
    check.neighbourhood = &around.view;
    const StepOutput output = check.train();
    const Rows64 scores = naive(check, around, rows_are_weights);
    double loss = 0;
    std::size_t sample = 0, group = 0;
    for (const PartInput& part : check.batch().inputs()) {
      const auto& column = part.columns[static_cast<int>(Source::kTarget)][0];
      for (std::int32_t g = 0; g < part.layout.groups; ++g, ++group) {
        const auto& own = scores[around.view.users[group]];
        const auto of_class = [&](std::int32_t k) {
          const auto& rows = check.catalogue_rows(0);
          return std::ranges::find(rows, column[g * kCandidates + k]) - rows.begin();
        };
        double sum = 0;
        for (const double x : own) sum += std::exp(x);
        loss += std::log(sum) - own[of_class(0)];
        for (std::int32_t k = 0; k < kCandidates; ++k, ++sample) {
          EXPECT_NEAR(output.logits[sample], own[of_class(k)], 1e-5);
        }
      }
    }
    ASSERT_EQ(group, static_cast<std::size_t>(kGroups));
    EXPECT_NEAR(output.loss, loss / kGroups, 1e-5);
  }
}

TEST(Sage, GradientsMatchFiniteDifference) {
  constexpr std::uint64_t kSeed = 24;  // no sum lies within a step of ReLU's kink
  const Around nodes(false), both(true);
  for (const float dropout : {0.0f, 0.3f}) {
    for (const bool rows_are_weights : {false, true}) {
      StepCheck of_class(of_nodes({.dropout = dropout, .rows_are_weights = rows_are_weights}),
                         kParts, kCandidates, kSeed);
      of_class.neighbourhood = &nodes.view;
      of_class.expect_gradients_match();
    }
    StepCheck of_both(of_users_and_items({.dropout = dropout}), kParts, kCandidates, kSeed);
    of_both.neighbourhood = &both.view;
    of_both.expect_gradients_match();
  }
}

TEST(Sage, DropoutIsOffAtInference) {
  const Around around(false);
  StepCheck without(of_nodes({}), kParts, kCandidates, 9);
  StepCheck with(of_nodes({.dropout = 0.3f}), kParts, kCandidates, 9);
  without.neighbourhood = with.neighbourhood = &around.view;
  EXPECT_EQ(with.infer(), without.infer());
  with.train();
  EXPECT_NE(with.logits(), without.logits());
}

TEST(Sage, ThreadsAndAFormerStepChangeNothing) {
  const Around around(true);
  StepCheck alone(of_users_and_items({.dropout = 0.3f}), kParts, kCandidates, 9);
  StepCheck beside(of_users_and_items({.dropout = 0.3f}), kParts, kCandidates, 9);
  alone.neighbourhood = beside.neighbourhood = &around.view;
  const StepOutput expected = alone.train();
  ThreadsExecutor executor;
  beside.train(executor);
  const StepOutput output = beside.train(executor);
  EXPECT_EQ(output.loss, expected.loss);
  EXPECT_EQ(beside.ddense(), alone.ddense());
  for (const std::int32_t t : {0, 1}) EXPECT_EQ(beside.dtable(t), alone.dtable(t));
}

}  // namespace
}  // namespace meander::nn
