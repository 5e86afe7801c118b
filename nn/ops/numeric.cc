// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/numeric.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "common/check.h"
#include "nn/graph_writer.h"

namespace meander::nn {
namespace {

class NumericFeatures final : public Op {
 public:
  NumericFeatures(std::string name, TensorId out) : name_(std::move(name)), out_(out) {}

  std::string name() const override { return name_; }
  std::vector<TensorId> inputs() const override { return {}; }
  std::vector<TensorId> outputs() const override { return {out_}; }

  void forward(const OpContext& context) const override {
    const Matrix out = context.value(out_);
    const std::span<const float> numeric = context.input->numeric;
    CHECK_EQ(numeric.size(), static_cast<std::size_t>(out.rows) * out.cols) << name_;
    for (std::int32_t r = 0; r < out.rows; ++r) {
      std::copy_n(numeric.data() + static_cast<std::size_t>(r) * out.cols, out.cols, out.row(r));
    }
  }
  void backward(const OpContext&) const override {}
  void emit_onnx(GraphWriter& writer) const override { writer.bind(out_, writer.numeric()); }

 private:
  std::string name_;
  TensorId out_;
};

}  // namespace

TensorId numeric_features(Graph& graph, std::string name) {
  const TensorId out = graph.tensor(Rows::kSample, graph.numeric_features(), /*has_grad=*/false);
  graph.add(std::make_unique<NumericFeatures>(std::move(name), out));
  return out;
}

}  // namespace meander::nn
