// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/dropout.h"

#include <memory>
#include <utility>

#include "common/check.h"
#include "common/rng.h"
#include "nn/graph_writer.h"

namespace meander::nn {
namespace {

class DropoutOp final : public Op {
 public:
  DropoutOp(std::string name, Scope scope, TensorId x, TensorId out, float rate)
      : name_(std::move(name)), scope_(scope), x_(x), out_(out), place_(name_, rate) {}

  std::string name() const override { return name_; }
  Scope scope() const override { return scope_; }
  std::vector<TensorId> inputs() const override { return {x_}; }
  std::vector<TensorId> outputs() const override { return {out_}; }

  void forward(const OpContext& context) const override {
    const Matrix x = context.value(x_), out = context.value(out_);
    kernels().dropout(place_.in(context), 0, x.data, out.data, floats(out));
  }
  void backward(const OpContext& context) const override {
    const Matrix dx = context.grad(x_), dout = context.grad(out_);
    if (dx.data == nullptr) return;
    kernels().dropout_add(place_.in(context), 0, dout.data, dx.data, floats(dx));
  }
  void emit_onnx(GraphWriter& writer) const override { writer.bind(out_, writer.tensor(x_)); }

 private:
  static std::size_t floats(const Matrix& m) { return static_cast<std::size_t>(m.rows) * m.cols; }

  std::string name_;
  Scope scope_;
  TensorId x_, out_;
  DropPlace place_;
};

}  // namespace

DropPlace::DropPlace(const std::string& name, float rate) : rate_(rate) {
  CHECK(rate >= 0 && rate < 1) << name << ": " << rate;
  for (const char c : name) number_ = hash64(number_, static_cast<unsigned char>(c));
}

Drop DropPlace::in(const OpContext& context) const {
  if (!context.training) return {};
  return {hash64(context.seed, number_), rate_};
}

TensorId dropout(Graph& graph, std::string name, TensorId x, float rate) {
  if (rate == 0) return x;
  const TensorSpec spec = graph.spec(x);
  const TensorId out = graph.tensor(spec.rows, spec.width);
  graph.add(std::make_unique<DropoutOp>(std::move(name), graph.scope(), x, out, rate));
  return out;
}

}  // namespace meander::nn
