// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/pool.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "common/check.h"
#include "nn/ops/onnx_forms.h"

namespace meander::nn {
namespace {

constexpr std::int64_t kOnnxFloat = 1;  // TensorProto.DataType

class Pool final : public Op {
 public:
  Pool(std::string name, Pooling pooling, TensorId history, TensorId out, std::int32_t width)
      : name_(std::move(name)), pooling_(pooling), history_(history), out_(out), width_(width) {}

  std::string name() const override { return name_; }
  std::vector<TensorId> inputs() const override { return {history_}; }
  std::vector<TensorId> outputs() const override { return {out_}; }
  std::size_t scratch_floats(const Layout& layout) const override {
    return static_cast<std::size_t>(layout.groups) * width_;
  }

  void forward(const OpContext& context) const override {
    const Layout& layout = *context.layout;
    const std::int32_t candidates = layout.candidates;
    const Matrix x = context.value(history_), out = context.value(out_);
    // Steps outside: rows of one step lie together, and the sums of all groups stay in cache.
    for (std::int32_t t = 0; t < layout.steps(); ++t) {
      for (std::int32_t g = 0; g < layout.step_rows[t]; ++g) {
        const float* __restrict from = x.row(layout.step_offset[t] + g);
        float* __restrict to = out.row(g * candidates);
        for (std::int32_t c = 0; c < width_; ++c) to[c] = t == 0 ? from[c] : to[c] + from[c];
      }
    }
    for (std::int32_t g = 0; g < layout.groups; ++g) {
      float* first = out.row(g * candidates);
      const float scale = this->scale(layout, g);
      for (std::int32_t c = 0; c < width_; ++c) first[c] *= scale;
      for (std::int32_t k = 1; k < candidates; ++k) {
        std::copy_n(first, width_, out.row(g * candidates + k));
      }
    }
  }

  void backward(const OpContext& context) const override {
    const Layout& layout = *context.layout;
    const Matrix dx = context.grad(history_), dout = context.grad(out_);
    if (dx.data == nullptr) return;
    for (std::int32_t g = 0; g < layout.groups; ++g) {
      float* __restrict d = context.scratch + static_cast<std::size_t>(g) * width_;
      const float scale = this->scale(layout, g);
      std::fill_n(d, width_, 0.0f);
      for (std::int32_t k = 0; k < layout.candidates; ++k) {
        const float* __restrict from = dout.row(g * layout.candidates + k);
        for (std::int32_t c = 0; c < width_; ++c) d[c] += scale * from[c];
      }
    }
    for (std::int32_t t = 0; t < layout.steps(); ++t) {
      for (std::int32_t g = 0; g < layout.step_rows[t]; ++g) {
        const float* __restrict d = context.scratch + static_cast<std::size_t>(g) * width_;
        float* __restrict to = dx.row(layout.step_offset[t] + g);
        for (std::int32_t c = 0; c < width_; ++c) to[c] += d[c];
      }
    }
  }

  void emit_onnx(GraphWriter& writer) const override {
    const std::string history = writer.tensor(history_);
    const std::string real = writer.node(
        "Where", {onnx_history_mask(writer, history), history, writer.constant({}, {0.0f})});
    std::string sum = writer.node("ReduceSum", {real, writer.constant_int({1}, {0})},
                                  {{"keepdims", std::int64_t{0}}});
    if (pooling_ == Pooling::kMean) {
      const std::string count = writer.node("Cast", {writer.lengths()}, {{"to", kOnnxFloat}});
      sum = writer.node("Div",
                        {sum, writer.node("Unsqueeze", {count, writer.constant_int({1}, {1})})});
    }
    writer.bind(out_, onnx_repeat_candidates(writer, sum));
  }

 private:
  float scale(const Layout& layout, std::int32_t g) const {
    return pooling_ == Pooling::kSum ? 1.0f : 1.0f / static_cast<float>(layout.lengths[g]);
  }

  std::string name_;
  Pooling pooling_;
  TensorId history_, out_;
  std::int32_t width_;
};

}  // namespace

TensorId pool(Graph& graph, std::string name, TensorId history, Pooling pooling) {
  CHECK(graph.spec(history).rows == Rows::kHistory) << name;
  const std::int32_t width = graph.spec(history).width;
  const TensorId out = graph.tensor(Rows::kSample, width);
  graph.add(std::make_unique<Pool>(std::move(name), pooling, history, out, width));
  return out;
}

}  // namespace meander::nn
