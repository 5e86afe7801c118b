// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/decayed_pool.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <numbers>
#include <utility>

#include "common/check.h"
#include "nn/ops/onnx_forms.h"

namespace meander::nn {
namespace {

constexpr float kMasked = -1e30f;

struct DecayParts {
  TensorId history, offset, out;
  std::int32_t width;
  Rows offset_rows;
  float base_rate;
  OpParam log_rate;  // id < 0: fixed
};

// Weights are a softmax of -rate * age over each history: the same numbers, and no underflow
// however old a history is.
class DecayedPool final : public Op {
 public:
  DecayedPool(std::string name, DecayParts parts) : name_(std::move(name)), at_(parts) {}

  std::string name() const override { return name_; }
  std::vector<TensorId> inputs() const override {
    std::vector<TensorId> inputs = {at_.history};
    if (at_.offset != kNoTensor) inputs.push_back(at_.offset);
    return inputs;
  }
  std::vector<TensorId> outputs() const override { return {at_.out}; }
  void place_params(const std::vector<ParamSpec>& params) override {
    if (is_learned()) at_.log_rate.place(params);
  }
  std::size_t saved_floats(const Layout& layout) const override { return layout.history_rows; }
  std::size_t scratch_floats(const Layout& layout) const override { return 2 * layout.groups; }

  void forward(const OpContext& context) const override {
    const Layout& layout = *context.layout;
    const Matrix x = context.value(at_.history), out = context.value(at_.out);
    float* weight = context.saved;
    write_weights(context, weight);
    for (std::int32_t g = 0; g < layout.groups; ++g) std::fill_n(out.row(g), at_.width, 0.0f);
    for (std::int32_t t = 0; t < layout.steps(); ++t) {
      for (std::int32_t g = 0; g < layout.step_rows[t]; ++g) {
        const std::int32_t row = layout.step_offset[t] + g;
        const float* __restrict from = x.row(row);
        float* __restrict to = out.row(g);
        for (std::int32_t c = 0; c < at_.width; ++c) to[c] += weight[row] * from[c];
      }
    }
  }

  // With w a softmax, dscore = w (dout . (x - out)); score = -rate age.
  void backward(const OpContext& context) const override {
    const Layout& layout = *context.layout;
    const Matrix x = context.value(at_.history), out = context.value(at_.out);
    const Matrix dx = context.grad(at_.history), dout = context.grad(at_.out);
    const float* weight = context.saved;
    const bool wants_rate = is_learned() || at_.offset != kNoTensor;
    double dlog_rate = 0;
    for (std::int32_t t = 0; t < layout.steps(); ++t) {
      for (std::int32_t g = 0; g < layout.step_rows[t]; ++g) {
        const std::int32_t row = layout.step_offset[t] + g;
        const float w = weight[row];
        const float* __restrict d = dout.row(g);
        if (dx.data != nullptr) {
          float* __restrict to = dx.row(row);
          for (std::int32_t c = 0; c < at_.width; ++c) to[c] += w * d[c];
        }
        if (!wants_rate) continue;
        float dscore = 0;
        for (std::int32_t c = 0; c < at_.width; ++c) {
          dscore += d[c] * (x.row(row)[c] - out.row(g)[c]);
        }
        // d score / d log rate = the score itself.
        const float doffset = w * dscore * -rate(context, row, g) * context.input->age[row];
        dlog_rate += doffset;
        if (at_.offset == kNoTensor) continue;
        const Matrix dlog = context.grad(at_.offset);
        if (dlog.data != nullptr) *dlog.row(offset_row(layout, row, g)) += doffset;
      }
    }
    if (is_learned()) *at_.log_rate.in(context.dparams) += static_cast<float>(dlog_rate);
  }

  void emit_onnx(GraphWriter& writer) const override {
    const std::string history = writer.tensor(at_.history);
    std::string log_rate = writer.constant({1, 1, 1}, {std::log(at_.base_rate)});
    if (is_learned()) log_rate = writer.node("Add", {log_rate, writer.param(at_.log_rate.id)});
    if (at_.offset != kNoTensor) {
      log_rate = writer.node("Add", {log_rate, onnx_offset(writer)});
    }
    const std::string age =
        writer.node("Unsqueeze", {writer.age(), writer.constant_int({1}, {2})});  // (T, G, 1)
    const std::string score =
        writer.node("Neg", {writer.node("Mul", {writer.node("Exp", {log_rate}), age})});
    const std::string mask = onnx_history_mask(writer, history);
    const std::string masked = writer.node("Where", {mask, score, writer.constant({}, {kMasked})});
    const std::string weight = writer.node("Softmax", {masked}, {{"axis", std::int64_t{0}}});
    const std::string real = writer.node("Where", {mask, history, writer.constant({}, {0.0f})});
    writer.bind(at_.out,
                writer.node("ReduceSum",
                            {writer.node("Mul", {weight, real}), writer.constant_int({1}, {0})},
                            {{"keepdims", std::int64_t{0}}}));
  }

