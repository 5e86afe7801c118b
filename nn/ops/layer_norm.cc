// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/layer_norm.h"

#include <memory>
#include <utility>

#include "nn/ops/onnx_forms.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

struct NormParts {
  Scope scope;
  Rows rows;
  TensorId x, out;
  float epsilon;
  OpParam gamma, beta;
};

class LayerNorm final : public Op {
 public:
  LayerNorm(std::string name, NormParts parts) : name_(std::move(name)), at_(parts) {}

  std::string name() const override { return name_; }
  Scope scope() const override { return at_.scope; }
  std::vector<TensorId> inputs() const override { return {at_.x}; }
  std::vector<TensorId> outputs() const override { return {at_.out}; }
  void place_params(const std::vector<ParamSpec>& params) override {
    at_.gamma.place(params);
    at_.beta.place(params);
  }
  std::size_t saved_floats(const Layout& layout) const override {
    return 2 * static_cast<std::size_t>(layout.rows(at_.rows));
  }

  void forward(const OpContext& context) const override {
    const Matrix x = context.value(at_.x), out = context.value(at_.out);
    kernels().layer_norm(x.data, x.stride, at_.gamma.in(context.params),
                         at_.beta.in(context.params), at_.epsilon, out.data, out.stride,
                         context.saved, out.rows, out.cols);
  }
  void backward(const OpContext& context) const override {
    const Matrix x = context.value(at_.x), dx = context.grad(at_.x), dout = context.grad(at_.out);
    // Where nobody asks for dx, it replaces dout, which nobody reads after this.
    const Matrix& to = dx.data == nullptr ? dout : dx;
    kernels().layer_norm_backward(x.data, x.stride, context.saved, at_.gamma.in(context.params),
                                  dout.data, dout.stride, to.data, to.stride,
                                  at_.gamma.in(context.dparams), at_.beta.in(context.dparams),
                                  x.rows, x.cols, dx.data != nullptr);
  }
  void emit_onnx(GraphWriter& writer) const override {
    writer.bind(at_.out, onnx_layer_norm(writer, writer.tensor(at_.x), at_.gamma.id, at_.beta.id,
                                         at_.epsilon));
  }

 private:
  std::string name_;
  NormParts at_;
};

}  // namespace

TensorId layer_norm(Graph& graph, std::string name, TensorId x, float epsilon) {
  const TensorSpec in = graph.spec(x);
  NormParts parts;
  parts.scope = graph.scope();
  parts.rows = in.rows;
  parts.x = x;
  parts.out = graph.tensor(in.rows, in.width);
  parts.epsilon = epsilon;
  parts.gamma.id = graph.param(name + "/gamma", 1, in.width, {Init::kConstant, 1.0f});
  parts.beta.id = graph.param(name + "/beta", 1, in.width, {Init::kConstant, 0.0f});
  graph.add(std::make_unique<LayerNorm>(std::move(name), parts));
  return parts.out;
}

}  // namespace meander::nn
