// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/affine.h"

#include <cmath>
#include <memory>
#include <utility>

#include "nn/graph_writer.h"

namespace meander::nn {
namespace {

const float kInverseDeviation = static_cast<float>(1.0 / std::sqrt(1.001));

struct AffineParts {
  Scope scope;
  TensorId x, out;
  OpParam gamma, beta;
};

class FixedAffine final : public Op {
 public:
  FixedAffine(std::string name, AffineParts parts) : name_(std::move(name)), at_(parts) {}

  std::string name() const override { return name_; }
  Scope scope() const override { return at_.scope; }
  std::vector<TensorId> inputs() const override { return {at_.x}; }
  std::vector<TensorId> outputs() const override { return {at_.out}; }
  void place_params(const std::vector<ParamSpec>& params) override {
    at_.gamma.place(params);
    at_.beta.place(params);
  }

  void forward(const OpContext& context) const override {
    const Matrix x = context.value(at_.x), out = context.value(at_.out);
    const float* gamma = at_.gamma.in(context.params);
    const float* beta = at_.beta.in(context.params);
    for (std::int32_t r = 0; r < out.rows; ++r) {
      const float* from = x.row(r);
      float* __restrict to = out.row(r);
      for (std::int32_t c = 0; c < out.cols; ++c) {
        to[c] = from[c] * (gamma[c] * kInverseDeviation) + beta[c];
      }
    }
  }

  void backward(const OpContext& context) const override {
    const Matrix x = context.value(at_.x), dx = context.grad(at_.x), dout = context.grad(at_.out);
    const float* gamma = at_.gamma.in(context.params);
    float* __restrict dgamma = at_.gamma.in(context.dparams);
    float* __restrict dbeta = at_.beta.in(context.dparams);
    for (std::int32_t r = 0; r < dout.rows; ++r) {
      const float* from = x.row(r);
      const float* d = dout.row(r);
      for (std::int32_t c = 0; c < dout.cols; ++c) {
        dgamma[c] += d[c] * from[c] * kInverseDeviation;
        dbeta[c] += d[c];
      }
      if (dx.data == nullptr) continue;
      float* __restrict to = dx.row(r);
      for (std::int32_t c = 0; c < dout.cols; ++c) to[c] += d[c] * (gamma[c] * kInverseDeviation);
    }
  }

  void emit_onnx(GraphWriter& writer) const override {
    const std::string scale =
        writer.node("Mul", {writer.param(at_.gamma.id), writer.constant({}, {kInverseDeviation})});
    const std::string scaled = writer.node("Mul", {writer.tensor(at_.x), scale});
    writer.bind(at_.out, writer.node("Add", {scaled, writer.param(at_.beta.id)}));
  }

 private:
  std::string name_;
  AffineParts at_;
};

}  // namespace

TensorId fixed_affine(Graph& graph, std::string name, TensorId x) {
  const std::int32_t width = graph.spec(x).width;
  AffineParts parts;
  parts.scope = graph.scope();
  parts.x = x;
  parts.out = graph.tensor(graph.spec(x).rows, width);
  parts.gamma.id = graph.param(name + "/gamma", 1, width, {Init::kConstant, 1.0f});
  parts.beta.id = graph.param(name + "/beta", 1, width, {Init::kConstant, 0.0f});
  graph.add(std::make_unique<FixedAffine>(std::move(name), parts));
  return parts.out;
}

}  // namespace meander::nn
