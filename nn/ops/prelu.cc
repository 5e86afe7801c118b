// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/prelu.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "nn/graph_writer.h"

namespace meander::nn {
namespace {

// One row, n columns. Without branches: signs are as good as random.

void forward_row(const float* __restrict x, const float* __restrict alpha, float* __restrict out,
                 std::int32_t n) {
  for (std::int32_t c = 0; c < n; ++c)
    out[c] = std::max(x[c], 0.0f) + alpha[c] * std::min(x[c], 0.0f);
}

void alpha_backward_row(const float* __restrict x, const float* __restrict dout,
                        float* __restrict dalpha, std::int32_t n) {
  for (std::int32_t c = 0; c < n; ++c) dalpha[c] += dout[c] * std::min(x[c], 0.0f);
}

void x_backward_row(const float* __restrict x, const float* __restrict dout,
                    const float* __restrict alpha, float* __restrict dx, std::int32_t n) {
  for (std::int32_t c = 0; c < n; ++c) dx[c] += dout[c] * (x[c] > 0 ? 1.0f : alpha[c]);
}

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
    for (std::int32_t r = 0; r < out.rows; ++r) forward_row(x.row(r), alpha, out.row(r), out.cols);
  }

  void backward(const OpContext& context) const override {
    const Matrix x = context.value(at_.x), dx = context.grad(at_.x), dout = context.grad(at_.out);
    const float* alpha = at_.alpha.in(context.params);
    float* dalpha = at_.alpha.in(context.dparams);
    for (std::int32_t r = 0; r < dout.rows; ++r) {
      alpha_backward_row(x.row(r), dout.row(r), dalpha, dout.cols);
      if (dx.data != nullptr) x_backward_row(x.row(r), dout.row(r), alpha, dx.row(r), dout.cols);
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
