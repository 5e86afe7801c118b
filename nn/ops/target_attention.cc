// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/target_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include "common/check.h"
#include "nn/graph_writer.h"
#include "nn/ops/carve.h"
#include "nn/ops/onnx_forms.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

std::size_t floats(std::int32_t rows, std::int32_t cols) {
  return static_cast<std::size_t>(rows) * cols;
}

struct TargetParts {
  TensorId query, target, history, out;
  std::int32_t d, heads;
  OpParam keys, values;
  std::int32_t head_width() const { return d / heads; }
};

// Of each head, one after another.
struct Packed {
  float *keys, *keys_back;      // (head width, D) Wk_h^T, and (D, head width) Wk_h
  float *values, *values_back;  // (D, head width) Wv_h, and (head width, D)
  std::size_t wide, narrow;     // floats to the next head's: of (head width, D), (D, head width)
};

Packed carve_packed(const TargetParts& at, Carve& carve) {
  Packed packed;
  packed.wide = kernels().packed_floats(at.head_width(), at.d);
  packed.narrow = kernels().packed_floats(at.d, at.head_width());
  packed.keys = carve.take(at.heads, packed.wide);
  packed.keys_back = carve.take(at.heads, packed.narrow);
  packed.values = carve.take(at.heads, packed.narrow);
  packed.values_back = carve.take(at.heads, packed.wide);
  return packed;
}

// What one head keeps. Weights are time-major over samples; those of the candidates themselves come
// last, as a step that all groups have.
struct Head {
  float* query;    // (S, D) Wk_h q_h: its product with x_j is the score
  float* seen;     // (S, D) the sum of a_j x_j
  float* weights;  // (pairs + S)
};

Head carve_head(const TargetParts& at, const Layout& layout, Carve& carve) {
  Head head;
  head.query = carve.take(layout.samples(), at.d);
  head.seen = carve.take(layout.samples(), at.d);
  head.weights = carve.take(layout.rows(Rows::kHistorySample) + layout.samples());
  return head;
}

struct Scratch {
  float* dseen;         // (S, D)
  float* dquery;        // (S, D)
  float* dscore;        // as the weights
  float *most, *total;  // (S)
};

Scratch carve_scratch(const TargetParts& at, const Layout& layout, Carve& carve) {
  Scratch scratch;
  scratch.dseen = carve.take(layout.samples(), at.d);
  scratch.dquery = carve.take(layout.samples(), at.d);
  scratch.dscore = carve.take(layout.rows(Rows::kHistorySample) + layout.samples());
  scratch.most = carve.take(layout.samples());
  scratch.total = carve.take(layout.samples());
  return scratch;
}

// body(first, n): the pairs of each step, then the candidates with themselves; n samples from the
// first on take part.
template <class Body>
void for_steps(const Layout& layout, Body body) {
  const std::int32_t k = layout.candidates;
  for (std::int32_t t = 0; t < layout.steps(); ++t) {
    body(floats(layout.step_offset[t], k), layout.step_rows[t] * k);
  }
  body(floats(layout.history_rows, k), layout.samples());
}

// Scores, of a sample one in each step, become weights.
void softmax(const Layout& layout, const Scratch& s, float scale, float* score) {
  const std::int32_t samples = layout.samples();
  std::fill_n(s.most, samples, -1e30f);
  for_steps(layout, [&](std::size_t first, std::int32_t n) {
    float* __restrict x = score + first;
    float* __restrict most = s.most;
    for (std::int32_t i = 0; i < n; ++i) x[i] *= scale;
    for (std::int32_t i = 0; i < n; ++i) most[i] = std::max(most[i], x[i]);
  });
  for_steps(layout, [&](std::size_t first, std::int32_t n) {
    kernels().axpy(-1.0f, s.most, score + first, n);
  });
  kernels().exp(score, score, floats(layout.history_rows, layout.candidates) + samples);
  std::fill_n(s.total, samples, 0.0f);
  for_steps(layout, [&](std::size_t first, std::int32_t n) {
    kernels().axpy(1.0f, score + first, s.total, n);
  });
  for (std::int32_t i = 0; i < samples; ++i) s.total[i] = 1 / s.total[i];
  for_steps(layout, [&](std::size_t first, std::int32_t n) {
    float* __restrict x = score + first;
    const float* __restrict share = s.total;
    for (std::int32_t i = 0; i < n; ++i) x[i] *= share[i];
  });
}

