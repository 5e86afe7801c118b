// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/next_item.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "common/check.h"
#include "nn/graph_writer.h"
#include "nn/ops/onnx_forms.h"
#include "nn/ops/position_runs.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

class ScoreCandidates final : public Op {
 public:
  ScoreCandidates(std::string name, TensorId states, bool is_history, TensorId candidates,
                  TensorId out)
      : name_(std::move(name)),
        states_(states),
        candidates_(candidates),
        out_(out),
        is_history_(is_history) {}

  std::string name() const override { return name_; }
  std::vector<TensorId> inputs() const override { return {states_, candidates_}; }
  std::vector<TensorId> outputs() const override { return {out_}; }

  void forward(const OpContext& context) const override {
    const Matrix states = context.value(states_), items = context.value(candidates_);
    const Matrix out = context.value(out_);
    const std::int32_t k = context.layout->candidates;
    std::fill_n(out.data, out.rows, 0.0f);
    for_states(*context.layout, [&](std::int32_t g, std::int32_t groups, std::int32_t row) {
      kernels().pool_backward(out.row(g * k), states.row(row), states.stride, items.row(g * k),
                              items.stride, out.row(g * k), nullptr, 0, groups, k, items.cols);
    });
  }

  void backward(const OpContext& context) const override {
    const Matrix states = context.value(states_), dstates = context.grad(states_);
    const Matrix items = context.value(candidates_), ditems = context.grad(candidates_);
    const Matrix dout = context.grad(out_);
    const std::int32_t k = context.layout->candidates;
    for_states(*context.layout, [&](std::int32_t g, std::int32_t groups, std::int32_t row) {
      if (ditems.data != nullptr) {
        kernels().pool_add(dout.row(g * k), states.row(row), states.stride, ditems.row(g * k),
                           ditems.stride, groups, k, items.cols);
      }
      for (std::int32_t i = 0; dstates.data != nullptr && i < groups * k; ++i) {
        kernels().axpy(*dout.row(g * k + i), items.row(g * k + i), dstates.row(row + i / k),
                       static_cast<std::size_t>(items.cols));
      }
    });
  }

  void emit_onnx(GraphWriter& writer) const override {
    const std::string states = writer.tensor(states_);
    const std::string last =
        onnx_repeat_candidates(writer, is_history_ ? onnx_last_states(writer, states) : states);
    const std::string product = writer.node("Mul", {last, writer.tensor(candidates_)});
    writer.bind(out_, writer.node("ReduceSum", {product, writer.constant_int({1}, {1})},
                                  {{"keepdims", std::int64_t{1}}}));
  }

 private:
  // body(first group, groups, row of the first one's state).
  template <class Body>
  void for_states(const Layout& layout, Body body) const {
    if (is_history_) return for_last_rows(layout, body);
    if (layout.groups > 0) body(0, layout.groups, 0);
  }

  std::string name_;
  TensorId states_, candidates_, out_;
  bool is_history_;
};

// Gradients of the scores, by state row.
struct Saved {
  float *positive, *negative;
};

class NextBce final : public Op {
 public:
  NextBce(std::string name, TensorId states, TensorId history, TensorId negatives,
          TensorId candidates)
      : name_(std::move(name)),
        states_(states),
        history_(history),
        negatives_(negatives),
        candidates_(candidates) {}

  std::string name() const override { return name_; }
  std::vector<TensorId> inputs() const override {
    return {states_, history_, negatives_, candidates_};
  }
  std::vector<TensorId> outputs() const override { return {}; }
  std::size_t saved_floats(const Layout& layout) const override {
    return 2 * static_cast<std::size_t>(layout.history_rows);
  }
  std::size_t scratch_floats(const Layout& layout) const override {
    return 3 * static_cast<std::size_t>(layout.history_rows);
  }

  void forward(const OpContext& context) const override {
    if (!context.training) return;
    const Layout& layout = *context.layout;
    CHECK_GE(layout.candidates, 2) << name_ << ": a target needs its negative";
    const std::int32_t rows = layout.history_rows;
    const Saved scores = saved_of(context);
    float* counts = context.scratch + 2 * static_cast<std::size_t>(rows);
    std::fill_n(context.saved, 2 * static_cast<std::size_t>(rows), 0.0f);
    const Matrix states = context.value(states_);
    const auto dots = [&](std::int32_t row, ConstMatrix items, std::int32_t n, float* scores) {
      kernels().pool_backward(scores + row, states.row(row), states.stride, items.data,
                              items.stride, scores + row, nullptr, 0, n, 1, states.cols);
    };
    const Matrix history = context.value(history_), negatives = context.value(negatives_);
    for_next_rows(
        layout,
        [&](std::int32_t row, std::int32_t next, std::int32_t n) {
          dots(row, rows_from(history, next), n, scores.positive);
          dots(row, rows_from(negatives, next), n, scores.negative);
          std::copy_n(context.input->negative_valid.data() + next, n, counts + row);
        },
        [&](std::int32_t row, std::int32_t group, std::int32_t n) {
          const Matrix candidates = context.value(candidates_);
          dots(row, candidate(candidates, layout, group, 0), n, scores.positive);
          dots(row, candidate(candidates, layout, group, 1), n, scores.negative);
          std::fill_n(counts + row, n, 1.0f);
        });
    *context.loss += loss_of(context, scores, counts);
  }

