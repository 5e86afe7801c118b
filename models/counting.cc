// SPDX-License-Identifier: Apache-2.0
// Not a model of users but of the trainer: every key of a sample gets the gradient -1, once for
// each time that it occurs, in every column of its row. Trained by plain SGD of rate 1 on rows that
// start at 0, a row says how often its key was trained, which shows whether that was exactly once.
// Its logits are 0.
#include <memory>

#include "models/blocks.h"
#include "models/model.h"
#include "nn/graph_writer.h"

namespace meander::models {
namespace {

class CountOccurrences final : public nn::Op {
 public:
  CountOccurrences(nn::TensorId rows, nn::TensorId logits) : rows_(rows), logits_(logits) {}

  std::string name() const override { return "count"; }
  std::vector<nn::TensorId> inputs() const override { return {rows_}; }
  std::vector<nn::TensorId> outputs() const override { return {logits_}; }

  // loss = -(the sum of all looked-up values).
  void forward(const nn::OpContext& context) const override {
    const nn::Matrix rows = context.value(rows_), logits = context.value(logits_);
    double sum = 0;
    for (std::int32_t r = 0; r < rows.rows; ++r) {
      *logits.row(r) = 0;
      for (std::int32_t c = 0; c < rows.cols; ++c) sum += rows.row(r)[c];
    }
    if (context.training) *context.loss -= sum;
  }
  void backward(const nn::OpContext& context) const override {
    const nn::Matrix drows = context.grad(rows_);
    for (std::int32_t r = 0; r < drows.rows; ++r) {
      for (std::int32_t c = 0; c < drows.cols; ++c) drows.row(r)[c] -= 1;
    }
  }
  void emit_onnx(nn::GraphWriter& writer) const override {
    const std::string sum =
        writer.node("ReduceSum", {writer.tensor(rows_), writer.constant_int({1}, {1})});
    writer.bind(logits_, writer.node("Mul", {sum, writer.constant({}, {0.0f})}));
  }

 private:
  nn::TensorId rows_, logits_;
};

}  // namespace

nn::Graph build_counting(const ModelSpec& spec) {
  nn::Graph graph(spec.slots, spec.numeric_features);
  std::vector<std::int32_t> slots(spec.slots.size());
  for (std::size_t i = 0; i < slots.size(); ++i) slots[i] = static_cast<std::int32_t>(i);
  const nn::TensorId rows = nn::embedding(graph, "sample", nn::Source::kTarget, slots);
  const nn::TensorId logits = graph.tensor(nn::Rows::kSample, 1);
  graph.set_logits(logits);
  graph.add(std::make_unique<CountOccurrences>(rows, logits));
  return graph;
}

}  // namespace meander::models
