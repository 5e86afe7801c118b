// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/dense.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "nn/graph_writer.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

struct DenseParts {
  Scope scope;
  Activation activation;
  Rows rows;
  TensorId x, out;
  std::int32_t inputs, units;
  bool wants_dx;
  OpParam kernel, bias;
};

std::size_t floats(ConstMatrix m) { return static_cast<std::size_t>(m.rows) * m.cols; }

class Dense final : public Op {
 public:
  Dense(std::string name, DenseParts parts) : name_(std::move(name)), at_(parts) {}

  std::string name() const override { return name_; }
  Scope scope() const override { return at_.scope; }
  std::vector<TensorId> inputs() const override { return {at_.x}; }
  std::vector<TensorId> outputs() const override { return {at_.out}; }
  void place_params(const std::vector<ParamSpec>& params) override {
    at_.kernel.place(params);
    at_.bias.place(params);
  }

  // The kernel for forward, then its transpose for backward.
  std::size_t packed_floats() const override {
    return forward_floats() +
           (at_.wants_dx ? kernels().packed_floats(at_.units, at_.inputs) : std::size_t{0});
  }
  void pack(const float* params, float* packed) const override {
    const float* kernel = at_.kernel.in(params);
    kernels().pack(kernel, at_.units, at_.inputs, at_.units, false, packed);
    if (!at_.wants_dx) return;
    kernels().pack(kernel, at_.units, at_.units, at_.inputs, true, packed + forward_floats());
  }
  // The gradient before the activation.
  std::size_t scratch_floats(const Layout& layout) const override {
    return at_.activation == Activation::kNone
               ? 0
               : static_cast<std::size_t>(layout.rows(at_.rows)) * at_.units;
  }

  void forward(const OpContext& context) const override {
    const Matrix x = context.value(at_.x), out = context.value(at_.out);
    kernels().gemm(x.data, x.stride, context.packed, at_.bias.in(context.params), out.data,
                   out.stride, out.rows, at_.inputs, at_.units, false);
    if (at_.activation == Activation::kSigmoid) {
      kernels().sigmoid(out.data, out.data, floats(out));
    } else if (at_.activation == Activation::kRelu) {
      for (std::size_t i = 0; i < floats(out); ++i) out.data[i] = std::max(out.data[i], 0.0f);
    }
  }

  void backward(const OpContext& context) const override {
    const Matrix x = context.value(at_.x), dx = context.grad(at_.x);
    const ConstMatrix dsum = before_activation(context);
    kernels().gemm_tn(x.data, x.stride, dsum.data, dsum.stride, at_.kernel.in(context.dparams),
                      at_.units, dsum.rows, at_.inputs, at_.units);
    kernels().column_sum(dsum.data, dsum.stride, dsum.rows, at_.units,
                         at_.bias.in(context.dparams));
    if (dx.data == nullptr) return;
    kernels().gemm(dsum.data, dsum.stride, context.packed + forward_floats(), nullptr, dx.data,
                   dx.stride, dsum.rows, at_.units, at_.inputs, true);
  }

  void emit_onnx(GraphWriter& writer) const override {
    const std::string product =
        writer.node("MatMul", {writer.tensor(at_.x), writer.param(at_.kernel.id)});
    std::string out = writer.node("Add", {product, writer.param(at_.bias.id)});
    if (at_.activation == Activation::kSigmoid) out = writer.node("Sigmoid", {out});
    if (at_.activation == Activation::kRelu) out = writer.node("Relu", {out});
    writer.bind(at_.out, out);
  }

 private:
  std::size_t forward_floats() const { return kernels().packed_floats(at_.inputs, at_.units); }

  ConstMatrix before_activation(const OpContext& context) const {
    const Matrix out = context.value(at_.out), dout = context.grad(at_.out);
    if (at_.activation == Activation::kNone) return dout;
    const float* __restrict y = out.data;
    const float* __restrict dy = dout.data;
    float* __restrict dsum = context.scratch;
    if (at_.activation == Activation::kSigmoid) {
      for (std::size_t i = 0; i < floats(out); ++i) dsum[i] = dy[i] * y[i] * (1 - y[i]);
    } else {
      for (std::size_t i = 0; i < floats(out); ++i) dsum[i] = y[i] > 0 ? dy[i] : 0;
    }
    return {dsum, out.rows, out.cols, out.cols};
  }

  std::string name_;
  DenseParts at_;
};

}  // namespace

TensorId dense(Graph& graph, std::string name, TensorId x, std::int32_t units,
               Activation activation) {
  const TensorSpec in = graph.spec(x);
  DenseParts parts;
  parts.scope = graph.scope();
  parts.activation = activation;
  parts.rows = in.rows;
  parts.x = x;
  parts.out = graph.tensor(in.rows, units);
  parts.inputs = in.width;
  parts.units = units;
  parts.wants_dx = in.has_grad;
  parts.kernel.id = graph.param(name + "/kernel", in.width, units, {Init::kGlorotUniform});
  parts.bias.id = graph.param(name + "/bias", 1, units, {Init::kConstant, 0.0f});
  graph.add(std::make_unique<Dense>(std::move(name), parts));
  return parts.out;
}

}  // namespace meander::nn
