// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/product.h"

#include <memory>
#include <utility>

#include "common/check.h"
#include "nn/graph_writer.h"

namespace meander::nn {
namespace {

// dx += dout * other, if anybody wants dx.
void add_product(Matrix dx, ConstMatrix dout, ConstMatrix other) {
  if (dx.data == nullptr) return;
  for (std::int32_t r = 0; r < dout.rows; ++r) {
    float* __restrict to = dx.row(r);
    const float* __restrict d = dout.row(r);
    const float* __restrict x = other.row(r);
    for (std::int32_t c = 0; c < dout.cols; ++c) to[c] += d[c] * x[c];
  }
}

class Product final : public Op {
 public:
  Product(std::string name, Scope scope, TensorId a, TensorId b, TensorId out)
      : name_(std::move(name)), scope_(scope), a_(a), b_(b), out_(out) {}

  std::string name() const override { return name_; }
  Scope scope() const override { return scope_; }
  std::vector<TensorId> inputs() const override { return {a_, b_}; }
  std::vector<TensorId> outputs() const override { return {out_}; }

  void forward(const OpContext& context) const override {
    const Matrix a = context.value(a_), b = context.value(b_), out = context.value(out_);
    for (std::int32_t r = 0; r < out.rows; ++r) {
      const float* x = a.row(r);
      const float* y = b.row(r);
      float* __restrict z = out.row(r);
      for (std::int32_t c = 0; c < out.cols; ++c) z[c] = x[c] * y[c];
    }
  }

  void backward(const OpContext& context) const override {
    add_product(context.grad(a_), context.grad(out_), context.value(b_));
    add_product(context.grad(b_), context.grad(out_), context.value(a_));
  }

  void emit_onnx(GraphWriter& writer) const override {
    writer.bind(out_, writer.node("Mul", {writer.tensor(a_), writer.tensor(b_)}));
  }

 private:
  std::string name_;
  Scope scope_;
  TensorId a_, b_, out_;
};

}  // namespace

TensorId product(Graph& graph, std::string name, TensorId a, TensorId b) {
  CHECK(graph.spec(a).rows == graph.spec(b).rows) << name;
  CHECK_EQ(graph.spec(a).width, graph.spec(b).width) << name;
  const TensorId out = graph.tensor(graph.spec(a).rows, graph.spec(a).width);
  graph.add(std::make_unique<Product>(std::move(name), graph.scope(), a, b, out));
  return out;
}

}  // namespace meander::nn
