// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/click.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "common/check.h"
#include "nn/graph_writer.h"

namespace meander::nn {
namespace {

class PairLogit final : public Op {
 public:
  PairLogit(std::string name, Scope scope, TensorId pair, TensorId out)
      : name_(std::move(name)), scope_(scope), pair_(pair), out_(out) {}

  std::string name() const override { return name_; }
  Scope scope() const override { return scope_; }
  std::vector<TensorId> inputs() const override { return {pair_}; }
  std::vector<TensorId> outputs() const override { return {out_}; }

  void forward(const OpContext& context) const override {
    const Matrix pair = context.value(pair_), out = context.value(out_);
    for (std::int32_t r = 0; r < out.rows; ++r) *out.row(r) = pair.row(r)[0] - pair.row(r)[1];
  }
  void backward(const OpContext& context) const override {
    const Matrix dpair = context.grad(pair_), dout = context.grad(out_);
    for (std::int32_t r = 0; r < dout.rows; ++r) {
      dpair.row(r)[0] += *dout.row(r);
      dpair.row(r)[1] -= *dout.row(r);
    }
  }
  void emit_onnx(GraphWriter& writer) const override {
    const std::string difference = writer.constant({2, 1}, {1.0f, -1.0f});
    writer.bind(out_, writer.node("MatMul", {writer.tensor(pair_), difference}));
  }

 private:
  std::string name_;
  Scope scope_;
  TensorId pair_, out_;
};

class ClickLoss final : public Op {
 public:
  ClickLoss(std::string name, Scope scope, TensorId logits, float weight)
      : name_(std::move(name)), scope_(scope), logits_(logits), weight_(weight) {}

  std::string name() const override { return name_; }
  Scope scope() const override { return scope_; }
  std::vector<TensorId> inputs() const override { return {logits_}; }
  std::vector<TensorId> outputs() const override { return {}; }

  void forward(const OpContext& context) const override {
    if (!context.training) return;
    const Matrix logits = context.value(logits_);
    CHECK_EQ(context.labels.size(), static_cast<std::size_t>(logits.rows)) << name_;
    const Layout& layout = *context.layout;
    const double mean = binary_cross_entropy({logits.data, context.labels.size()}, context.labels);
    *context.loss += weight_ * mean * layout.samples() / layout.batch_samples();
  }

  void backward(const OpContext& context) const override {
    const Matrix logits = context.value(logits_), dlogits = context.grad(logits_);
    const float scale = weight_ / static_cast<float>(context.layout->batch_samples());
    for (std::int32_t r = 0; r < logits.rows; ++r) {
      const float p = 1.0f / (1.0f + std::exp(-*logits.row(r)));
      *dlogits.row(r) += scale * (p - context.labels[r]);
    }
  }

  void emit_onnx(GraphWriter&) const override {}

 private:
  std::string name_;
  Scope scope_;
  TensorId logits_;
  float weight_;
};

class SecondLoss final : public Op {
 public:
  SecondLoss(std::string name, TensorId logits, float weight)
      : name_(std::move(name)), logits_(logits), weight_(weight) {}

  std::string name() const override { return name_; }
  Scope scope() const override { return Scope::kBatch; }
  std::vector<TensorId> inputs() const override { return {logits_}; }
  std::vector<TensorId> outputs() const override { return {}; }

  void forward(const OpContext& context) const override {
    if (!context.training) return;
    double sum = 0;
    std::int32_t known = 0;
    for_known(context, [&](float logit, float label, std::int32_t) {
      sum += binary_cross_entropy({&logit, 1}, {&label, 1});
      ++known;
    });
    if (known > 0) *context.loss += weight_ * sum / known;
  }

  void backward(const OpContext& context) const override {
    std::int32_t known = 0;
    for_known(context, [&](float, float, std::int32_t) { ++known; });
    const float scale = weight_ / static_cast<float>(std::max(known, 1));
    const Matrix dlogits = context.grad(logits_);
    for_known(context, [&](float logit, float label, std::int32_t row) {
      *dlogits.row(row) += scale * (1.0f / (1.0f + std::exp(-logit)) - label);
    });
  }

  void emit_onnx(GraphWriter&) const override {}

 private:
  // body(logit, label, row) of each sample whose label is known.
  template <class Body>
  void for_known(const OpContext& context, Body body) const {
    const Matrix logits = context.value(logits_);
    std::int32_t row = 0;
    for (const PartInput& part : context.parts) {
      CHECK_EQ(part.second_label.size(), static_cast<std::size_t>(part.layout.samples())) << name_;
      for (const float label : part.second_label) {
        if (!std::isnan(label)) body(*logits.row(row), label, row);
        ++row;
      }
    }
    CHECK_EQ(row, logits.rows) << name_;
  }

  std::string name_;
  TensorId logits_;
  float weight_;
};

}  // namespace

TensorId pair_logit(Graph& graph, std::string name, TensorId pair) {
  CHECK_EQ(graph.spec(pair).width, 2) << name;
  const TensorId out = graph.tensor(graph.spec(pair).rows, 1);
  graph.add(std::make_unique<PairLogit>(std::move(name), graph.scope(), pair, out));
  return out;
}

void click_loss(Graph& graph, std::string name, TensorId logits, float weight) {
  CHECK(graph.spec(logits).rows == Rows::kSample && graph.spec(logits).width == 1) << name;
  graph.add(std::make_unique<ClickLoss>(std::move(name), graph.scope(), logits, weight));
}

void second_loss(Graph& graph, std::string name, TensorId logits, float weight) {
  CHECK(graph.spec(logits).rows == Rows::kSample && graph.spec(logits).width == 1) << name;
  graph.add(std::make_unique<SecondLoss>(std::move(name), logits, weight));
}

std::span<const float> second_logits(const Graph& graph, const Session& session) {
  if (graph.second_logits() == kNoTensor) return {};
  const ConstMatrix all = session.value(graph.second_logits(), 0);  // of all parts: at batch scope
  return {all.data, static_cast<std::size_t>(all.rows)};
}

double binary_cross_entropy(std::span<const float> logits, std::span<const float> labels) {
  double sum = 0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    const double x = logits[i];
    sum += std::max(x, 0.0) - x * labels[i] + std::log1p(std::exp(-std::abs(x)));
  }
  return logits.empty() ? 0 : sum / static_cast<double>(logits.size());
}

}  // namespace meander::nn