  void backward(const OpContext& context) const override {
    const Layout& layout = *context.layout;
    const Saved dscores = saved_of(context);
    const Matrix states = context.value(states_), dstates = context.grad(states_);
    // Of n positions from `row` on, with `items` against which they were scored.
    const auto add = [&](std::int32_t row, ConstMatrix items, Matrix ditems, std::int32_t n,
                         const float* dscore) {
      if (dstates.data != nullptr) {
        kernels().pool_add(dscore + row, items.data, items.stride, dstates.row(row), dstates.stride,
                           n, 1, states.cols);
      }
      if (ditems.data == nullptr) return;
      kernels().pool_add(dscore + row, states.row(row), states.stride, ditems.data, ditems.stride,
                         n, 1, states.cols);
    };
    for_next_rows(
        layout,
        [&](std::int32_t row, std::int32_t next, std::int32_t n) {
          add(row, rows_from(context.value(history_), next),
              rows_from(context.grad(history_), next), n, dscores.positive);
          add(row, rows_from(context.value(negatives_), next),
              rows_from(context.grad(negatives_), next), n, dscores.negative);
        },
        [&](std::int32_t row, std::int32_t group, std::int32_t n) {
          const Matrix items = context.value(candidates_), ditems = context.grad(candidates_);
          add(row, candidate(items, layout, group, 0), candidate(ditems, layout, group, 0), n,
              dscores.positive);
          add(row, candidate(items, layout, group, 1), candidate(ditems, layout, group, 1), n,
              dscores.negative);
        });
  }

  void emit_onnx(GraphWriter&) const override {}  // training only

 private:
  static Saved saved_of(const OpContext& context) {
    return {context.saved, context.saved + context.layout->history_rows};
  }
  static Matrix rows_from(Matrix all, std::int32_t row) {
    return {all.data == nullptr ? nullptr : all.row(row), all.rows - row, all.cols, all.stride};
  }
  // Candidate `which` of groups `group` ....
  static Matrix candidate(Matrix all, const Layout& layout, std::int32_t group,
                          std::int32_t which) {
    const std::int32_t k = layout.candidates;
    return {all.data == nullptr ? nullptr : all.row(group * k + which), layout.groups - group,
            all.cols, k * all.stride};
  }

  // The part's share of the mean; scores become the gradients of it.
  double loss_of(const OpContext& context, const Saved& scores, const float* counts) const {
    const Layout& layout = *context.layout;
    const auto n = static_cast<std::size_t>(layout.history_rows);
    const float scale = 1.0f / static_cast<float>(layout.batch_negatives + layout.batch_groups);
    // -log sigmoid(x) = softplus(-x), and softplus(x) = max(x, 0) + log(1 + exp(-|x|)).
    float* rest = context.scratch;
    for (std::size_t i = 0; i < 2 * n; ++i) rest[i] = -std::abs(context.saved[i]);
    kernels().exp(rest, rest, 2 * n);
    double sum = 0;
    for (std::size_t i = 0; i < n; ++i) {
      if (counts[i] == 0) continue;
      sum += std::max(-scores.positive[i], 0.0f) + std::max(scores.negative[i], 0.0f);
      sum += std::log((1.0 + rest[i]) * (1.0 + rest[n + i]));
    }
    kernels().sigmoid(context.saved, context.saved, 2 * n);
    for (std::size_t i = 0; i < n; ++i) {
      const float weight = counts[i] == 0 ? 0.0f : scale;
      scores.positive[i] = weight * (scores.positive[i] - 1);
      scores.negative[i] *= weight;
    }
    return scale * sum;
  }

  std::string name_;
  TensorId states_, history_, negatives_, candidates_;
};

}  // namespace

TensorId score_candidates(Graph& graph, std::string name, TensorId states, TensorId candidates) {
  const TensorSpec of_states = graph.spec(states), of_items = graph.spec(candidates);
  CHECK(of_states.rows == Rows::kHistory || of_states.rows == Rows::kGroup) << name;
  CHECK(of_items.rows == Rows::kSample) << name;
  CHECK_EQ(of_states.width, of_items.width) << name;
  const TensorId out = graph.tensor(Rows::kSample, 1);
  graph.add(std::make_unique<ScoreCandidates>(std::move(name), states,
                                              of_states.rows == Rows::kHistory, candidates, out));
  return out;
}

void next_bce_loss(Graph& graph, std::string name, TensorId states, TensorId history,
                   TensorId negatives, TensorId candidates) {
  for (const TensorId id : {states, history, negatives}) {
    CHECK(graph.spec(id).rows == Rows::kHistory) << name;
  }
  CHECK(graph.spec(candidates).rows == Rows::kSample) << name;
  for (const TensorId id : {history, negatives, candidates}) {
    CHECK_EQ(graph.spec(id).width, graph.spec(states).width) << name;
  }
  graph.set_needs_negatives();
  graph.add(std::make_unique<NextBce>(std::move(name), states, history, negatives, candidates));
}

}  // namespace meander::nn
