// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/executor.h"
#include "nn/graph.h"
#include "tests/jagged_batch.h"

namespace meander::nn {

// Runs whole training steps of a small graph on random input, and compares its gradients with
// differences of its loss: of every parameter, and of every looked-up row.
class StepCheck {
 public:
  StepCheck(Graph graph, const std::vector<std::vector<std::int32_t>>& lengths_by_part,
            std::int32_t candidates, std::uint64_t seed)
      : graph_(std::move(graph)),
        session_(graph_),
        batch_(draw(lengths_by_part, candidates, seed)) {
    Rng rng(seed + 1);
    dense_ = graph_.initial_dense(seed);
    for (float& x : dense_) x += static_cast<float>(0.4 * (rng.uniform() - 0.5));
    for (std::int32_t t = 0; t < graph_.tables(); ++t) {
      tables_.emplace_back(static_cast<std::size_t>(kKeys) * graph_.table_width(t));
      for (float& x : tables_.back()) x = static_cast<float>(2 * rng.uniform() - 1);
      dtables_.emplace_back(tables_.back().size());
      // Every row, in an order of its own, where the graph asks for it.
      if (graph_.catalogue(t, true) != Graph::CatalogueUse::kAll) continue;
      catalogue_rows_.resize(graph_.tables());
      for (std::uint32_t n = 0; n < kKeys; ++n)
        catalogue_rows_[t].push_back((2 * n + t + 1) % kKeys);
    }
    for (const auto& rows : catalogue_rows_) catalogues_.push_back({rows, {}});
    ddense_.resize(dense_.size());
    for (const PartInput& part : batch_.inputs()) samples_ += part.layout.samples();
    logits_.resize(samples_);
  }

  StepOutput train(Executor& executor) {
    table_views_.clear();
    dtable_views_.clear();
    for (std::int32_t t = 0; t < graph_.tables(); ++t) {
      const std::int32_t width = graph_.table_width(t);
      table_views_.push_back({tables_[t].data(), kKeys, width, width});
      dtable_views_.push_back({dtables_[t].data(), graph_.is_frozen(t) ? 0 : kKeys, width, width});
    }
    StepOutput output{dtable_views_, ddense_, logits_};
    session_.train(input(), executor, output);
    return output;
  }
  StepOutput train() {
    InlineExecutor executor;
    return train(executor);
  }
  std::vector<float> infer() {
    train();  // for the views
    InlineExecutor executor;
    std::vector<float> logits(samples_);
    session_.infer(input(), executor, logits);
    return logits;
  }
  // Of each group, where the graph has ranks.
  std::vector<float> infer_ranks(std::span<const PartInput> parts) {
    train();  // for the views
    InlineExecutor executor;
    std::vector<float> logits(samples_);
    std::vector<float> ranks(samples_ / parts[0].layout.candidates);
    StepInput of_parts = input();
    of_parts.parts = parts;
    session_.infer(of_parts, executor, logits, ranks);
    return ranks;
  }

  // Every gradient against a central difference of the loss. The step is large and the bound wide
  // because values are float32; a wrong formula is off by far more.
  void expect_gradients_match() {
    train();
    const std::vector<float> ddense = ddense_;
    const std::vector<std::vector<float>> dtables = dtables_;
    for (const ParamSpec& spec : graph_.params()) {
      if (spec.is_statistic) continue;
      for (std::int32_t i = 0; i < spec.rows * spec.cols; ++i) {
        expect_near(dense_[spec.offset + i], ddense[spec.offset + i],
                    spec.name + "[" + std::to_string(i) + "]");
      }
    }
    for (std::size_t t = 0; t < tables_.size(); ++t) {
      if (graph_.is_frozen(static_cast<std::int32_t>(t))) continue;
      for (std::size_t i = 0; i < tables_[t].size(); ++i) {
        expect_near(tables_[t][i], dtables[t][i],
                    "table " + std::to_string(t) + "[" + std::to_string(i) + "]");
      }
    }
  }

  // The step's rows as the graph's n-th item has them, where it asked for a catalogue.
  const std::vector<std::uint32_t>& catalogue_rows(std::int32_t t) const {
    return catalogue_rows_[t];
  }
  std::uint64_t seed = 0;  // of draws
  const Neighbourhood* neighbourhood = nullptr;

