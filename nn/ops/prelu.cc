// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/prelu.h"

#include <memory>
#include <utility>

#include "nn/graph_writer.h"

namespace meander::nn {
namespace {

struct PreluParts {
  Scope scope;
  TensorId x, out;
  OpParam alpha;
};

class Prelu final : public Op {
 public:
  Prelu(std::string name, PreluParts parts) : name_(std::move(name)), at_(parts) {}

  std::string name() const override { return name_; }
  Scope scope() const override { return at_.scope; }
  std::vector<TensorId> inputs() const override { return {at_.x}; }
  std::vector<TensorId> outputs() const override { return {at_.out}; }
  void place_params(const std::vector<ParamSpec>& params) override { at_.alpha.place(params); }

  void forward(const OpContext& context) const override {
    const Matrix x = context.value(at_.x), out = context.value(at_.out);
    const float* alpha = at_.alpha.in(context.params);
    for (std::int32_t r = 0; r < out.rows; ++r) {
      const float* from = x.row(r);
      float* __restrict to = out.row(r);
      for (std::int32_t c = 0; c < out.cols; ++c) {
        to[c] = from[c] > 0 ? from[c] : alpha[c] * from[c];
      }
    }
  }

  void backward(const OpContext& context) const override {
    const Matrix x = context.value(at_.x), dx = context.grad(at_.x), dout = context.grad(at_.out);
    const float* alpha = at_.alpha.in(context.params);
    float* __restrict dalpha = at_.alpha.in(context.dparams);
    for (std::int32_t r = 0; r < dout.rows; ++r) {
      const float* from = x.row(r);
      const float* d = dout.row(r);
      for (std::int32_t c = 0; c < dout.cols; ++c) dalpha[c] += from[c] > 0 ? 0 : d[c] * from[c];
      if (dx.data == nullptr) continue;
      float* __restrict to = dx.row(r);
      for (std::int32_t c = 0; c < dout.cols; ++c) to[c] += from[c] > 0 ? d[c] : alpha[c] * d[c];
    }
  }

  void emit_onnx(GraphWriter& writer) const override {
    writer.bind(at_.out, writer.node("PRelu", {writer.tensor(at_.x), writer.param(at_.alpha.id)}));
  }

 private:
  std::string name_;
  PreluParts at_;
};

}  // namespace

TensorId prelu(Graph& graph, std::string name, TensorId x, float initial_alpha) {
  const std::int32_t width = graph.spec(x).width;
  PreluParts parts;
  parts.scope = graph.scope();
  parts.x = x;
  parts.out = graph.tensor(graph.spec(x).rows, width);
  parts.alpha.id = graph.param(name + "/alpha", 1, width, {Init::kConstant, initial_alpha});
  graph.add(std::make_unique<Prelu>(std::move(name), parts));
  return parts.out;
}

}  // namespace meander::nn
