// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/add.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "common/check.h"
#include "nn/graph_writer.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

std::size_t floats(const Matrix& m) { return static_cast<std::size_t>(m.rows) * m.cols; }

class Add final : public Op {
 public:
  Add(std::string name, Scope scope, TensorId a, TensorId b, TensorId out)
      : name_(std::move(name)), scope_(scope), a_(a), b_(b), out_(out) {}

  std::string name() const override { return name_; }
  Scope scope() const override { return scope_; }
  std::vector<TensorId> inputs() const override { return {a_, b_}; }
  std::vector<TensorId> outputs() const override { return {out_}; }

  void forward(const OpContext& context) const override {
    const Matrix a = context.value(a_), b = context.value(b_), out = context.value(out_);
    std::copy_n(a.data, floats(out), out.data);
    kernels().axpy(1.0f, b.data, out.data, floats(out));
  }
  void backward(const OpContext& context) const override {
    const Matrix dout = context.grad(out_);
    for (const TensorId id : {a_, b_}) {
      const Matrix d = context.grad(id);
      if (d.data != nullptr) kernels().axpy(1.0f, dout.data, d.data, floats(dout));
    }
  }
  void emit_onnx(GraphWriter& writer) const override {
    writer.bind(out_, writer.node("Add", {writer.tensor(a_), writer.tensor(b_)}));
  }

 private:
  std::string name_;
  Scope scope_;
  TensorId a_, b_, out_;
};

}  // namespace

TensorId add(Graph& graph, std::string name, TensorId a, TensorId b) {
  CHECK(graph.spec(a).rows == graph.spec(b).rows) << name;
  CHECK_EQ(graph.spec(a).width, graph.spec(b).width) << name;
  const TensorId out = graph.tensor(graph.spec(a).rows, graph.spec(a).width);
  graph.add(std::make_unique<Add>(std::move(name), graph.scope(), a, b, out));
  return out;
}

}  // namespace meander::nn