// d: gradients of the weights, which become those of the scores.
void softmax_backward(const Layout& layout, const Scratch& s, float scale, const float* weight,
                      float* d) {
  std::fill_n(s.total, layout.samples(), 0.0f);
  for_steps(layout, [&](std::size_t first, std::int32_t n) {
    float* __restrict total = s.total;
    const float *w = weight + first, *x = d + first;
    for (std::int32_t i = 0; i < n; ++i) total[i] += w[i] * x[i];
  });
  for_steps(layout, [&](std::size_t first, std::int32_t n) {
    float* __restrict x = d + first;
    const float *w = weight + first, *total = s.total;
    for (std::int32_t i = 0; i < n; ++i) x[i] = scale * w[i] * (x[i] - total[i]);
  });
}

class TargetAttention final : public Op {
 public:
  TargetAttention(std::string name, TargetParts parts) : name_(std::move(name)), at_(parts) {}

  std::string name() const override { return name_; }
  std::vector<TensorId> inputs() const override { return {at_.query, at_.target, at_.history}; }
  std::vector<TensorId> outputs() const override { return {at_.out}; }
  void place_params(const std::vector<ParamSpec>& params) override {
    at_.keys.place(params);
    at_.values.place(params);
  }
  std::size_t packed_floats() const override {
    Carve carve(nullptr);
    carve_packed(at_, carve);
    return carve.floats();
  }
  void pack(const float* params, float* memory) const override {
    Carve carve(memory);
    const Packed p = carve_packed(at_, carve);
    const std::int32_t d = at_.d, width = at_.head_width();
    for (std::int32_t h = 0; h < at_.heads; ++h) {
      const float* keys = at_.keys.in(params) + h * width;
      const float* values = at_.values.in(params) + h * width;
      kernels().pack(keys, d, width, d, true, p.keys + h * p.wide);
      kernels().pack(keys, d, d, width, false, p.keys_back + h * p.narrow);
      kernels().pack(values, d, d, width, false, p.values + h * p.narrow);
      kernels().pack(values, d, width, d, true, p.values_back + h * p.wide);
    }
  }
  std::size_t saved_floats(const Layout& layout) const override {
    Carve carve(nullptr);
    for (std::int32_t h = 0; h < at_.heads; ++h) carve_head(at_, layout, carve);
    return carve.floats();
  }
  std::size_t scratch_floats(const Layout& layout) const override {
    Carve carve(nullptr);
    carve_scratch(at_, layout, carve);
    return carve.floats();
  }

  void forward(const OpContext& context) const override {
    const Kernels& k = kernels();
    const Layout& layout = *context.layout;
    const std::int32_t d = at_.d, width = at_.head_width(), samples = layout.samples();
    const Matrix query = context.value(at_.query), out = context.value(at_.out);
    const Packed packed = packed_in(context);
    const Scratch s = scratch_in(context);
    Carve saved(context.saved);
    for (std::int32_t h = 0; h < at_.heads; ++h) {
      const Head head = carve_head(at_, layout, saved);
      k.gemm(query.data + h * width, query.stride, packed.keys + h * packed.wide, nullptr,
             head.query, d, samples, width, d, false);
      dots(context, head.query, head.weights);
      softmax(layout, s, scale(), head.weights);
      std::fill_n(head.seen, floats(samples, d), 0.0f);
      add_rows(context, head.weights, head.seen);
      k.gemm(head.seen, d, packed.values + h * packed.narrow, nullptr, out.data + h * width,
             out.stride, samples, d, width, false);
    }
  }

