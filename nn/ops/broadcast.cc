// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/broadcast.h"

#include <cstring>
#include <memory>
#include <utility>

#include "common/check.h"
#include "nn/ops/onnx_forms.h"

namespace meander::nn {
namespace {

class Broadcast final : public Op {
 public:
  Broadcast(std::string name, Scope scope, TensorId groups, TensorId out)
      : name_(std::move(name)), scope_(scope), groups_(groups), out_(out) {}

  std::string name() const override { return name_; }
  Scope scope() const override { return scope_; }
  std::vector<TensorId> inputs() const override { return {groups_}; }
  std::vector<TensorId> outputs() const override { return {out_}; }

  void forward(const OpContext& context) const override {
    const Matrix x = context.value(groups_), out = context.value(out_);
    for (std::int32_t s = 0; s < out.rows; ++s) {
      std::memcpy(out.row(s), x.row(s / context.layout->candidates), x.cols * sizeof(float));
    }
  }

  void backward(const OpContext& context) const override {
    const Matrix dx = context.grad(groups_), dout = context.grad(out_);
    if (dx.data == nullptr) return;
    for (std::int32_t s = 0; s < dout.rows; ++s) {
      const float* __restrict from = dout.row(s);
      float* __restrict to = dx.row(s / context.layout->candidates);
      for (std::int32_t c = 0; c < dx.cols; ++c) to[c] += from[c];
    }
  }

  void emit_onnx(GraphWriter& writer) const override {
    writer.bind(out_, onnx_repeat_candidates(writer, writer.tensor(groups_)));
  }

 private:
  std::string name_;
  Scope scope_;
  TensorId groups_, out_;
};

}  // namespace

TensorId broadcast(Graph& graph, std::string name, TensorId groups) {
  CHECK(graph.spec(groups).rows == Rows::kGroup) << name;
  const TensorId out = graph.tensor(Rows::kSample, graph.spec(groups).width);
  graph.add(std::make_unique<Broadcast>(std::move(name), graph.scope(), groups, out));
  return out;
}

}  // namespace meander::nn
