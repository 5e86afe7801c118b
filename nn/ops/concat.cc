// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/concat.h"

#include <cstring>
#include <memory>
#include <utility>

#include "common/check.h"
#include "nn/graph_writer.h"

namespace meander::nn {
namespace {

class Concat final : public Op {
 public:
  Concat(std::string name, Scope scope, std::vector<TensorId> parts, TensorId out)
      : name_(std::move(name)), scope_(scope), parts_(std::move(parts)), out_(out) {}

  std::string name() const override { return name_; }
  Scope scope() const override { return scope_; }
  std::vector<TensorId> inputs() const override { return parts_; }
  std::vector<TensorId> outputs() const override { return {out_}; }

  void forward(const OpContext& context) const override {
    const Matrix out = context.value(out_);
    std::int32_t column = 0;
    for (TensorId id : parts_) {
      const Matrix x = context.value(id);
      for (std::int32_t r = 0; r < out.rows; ++r) {
        std::memcpy(out.row(r) + column, x.row(r), x.cols * sizeof(float));
      }
      column += x.cols;
    }
  }

  void backward(const OpContext& context) const override {
    const Matrix dout = context.grad(out_);
    std::int32_t column = 0;
    for (TensorId id : parts_) {
      const Matrix dx = context.grad(id);
      for (std::int32_t r = 0; dx.data != nullptr && r < dout.rows; ++r) {
        const float* __restrict from = dout.row(r) + column;
        float* __restrict to = dx.row(r);
        for (std::int32_t c = 0; c < dx.cols; ++c) to[c] += from[c];
      }
      column += dx.cols;
    }
  }

  void emit_onnx(GraphWriter& writer) const override {
    std::vector<std::string> values;
    for (TensorId id : parts_) values.push_back(writer.tensor(id));
    writer.bind(out_, writer.node("Concat", values, {{"axis", std::int64_t{-1}}}));
  }

 private:
  std::string name_;
  Scope scope_;
  std::vector<TensorId> parts_;
  TensorId out_;
};

}  // namespace

TensorId concat(Graph& graph, std::string name, std::vector<TensorId> parts) {
  CHECK(!parts.empty()) << name;
  const Rows rows = graph.spec(parts[0]).rows;
  std::int32_t width = 0;
  for (TensorId id : parts) {
    CHECK(graph.spec(id).rows == rows) << name << ": parts of different row spaces";
    width += graph.spec(id).width;
  }
  const TensorId out = graph.tensor(rows, width);
  graph.add(std::make_unique<Concat>(std::move(name), graph.scope(), std::move(parts), out));
  return out;
}

}  // namespace meander::nn