  void backward(const OpContext& context) const override {
    const Kernels& k = kernels();
    const Layout& layout = *context.layout;
    const std::int32_t d = at_.d, width = at_.head_width(), samples = layout.samples();
    const Matrix query = context.value(at_.query), dquery = context.grad(at_.query);
    const Matrix dout = context.grad(at_.out);
    const Packed packed = packed_in(context);
    const Scratch s = scratch_in(context);
    Carve saved(context.saved);
    for (std::int32_t h = 0; h < at_.heads; ++h) {
      const Head head = carve_head(at_, layout, saved);
      const float* dhead = dout.data + h * width;
      k.gemm(dhead, dout.stride, packed.values_back + h * packed.wide, nullptr, s.dseen, d, samples,
             width, d, false);
      k.gemm_tn(head.seen, d, dhead, dout.stride, at_.values.in(context.dparams) + h * width, d,
                samples, d, width);
      dots(context, s.dseen, s.dscore, head.weights);
      softmax_backward(layout, s, scale(), head.weights, s.dscore);
      add_to_rows(context, s.dscore, head.query);
      std::fill_n(s.dquery, floats(samples, d), 0.0f);
      add_rows(context, s.dscore, s.dquery);
      k.gemm_tn(s.dquery, d, query.data + h * width, query.stride,
                at_.keys.in(context.dparams) + h * width, d, samples, d, width);
      if (dquery.data == nullptr) continue;
      k.gemm(s.dquery, d, packed.keys_back + h * packed.narrow, nullptr, dquery.data + h * width,
             dquery.stride, samples, d, width, true);
    }
  }

  void emit_onnx(GraphWriter& writer) const override;

 private:
  float scale() const { return 1 / std::sqrt(static_cast<float>(at_.head_width())); }
  Packed packed_in(const OpContext& context) const {
    Carve carve(const_cast<float*>(context.packed));  // read only
    return carve_packed(at_, carve);
  }
  Scratch scratch_in(const OpContext& context) const {
    Carve carve(context.scratch);
    return carve_scratch(at_, *context.layout, carve);
  }

  // body(rows x_j, their gradients, n, first pair, samples that share one of them).
  template <class Body>
  void for_rows(const OpContext& context, Body body) const {
    const Layout& layout = *context.layout;
    const auto from = [](const Matrix& all, std::int32_t row) {
      return all.data == nullptr ? nullptr : all.row(row);
    };
    const Matrix rows = context.value(at_.history), drows = context.grad(at_.history);
    for (std::int32_t t = 0; t < layout.steps(); ++t) {
      const std::int32_t first = layout.step_offset[t];
      body(rows.row(first), from(drows, first), layout.step_rows[t],
           floats(first, layout.candidates), layout.candidates);
    }
    const Matrix own = context.value(at_.target), down = context.grad(at_.target);
    body(own.data, down.data, layout.samples(), floats(layout.history_rows, layout.candidates), 1);
  }

  // out of each pair = x_j . the sample's row of `of` (S, D). With `weight`, of each pair, also the
  // gradient of x_j += weight * the samples' rows of `of`, while both are at hand.
  void dots(const OpContext& context, const float* of, float* out,
            const float* weight = nullptr) const {
    std::fill_n(out, context.layout->rows(Rows::kHistorySample) + context.layout->samples(), 0.0f);
    for_rows(context,
             [&](const float* x, float* dx, std::int32_t n, std::size_t pair, std::int32_t share) {
               const bool is_back = weight != nullptr;
               kernels().pool_backward((is_back ? weight : out) + pair, x, at_.d, of, at_.d,
                                       out + pair, is_back ? dx : nullptr, at_.d, n, share, at_.d);
             });
  }
  // The samples' rows of `to` += weight * x_j.
  void add_rows(const OpContext& context, const float* weight, float* to) const {
    for_rows(context,
             [&](const float* x, float*, std::int32_t n, std::size_t pair, std::int32_t share) {
               kernels().pool_add(weight + pair, x, at_.d, to, at_.d, n, share, at_.d);
             });
  }
  // The gradient of x_j += weight * the samples' rows of `from`.
  void add_to_rows(const OpContext& context, const float* weight, const float* from) const {
    for_rows(context,
             [&](const float*, float* dx, std::int32_t n, std::size_t pair, std::int32_t share) {
               for (std::int32_t i = 0; dx != nullptr && i < n * share; ++i) {
                 kernels().axpy(weight[pair + i], from + floats(i, at_.d),
                                dx + floats(i / share, at_.d), at_.d);
               }
             });
  }