  const Graph& graph() const { return graph_; }
  Session& session() { return session_; }
  JaggedBatch& batch() { return batch_; }
  std::vector<float>& dense() { return dense_; }
  std::vector<float>& table(std::int32_t t) { return tables_[t]; }
  const std::vector<float>& ddense() const { return ddense_; }
  const std::vector<float>& dtable(std::int32_t t) const { return dtables_[t]; }
  const std::vector<float>& logits() const { return logits_; }

  static constexpr std::int32_t kKeys = 5;

 private:
  StepInput input() const {
    return {batch_.inputs(), table_views_, dense_, catalogues_, seed, neighbourhood};
  }
  JaggedBatch draw(const std::vector<std::vector<std::int32_t>>& lengths_by_part,
                   std::int32_t candidates, std::uint64_t seed) const {
    Rng rng(seed);
    const auto& slots = graph_.slots();
    std::size_t history_slots = 0;
    for (const SlotSpec& slot : slots) history_slots += slot.in_history ? 1 : 0;
    std::vector<std::vector<JaggedGroup>> parts;
    for (const auto& lengths : lengths_by_part) {
      parts.push_back(random_groups(rng, lengths, candidates,
                                    std::vector<std::uint32_t>(slots.size(), kKeys), history_slots,
                                    graph_.numeric_features()));
    }
    return JaggedBatch(std::move(parts));
  }

  void expect_near(float& x, float gradient, const std::string& what) {
    constexpr float kStep = 1e-2f;
    const float before = x;
    x = before + kStep;
    const double up = train().loss;
    x = before - kStep;
    const double down = train().loss;
    x = before;
    const double difference = (up - down) / (2.0 * kStep);
    EXPECT_NEAR(gradient, difference, 2e-3 * std::max(1.0, std::abs(difference))) << what;
  }

  Graph graph_;
  Session session_;
  JaggedBatch batch_;
  std::vector<float> dense_, ddense_, logits_;
  std::vector<std::vector<float>> tables_, dtables_;
  std::vector<std::vector<std::uint32_t>> catalogue_rows_;
  std::vector<Catalogue> catalogues_;
  std::vector<ConstMatrix> table_views_;
  std::vector<Matrix> dtable_views_;
  std::size_t samples_ = 0;
};

// loss = sum of w[i] x[i] with fixed w of mixed signs, over all rows of x; logits 0. It turns any
// tensor into something to differentiate.
class Probe final : public Op {
 public:
  Probe(Scope scope, TensorId x, TensorId logits) : scope_(scope), x_(x), logits_(logits) {}
  std::string name() const override { return "probe"; }
  Scope scope() const override { return scope_; }
  std::vector<TensorId> inputs() const override { return {x_}; }
  std::vector<TensorId> outputs() const override { return {logits_}; }
  void forward(const OpContext& context) const override {
    const Matrix x = context.value(x_), logits = context.value(logits_);
    for (std::int32_t r = 0; r < logits.rows; ++r) *logits.row(r) = 0;
    for (std::int32_t r = 0; r < x.rows; ++r) {
      for (std::int32_t c = 0; c < x.cols; ++c) *context.loss += weight(r, c) * x.row(r)[c];
    }
  }
  void backward(const OpContext& context) const override {
    const Matrix dx = context.grad(x_);
    for (std::int32_t r = 0; r < dx.rows; ++r) {
      for (std::int32_t c = 0; c < dx.cols; ++c) dx.row(r)[c] += weight(r, c);
    }
  }
  void emit_onnx(GraphWriter&) const override {}

 private:
  static float weight(std::int32_t r, std::int32_t c) {
    return 2 * unit_float(hash64(static_cast<std::uint64_t>(r), static_cast<std::uint64_t>(c))) - 1;
  }
  Scope scope_;
  TensorId x_, logits_;
};

inline void probe(Graph& graph, TensorId x) {
  const TensorId logits = graph.tensor(Rows::kSample, 1);
  graph.set_logits(logits);
  graph.add(std::make_unique<Probe>(graph.scope(), x, logits));
  graph.finish();
}

// Item (width 3) and category (2) in the history, a user (2) beside, two numbers.
inline Graph small_graph() {
  return Graph({{"item", 0, 3, true}, {"category", 1, 2, true}, {"user", 2, 2, false}}, 2);
}

}  // namespace meander::nn
