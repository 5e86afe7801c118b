// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/dice.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "common/check.h"
#include "nn/graph_writer.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

constexpr float kEpsilon = 1e-9f;

struct DiceParts {
  TensorId x, out;
  std::int32_t width;
  DiceStatistics statistics;
  OpParam alpha, mean, variance;
};

// What forward keeps: the gate p of every element, and of each column mu, s and 1 / (s + 1e-9).
struct Saved {
  float* gate;
  float* mean;
  float* deviation;
  float* inverse;
};

// One row of each matrix, n columns.

void mix_row(const float* __restrict x, const float* __restrict p, const float* __restrict alpha,
             float* __restrict out, std::int32_t n) {
  for (std::int32_t c = 0; c < n; ++c) out[c] = x[c] * (p[c] + (1 - p[c]) * alpha[c]);
}

// The direct way to x; mix_row() back.
void mix_row_backward(const float* __restrict dout, const float* __restrict p,
                      const float* __restrict alpha, float* __restrict dx, std::int32_t n) {
  for (std::int32_t c = 0; c < n; ++c) dx[c] += dout[c] * (p[c] + (1 - p[c]) * alpha[c]);
}

// dz of the row, and its share of the sums over rows: of alpha's gradient, of dz, of dz * (x - mu).
void gate_row_backward(const float* __restrict x, const float* __restrict dout,
                       const float* __restrict p, const float* __restrict alpha,
                       const float* __restrict mean, float* __restrict dz, float* __restrict dalpha,
                       float* __restrict sum_dz, float* __restrict sum_dz_d, std::int32_t n) {
  for (std::int32_t c = 0; c < n; ++c) {
    const float dy_x = dout[c] * x[c], q = 1 - p[c];
    const float dz_c = dy_x * (1 - alpha[c]) * p[c] * q;
    dz[c] = dz_c;
    dalpha[c] += dy_x * q;
    sum_dz[c] += dz_c;
    sum_dz_d[c] += dz_c * (x[c] - mean[c]);
  }
}

class Dice final : public Op {
 public:
  Dice(std::string name, DiceParts parts) : name_(std::move(name)), at_(parts) {}

  std::string name() const override { return name_; }
  Scope scope() const override { return Scope::kBatch; }
  std::vector<TensorId> inputs() const override { return {at_.x}; }
  std::vector<TensorId> outputs() const override { return {at_.out}; }
  void place_params(const std::vector<ParamSpec>& params) override {
    at_.alpha.place(params);
    if (!keeps_statistics()) return;
    at_.mean.place(params);
    at_.variance.place(params);
  }
  std::size_t saved_floats(const Layout& layout) const override {
    return elements(layout) + 3 * static_cast<std::size_t>(at_.width);
  }
  // In backward: dz of every element, then two sums of each column.
  std::size_t scratch_floats(const Layout& layout) const override {
    return elements(layout) + 2 * static_cast<std::size_t>(at_.width);
  }

  void forward(const OpContext& context) const override {
    const Matrix x = context.value(at_.x), out = context.value(at_.out);
    const Saved saved = saved_in(context);
    if (keeps_statistics() && !context.training) {
      take_moving(context.params, saved);
    } else {
      take_batch(x, saved);
    }
    for (std::int32_t c = 0; c < x.cols; ++c) {
      saved.inverse[c] = 1.0f / (saved.deviation[c] + kEpsilon);
    }
    const float* alpha = at_.alpha.in(context.params);
    for (std::int32_t r = 0; r < x.rows; ++r) {
      float* __restrict z = gate_row(saved, r);
      const float* __restrict from = x.row(r);
      for (std::int32_t c = 0; c < x.cols; ++c) {
        z[c] = (from[c] - saved.mean[c]) * saved.inverse[c];
      }
    }
    kernels().sigmoid(saved.gate, saved.gate, static_cast<std::size_t>(x.rows) * x.cols);
    for (std::int32_t r = 0; r < x.rows; ++r) {
      mix_row(x.row(r), gate_row(saved, r), alpha, out.row(r), x.cols);
    }
  }

  // With d = x - mu and u = s + 1e-9, z = d / u: dz reaches x directly, by mu and by s.
  void backward(const OpContext& context) const override {
    const Matrix x = context.value(at_.x), dx = context.grad(at_.x);
    const Saved saved = saved_in(context);
    float* sum_dz = context.scratch + elements(*context.layout);
    float* sum_dz_d = sum_dz + at_.width;
    std::fill_n(sum_dz, 2 * at_.width, 0.0f);
    for (std::int32_t r = 0; r < x.rows; ++r) {
      gate_row_backward(x.row(r), context.grad(at_.out).row(r), gate_row(saved, r),
                        at_.alpha.in(context.params), saved.mean, dz_row(context, r),
                        at_.alpha.in(context.dparams), sum_dz, sum_dz_d, at_.width);
    }
    if (keeps_statistics()) add_statistics(context, saved);
    if (dx.data == nullptr) return;
    // From sums to factors: dx += dz / u + by_mean + by_deviation * d.
    float* __restrict by_mean = sum_dz;
    float* __restrict by_deviation = sum_dz_d;
    const float share = 1.0f / static_cast<float>(x.rows);
    for (std::int32_t c = 0; c < at_.width; ++c) {
      by_mean[c] *= -share * saved.inverse[c];
      by_deviation[c] *= -share * saved.inverse[c] * saved.inverse[c] / saved.deviation[c];
    }
    for (std::int32_t r = 0; r < x.rows; ++r) {
      mix_row_backward(context.grad(at_.out).row(r), gate_row(saved, r),
                       at_.alpha.in(context.params), dx.row(r), at_.width);
      const float* __restrict dz = dz_row(context, r);
      const float* __restrict from = x.row(r);
      float* __restrict to = dx.row(r);
      for (std::int32_t c = 0; c < at_.width; ++c) {
        to[c] +=
            dz[c] * saved.inverse[c] + by_mean[c] + by_deviation[c] * (from[c] - saved.mean[c]);
      }
    }
  }