  std::string name_;
  TargetParts at_;
};

constexpr std::int64_t kEnd = std::numeric_limits<std::int64_t>::max();

// Of T steps and, behind them, the candidates themselves: (T + 1, G*K, heads, ...).
void TargetAttention::emit_onnx(GraphWriter& writer) const {
  const std::string history = writer.tensor(at_.history), target = writer.tensor(at_.target);
  const std::string heads = writer.constant_int({4}, {0, 0, at_.heads, at_.head_width()});
  const std::string first = writer.constant_int({1}, {0}), last = writer.constant_int({1}, {3});
  const auto projected = [&](const OpParam& kernel) {
    const std::string of_history =
        onnx_repeat_history(writer, writer.node("MatMul", {history, writer.param(kernel.id)}));
    const std::string of_target =
        writer.node("Unsqueeze", {writer.node("MatMul", {target, writer.param(kernel.id)}), first});
    return writer.node("Concat", {of_history, of_target}, {{"axis", std::int64_t{0}}});
  };
  const auto in_heads = [&](const std::string& x) { return writer.node("Reshape", {x, heads}); };
  const std::string products =
      in_heads(writer.node("Mul", {projected(at_.keys), writer.tensor(at_.query)}));
  std::string score = writer.node("ReduceSum", {products, last});  // (T + 1, G*K, heads, 1)
  score = writer.node("Mul", {score, writer.constant({}, {scale()})});
  const std::string real = onnx_repeat_history(writer, onnx_history_mask(writer, history));
  const std::string steps =
      writer.node("Gather", {writer.node("Shape", {history}), writer.constant_int({1}, {0})});
  const std::string of_history = writer.node("Slice", {score, first, steps, first});
  const std::string of_target =
      writer.node("Slice", {score, steps, writer.constant_int({1}, {kEnd}), first});
  const std::string masked = writer.node(
      "Where", {writer.node("Unsqueeze", {real, last}), of_history, writer.constant({}, {-1e30f})});
  const std::string weights = writer.node(
      "Softmax", {writer.node("Concat", {masked, of_target}, {{"axis", std::int64_t{0}}})},
      {{"axis", std::int64_t{0}}});
  const std::string seen = writer.node(
      "ReduceSum", {writer.node("Mul", {in_heads(projected(at_.values)), weights}), first},
      {{"keepdims", std::int64_t{0}}});
  writer.bind(at_.out, writer.node("Reshape", {seen, writer.constant_int({2}, {-1, at_.d})}));
}

}  // namespace

TensorId target_attention(Graph& graph, std::string name, TensorId query, TensorId target,
                          TensorId history, std::int32_t heads) {
  TargetParts parts;
  parts.query = query;
  parts.target = target;
  parts.history = history;
  parts.d = graph.spec(query).width;
  parts.heads = heads;
  CHECK(graph.spec(query).rows == Rows::kSample && graph.spec(target).rows == Rows::kSample)
      << name;
  CHECK(graph.spec(history).rows == Rows::kHistory) << name;
  CHECK_EQ(graph.spec(target).width, parts.d) << name;
  CHECK_EQ(graph.spec(history).width, parts.d) << name;
  CHECK(heads >= 1 && parts.d % heads == 0) << name << ": " << heads << " heads";
  parts.out = graph.tensor(Rows::kSample, parts.d);
  parts.keys.id = graph.param(name + "/keys", parts.d, parts.d, {Init::kGlorotUniform});
  parts.values.id = graph.param(name + "/values", parts.d, parts.d, {Init::kGlorotUniform});
  graph.add(std::make_unique<TargetAttention>(std::move(name), parts));
  return parts.out;
}

}  // namespace meander::nn