 private:
  bool is_learned() const { return at_.log_rate.id >= 0; }

  std::int32_t offset_row(const Layout& layout, std::int32_t row, std::int32_t g) const {
    return at_.offset_rows == Rows::kHistory ? row : g * layout.candidates;
  }

  float rate(const OpContext& context, std::int32_t row, std::int32_t g) const {
    float log = is_learned() ? *at_.log_rate.in(context.params) : 0.0f;
    if (at_.offset != kNoTensor) {
      log += *context.value(at_.offset).row(offset_row(*context.layout, row, g));
    }
    return at_.base_rate * std::exp(log);
  }

  void write_weights(const OpContext& context, float* weight) const {
    const Layout& layout = *context.layout;
    CHECK_EQ(context.input->age.size(), static_cast<std::size_t>(layout.history_rows)) << name_;
    float* most = context.scratch;
    float* sum = most + layout.groups;
    std::fill_n(most, layout.groups, kMasked);
    std::fill_n(sum, layout.groups, 0.0f);
    const auto each = [&layout](auto&& body) {
      for (std::int32_t t = 0; t < layout.steps(); ++t) {
        for (std::int32_t g = 0; g < layout.step_rows[t]; ++g) body(layout.step_offset[t] + g, g);
      }
    };
    each([&](std::int32_t row, std::int32_t g) {
      weight[row] = -rate(context, row, g) * context.input->age[row];
      most[g] = std::max(most[g], weight[row]);
    });
    each([&](std::int32_t row, std::int32_t g) {
      weight[row] = std::exp(weight[row] - most[g]);
      sum[g] += weight[row];
    });
    each([&](std::int32_t row, std::int32_t g) { weight[row] /= sum[g]; });
  }

  // (T, G, 1) of each behaviour, or (1, G, 1) of each user.
  std::string onnx_offset(GraphWriter& writer) const {
    const std::string offset = writer.tensor(at_.offset);
    if (at_.offset_rows == Rows::kHistory) return offset;
    const std::string shape = writer.node(
        "Concat",
        {writer.constant_int({2}, {1, -1}),
         writer.node("Unsqueeze", {writer.candidates(), writer.constant_int({1}, {0})})},
        {{"axis", std::int64_t{0}}});
    const std::string by_group = writer.node("Reshape", {offset, shape});  // (1, G, K)
    return writer.node("Slice", {by_group, writer.constant_int({1}, {0}),
                                 writer.constant_int({1}, {1}), writer.constant_int({1}, {2})});
  }

  std::string name_;
  DecayParts at_;
};

}  // namespace

TensorId decayed_pool(Graph& graph, std::string name, TensorId history, DecayOptions options) {
  CHECK(graph.spec(history).rows == Rows::kHistory) << name;
  CHECK_GT(options.half_life_h, 0) << name;
  DecayParts parts{.history = history,
                   .offset = options.offset,
                   .out = graph.tensor(Rows::kGroup, graph.spec(history).width),
                   .width = graph.spec(history).width,
                   .offset_rows = Rows::kHistory,
                   .base_rate = std::numbers::ln2_v<float> / options.half_life_h,
                   .log_rate = {}};
  if (options.offset != kNoTensor) {
    const TensorSpec& offset = graph.spec(options.offset);
    CHECK_EQ(offset.width, 1) << name;
    CHECK(offset.rows == Rows::kHistory || offset.rows == Rows::kSample) << name;
    parts.offset_rows = offset.rows;
  }
  if (options.learned) {
    parts.log_rate.id = graph.param(name + "/log_rate", 1, 1, {Init::kConstant, 0.0f});
  }
  graph.set_needs_age();
  graph.add(std::make_unique<DecayedPool>(std::move(name), parts));
  return parts.out;
}

}  // namespace meander::nn