  void emit_onnx(GraphWriter& writer) const override {
    const std::string x = writer.tensor(at_.x);
    const std::string epsilon = writer.constant({}, {kEpsilon});
    const std::vector<GraphWriter::Attribute> over_rows = {{"axes", std::vector<std::int64_t>{0}}};
    const std::string mean =
        keeps_statistics() ? writer.param(at_.mean.id) : writer.node("ReduceMean", {x}, over_rows);
    const std::string d = writer.node("Sub", {x, mean});
    const std::string variance =
        keeps_statistics() ? writer.param(at_.variance.id)
                           : writer.node("ReduceMean", {writer.node("Mul", {d, d})}, over_rows);
    const std::string deviation = writer.node("Sqrt", {writer.node("Add", {variance, epsilon})});
    const std::string z = writer.node("Div", {d, writer.node("Add", {deviation, epsilon})});
    const std::string gate = writer.node("Sigmoid", {z});
    const std::string rest = writer.node("Sub", {writer.constant({}, {1.0f}), gate});
    const std::string leak = writer.node("Mul", {rest, writer.param(at_.alpha.id)});
    writer.bind(at_.out, writer.node("Mul", {x, writer.node("Add", {gate, leak})}));
  }

 private:
  bool keeps_statistics() const { return at_.statistics == DiceStatistics::kMoving; }
  std::size_t elements(const Layout& layout) const {
    return static_cast<std::size_t>(layout.samples()) * at_.width;
  }
  Saved saved_in(const OpContext& context) const {
    float* mean = context.saved + elements(*context.layout);
    return {context.saved, mean, mean + at_.width, mean + 2 * at_.width};
  }
  float* gate_row(const Saved& saved, std::int32_t r) const {
    return saved.gate + static_cast<std::size_t>(r) * at_.width;
  }

  float* dz_row(const OpContext& context, std::int32_t r) const {
    return context.scratch + static_cast<std::size_t>(r) * at_.width;
  }

  void take_moving(const float* params, const Saved& saved) const {
    std::copy_n(at_.mean.in(params), at_.width, saved.mean);
    for (std::int32_t c = 0; c < at_.width; ++c) {
      saved.deviation[c] = std::sqrt(at_.variance.in(params)[c] + kEpsilon);
    }
  }

  void take_batch(ConstMatrix x, const Saved& saved) const {
    const float scale = 1.0f / static_cast<float>(x.rows);
    float* __restrict mean = saved.mean;
    float* __restrict deviation = saved.deviation;
    std::fill_n(mean, at_.width, 0.0f);
    std::fill_n(deviation, at_.width, 0.0f);
    for (std::int32_t r = 0; r < x.rows; ++r) {
      const float* __restrict from = x.row(r);
      for (std::int32_t c = 0; c < at_.width; ++c) mean[c] += from[c];
    }
    for (std::int32_t c = 0; c < at_.width; ++c) mean[c] *= scale;
    for (std::int32_t r = 0; r < x.rows; ++r) {
      const float* __restrict from = x.row(r);
      for (std::int32_t c = 0; c < at_.width; ++c) {
        const float d = from[c] - mean[c];
        deviation[c] += d * d;
      }
    }
    for (std::int32_t c = 0; c < at_.width; ++c) {
      deviation[c] = std::sqrt(deviation[c] * scale + kEpsilon);
    }
  }

  void add_statistics(const OpContext& context, const Saved& saved) const {
    const float* mean = at_.mean.in(context.params);
    const float* variance = at_.variance.in(context.params);
    float* dmean = at_.mean.in(context.dparams);
    float* dvariance = at_.variance.in(context.dparams);
    for (std::int32_t c = 0; c < at_.width; ++c) {
      dmean[c] += mean[c] - saved.mean[c];
      dvariance[c] += variance[c] - (saved.deviation[c] * saved.deviation[c] - kEpsilon);
    }
  }

  std::string name_;
  DiceParts at_;
};

}  // namespace

TensorId dice(Graph& graph, std::string name, TensorId x, DiceStatistics statistics) {
  CHECK(graph.spec(x).rows == Rows::kSample) << name;
  const std::int32_t width = graph.spec(x).width;
  DiceParts parts;
  parts.x = x;
  parts.out = graph.tensor(Rows::kSample, width);
  parts.width = width;
  parts.statistics = statistics;
  parts.alpha.id = graph.param(name + "/alpha", 1, width, {Init::kConstant, 0.0f});
  if (statistics == DiceStatistics::kMoving) {
    parts.mean.id = graph.param(name + "/mean", 1, width, {Init::kConstant, 0.0f}, true);
    parts.variance.id = graph.param(name + "/variance", 1, width, {Init::kConstant, 1.0f}, true);
  }
  graph.add(std::make_unique<Dice>(std::move(name), parts));
  return parts.out;
}

}  // namespace meander::nn
