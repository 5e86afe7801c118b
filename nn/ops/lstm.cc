// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/lstm.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "common/check.h"
#include "nn/graph_writer.h"
#include "nn/ops/carve.h"
#include "nn/ops/onnx_forms.h"
#include "nn/ops/projection.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

constexpr float kForgetBias = 1.0f;
// History rows whose products with x are made together, and whose gradients are: some 200 kB of
// gates with 64 hidden units.
constexpr std::int32_t kChunkRows = 192;

struct LstmParts {
  std::int32_t in, hidden;
  TensorId history, tail_in;
  LstmOutputs out;
  OpParam kernel, bias;
  bool has_tail() const { return tail_in != kNoTensor; }
};

struct Packed {
  float* x;       // (in, 4H)
  float* x_back;  // (4H, in): transposes, for backward
  float* h;       // (H, 4H)
  float* h_back;  // (4H, H)
  float* bias;    // (4H) with the forget bias
};

Packed carve_packed(const LstmParts& at, Carve& carve) {
  const Kernels& k = kernels();
  const std::int32_t h = at.hidden;
  Packed packed;
  packed.x = carve.take(k.packed_floats(at.in, 4 * h));
  packed.x_back = carve.take(k.packed_floats(4 * h, at.in));
  packed.h = carve.take(k.packed_floats(h, 4 * h));
  packed.h_back = carve.take(k.packed_floats(4 * h, h));
  packed.bias = carve.take(4 * h);
  return packed;
}

// Kept for backward: rows of the history in time-major order, then what the tail needs.
struct Saved {
  float* p;        // (N, 4H) gates; after backward, their gradients
  float* hp;       // (N, H) the state before the step
  float* cp;       // (N, H) the cell before the step
  float* tc;       // (N, H) tanh of the cell after it
  float* last_c;   // (G, H) the cell after the last step
  float* tail_p;   // (S, 4H)
  float* tail_tc;  // (S, H)
};

Saved carve_saved(const LstmParts& at, const Layout& layout, Carve& carve) {
  const std::int32_t h = at.hidden, n = layout.history_rows;
  const std::int32_t samples = at.has_tail() ? layout.samples() : 0;
  Saved saved;
  saved.p = carve.take(n, 4 * h);
  saved.hp = carve.take(n, h);
  saved.cp = carve.take(n, h);
  saved.tc = carve.take(n, h);
  saved.last_c = carve.take(layout.groups, h);
  saved.tail_p = carve.take(samples, 4 * h);
  saved.tail_tc = carve.take(samples, h);
  return saved;
}

struct Scratch {
  float* dh;         // (G, H)
  float* dc;         // (G, H)
  float* from_last;  // (G, 4H) the last state's share of the tail's gates, or its gradient
  float* tail_c;     // (S, H) forward: the tail's cell; backward: gradient of the cell before it
  float* tail_dh;    // (S, H)
};

Scratch carve_scratch(const LstmParts& at, const Layout& layout, Carve& carve) {
  const std::int32_t h = at.hidden;
  const std::int32_t samples = at.has_tail() ? layout.samples() : 0;
  Scratch scratch;
  scratch.dh = carve.take(layout.groups, h);
  scratch.dc = carve.take(layout.groups, h);
  scratch.from_last = carve.take(at.has_tail() ? layout.groups : 0, 4 * h);
  scratch.tail_c = carve.take(samples, h);
  scratch.tail_dh = carve.take(samples, h);
  return scratch;
}

std::size_t floats(std::int32_t rows, std::int32_t cols) {
  return static_cast<std::size_t>(rows) * cols;
}

class Lstm final : public Op {
 public:
  Lstm(std::string name, LstmParts parts) : name_(std::move(name)), at_(parts) {}

  std::string name() const override { return name_; }
  std::vector<TensorId> inputs() const override {
    if (!at_.has_tail()) return {at_.history};
    return {at_.history, at_.tail_in};
  }
  std::vector<TensorId> outputs() const override {
    if (!at_.has_tail()) return {at_.out.states, at_.out.last};
    return {at_.out.states, at_.out.last, at_.out.tail};
  }
  void place_params(const std::vector<ParamSpec>& params) override {
    at_.kernel.place(params);
    at_.bias.place(params);
  }
  std::size_t packed_floats() const override {
    Carve carve(nullptr);
    carve_packed(at_, carve);
    return carve.floats();
  }
  void pack(const float* params, float* memory) const override {
    const Kernels& k = kernels();
    const std::int32_t h = at_.hidden, in = at_.in;
    Carve carve(memory);
    const Packed packed = carve_packed(at_, carve);
    const float* kernel = at_.kernel.in(params);
    const float* recurrent = kernel + floats(in, 4 * h);
    k.pack(kernel, 4 * h, in, 4 * h, false, packed.x);
    k.pack(kernel, 4 * h, 4 * h, in, true, packed.x_back);
    k.pack(recurrent, 4 * h, h, 4 * h, false, packed.h);
    k.pack(recurrent, 4 * h, 4 * h, h, true, packed.h_back);
    std::copy_n(at_.bias.in(params), 4 * h, packed.bias);
    for (std::int32_t j = 2 * h; j < 3 * h; ++j) packed.bias[j] += kForgetBias;
  }
  std::size_t saved_floats(const Layout& layout) const override {
    Carve carve(nullptr);
    carve_saved(at_, layout, carve);
    return carve.floats();
  }
  std::size_t scratch_floats(const Layout& layout) const override {
    Carve carve(nullptr);
    carve_scratch(at_, layout, carve);
    return carve.floats();
  }

  void forward(const OpContext& context) const override {
    const Layout& layout = *context.layout;
    const std::int32_t h = at_.hidden;
    const Packed packed = packed_in(context);
    const Saved saved = saved_in(context);
    Projection projection(context.value(at_.history), packed.x, packed.bias, saved.p, 4 * h,
                          kChunkRows);
    std::fill_n(saved.hp, floats(layout.groups, h), 0.0f);
    std::fill_n(saved.cp, floats(layout.groups, h), 0.0f);
    for (std::int32_t t = 0; t < layout.steps(); ++t) {
      projection.reach(layout, t);
      forward_step(context, packed, saved, t);
    }
    if (at_.has_tail()) forward_tail(context, packed, saved);
  }

  void backward(const OpContext& context) const override {
    const Kernels& k = kernels();
    const Layout& layout = *context.layout;
    const std::int32_t h = at_.hidden;
    const Packed packed = packed_in(context);
    const Saved saved = saved_in(context);
    const Scratch scratch = scratch_in(context);
    const Matrix dlast = context.grad(at_.out.last);
    k.copy_rows(dlast.data, dlast.stride, scratch.dh, h, layout.groups, h);
    std::fill_n(scratch.dc, floats(layout.groups, h), 0.0f);
    if (at_.has_tail()) backward_tail(context, packed, saved, scratch);
    std::int32_t end = layout.history_rows;
    for (std::int32_t t = layout.steps() - 1; t >= 0; --t) {
      backward_step(context, packed, saved, scratch, t);
      const std::int32_t first = layout.step_offset[t];
      if (t > 0 && end - first < kChunkRows) continue;
      backward_rows(context, packed, saved, first, end);
      end = first;
    }
  }

  void emit_onnx(GraphWriter& writer) const override;

 private:
  Packed packed_in(const OpContext& context) const {
    Carve carve(const_cast<float*>(context.packed));  // read only
    return carve_packed(at_, carve);
  }
  Saved saved_in(const OpContext& context) const {
    Carve carve(context.saved);
    return carve_saved(at_, *context.layout, carve);
  }
  Scratch scratch_in(const OpContext& context) const {
    Carve carve(context.scratch);
    return carve_scratch(at_, *context.layout, carve);
  }

  // The states go to the output, and to the next step or, where the history ends, to `last`.
  void forward_step(const OpContext& context, const Packed& packed, const Saved& saved,
                    std::int32_t t) const {
    const Kernels& k = kernels();
    const Layout& layout = *context.layout;
    const std::int32_t h = at_.hidden, row = layout.step_offset[t], rows = layout.step_rows[t];
    const bool ends = t + 1 == layout.steps();
    const std::int32_t next = ends ? 0 : layout.step_offset[t + 1];
    const std::int32_t go_on = ends ? 0 : layout.step_rows[t + 1];
    const Matrix states = context.value(at_.out.states), last = context.value(at_.out.last);
    float* p = saved.p + floats(row, 4 * h);
    const float* cp = saved.cp + floats(row, h);
    float* tc = saved.tc + floats(row, h);
    if (t > 0) {
      k.gemm(saved.hp + floats(row, h), h, packed.h, nullptr, p, 4 * h, rows, h, 4 * h, true);
    }
    k.lstm_state(p, cp, 1, saved.cp + floats(next, h), tc, states.row(row), states.stride, go_on,
                 h);
    k.lstm_state(p + floats(go_on, 4 * h), cp + floats(go_on, h), 1,
                 saved.last_c + floats(go_on, h), tc + floats(go_on, h), states.row(row + go_on),
                 states.stride, rows - go_on, h);
    k.copy_rows(states.row(row), states.stride, saved.hp + floats(next, h), h, go_on, h);
    k.copy_rows(states.row(row + go_on), states.stride, last.row(go_on), last.stride, rows - go_on,
                h);
  }

  void forward_tail(const OpContext& context, const Packed& packed, const Saved& saved) const {
    const Kernels& k = kernels();
    const Layout& layout = *context.layout;
    const std::int32_t h = at_.hidden, samples = layout.samples();
    const Scratch scratch = scratch_in(context);
    const Matrix last = context.value(at_.out.last), out = context.value(at_.out.tail);
    const Matrix x = context.value(at_.tail_in);
    k.gemm(last.data, last.stride, packed.h, packed.bias, scratch.from_last, 4 * h, layout.groups,
           h, 4 * h, false);
    k.gemm_from(x.data, x.stride, packed.x, scratch.from_last, 4 * h, layout.candidates,
                saved.tail_p, 4 * h, samples, at_.in, 4 * h);
    k.lstm_state(saved.tail_p, saved.last_c, layout.candidates, scratch.tail_c, saved.tail_tc,
                 out.data, out.stride, samples, h);
  }

  // Leaves the gradient of the last state added to scratch.dh, that of the last cell in scratch.dc.
  void backward_tail(const OpContext& context, const Packed& packed, const Saved& saved,
                     const Scratch& scratch) const {
    const Kernels& k = kernels();
    const Layout& layout = *context.layout;
    const std::int32_t h = at_.hidden, in = at_.in, groups = layout.groups;
    const std::int32_t samples = layout.samples();
    const Matrix x = context.value(at_.tail_in), dx = context.grad(at_.tail_in);
    const Matrix last = context.value(at_.out.last), dtail = context.grad(at_.out.tail);
    float* dkernel = at_.kernel.in(context.dparams);
    std::fill_n(scratch.tail_c, floats(samples, h), 0.0f);
    std::fill_n(scratch.tail_dh, floats(samples, h), 0.0f);
    k.lstm_state_backward(saved.tail_p, saved.last_c, layout.candidates, saved.tail_tc, dtail.data,
                          dtail.stride, scratch.tail_dh, scratch.tail_c, samples, h);
    k.sum_shared(scratch.tail_c, h, scratch.dc, h, groups, layout.candidates, h);
    k.sum_shared(saved.tail_p, 4 * h, scratch.from_last, 4 * h, groups, layout.candidates, 4 * h);
    k.gemm(scratch.from_last, 4 * h, packed.h_back, nullptr, scratch.dh, h, groups, 4 * h, h, true);
    k.gemm_tn(x.data, x.stride, saved.tail_p, 4 * h, dkernel, 4 * h, samples, in, 4 * h);
    k.gemm_tn(last.data, last.stride, scratch.from_last, 4 * h, dkernel + floats(in, 4 * h), 4 * h,
              groups, h, 4 * h);
    k.column_sum(scratch.from_last, 4 * h, groups, 4 * h, at_.bias.in(context.dparams));
    if (dx.data == nullptr) return;
    k.gemm(saved.tail_p, 4 * h, packed.x_back, nullptr, dx.data, dx.stride, samples, 4 * h, in,
           true);
  }

  void backward_step(const OpContext& context, const Packed& packed, const Saved& saved,
                     const Scratch& scratch, std::int32_t t) const {
    const Layout& layout = *context.layout;
    const std::int32_t h = at_.hidden, row = layout.step_offset[t], rows = layout.step_rows[t];
    const Matrix dstates = context.grad(at_.out.states);
    float* p = saved.p + floats(row, 4 * h);
    kernels().lstm_state_backward(p, saved.cp + floats(row, h), 1, saved.tc + floats(row, h),
                                  dstates.row(row), dstates.stride, scratch.dh, scratch.dc, rows,
                                  h);
    if (t == 0) return;
    kernels().gemm(p, 4 * h, packed.h_back, nullptr, scratch.dh, h, rows, 4 * h, h, false);
  }

  // From the gradients of the gates of history rows [first, end): those of parameters and of x.
  void backward_rows(const OpContext& context, const Packed& packed, const Saved& saved,
                     std::int32_t first, std::int32_t end) const {
    const Kernels& k = kernels();
    const std::int32_t h = at_.hidden, in = at_.in, rows = end - first;
    const Matrix x = context.value(at_.history), dx = context.grad(at_.history);
    const float* dp = saved.p + floats(first, 4 * h);
    float* dkernel = at_.kernel.in(context.dparams);
    k.gemm_tn(x.row(first), x.stride, dp, 4 * h, dkernel, 4 * h, rows, in, 4 * h);
    k.column_sum(dp, 4 * h, rows, 4 * h, at_.bias.in(context.dparams));
    // Before the first step the state is zero.
    const std::int32_t later = std::max(first, context.layout->groups);
    if (later < end) {
      k.gemm_tn(saved.hp + floats(later, h), h, saved.p + floats(later, 4 * h), 4 * h,
                dkernel + floats(in, 4 * h), 4 * h, end - later, h, 4 * h);
    }
    if (dx.data == nullptr) return;
    k.gemm(dp, 4 * h, packed.x_back, nullptr, dx.row(first), dx.stride, rows, 4 * h, in, true);
  }

  std::string name_;
  LstmParts at_;
};

void Lstm::emit_onnx(GraphWriter& writer) const {
  const std::int64_t in = at_.in, h = at_.hidden;
  const std::string kernel = writer.param(at_.kernel.id);
  std::vector<float> forget(static_cast<std::size_t>(4 * h));
  std::fill_n(forget.begin() + 2 * h, h, kForgetBias);
  const std::string bias =
      writer.node("Add", {writer.param(at_.bias.id), writer.constant({1, 4 * h}, forget)});
  const auto columns = [&](const std::string& value, std::int64_t from, std::int64_t to) {
    return writer.node("Slice", {value, writer.constant_int({1}, {from}),
                                 writer.constant_int({1}, {to}), writer.constant_int({1}, {1})});
  };
  // Columns i, j, f, o in ONNX's order i, o, f, j.
  const auto reordered = [&](const std::string& value) {
    return writer.node("Concat",
                       {columns(value, 0, h), columns(value, 3 * h, 4 * h),
                        columns(value, 2 * h, 3 * h), columns(value, h, 2 * h)},
                       {{"axis", std::int64_t{1}}});
  };
  const auto weights = [&](std::int64_t from, std::int64_t to) {
    const std::string rows =
        writer.node("Slice", {kernel, writer.constant_int({1}, {from}),
                              writer.constant_int({1}, {to}), writer.constant_int({1}, {0})});
    const std::string turned =
        writer.node("Transpose", {reordered(rows)}, {{"perm", std::vector<std::int64_t>{1, 0}}});
    return writer.node("Unsqueeze", {turned, writer.constant_int({1}, {0})});
  };
  const std::string zero =
      writer.constant({1, 4 * h}, std::vector<float>(static_cast<std::size_t>(4 * h)));
  const std::string both =
      writer.node("Concat", {reordered(bias), zero}, {{"axis", std::int64_t{1}}});
  const std::string states = writer.node(
      "LSTM",
      {writer.tensor(at_.history), weights(0, in), weights(in, in + h), both, writer.lengths()},
      {{"hidden_size", h}}, 3);
  const std::string axis0 = writer.constant_int({1}, {0});
  const std::string last = writer.node("Squeeze", {states + "_1", axis0});
  writer.bind(at_.out.states, writer.node("Squeeze", {states, writer.constant_int({1}, {1})}));
  writer.bind(at_.out.last, last);
  if (!at_.has_tail()) return;

  const std::string last_c = writer.node("Squeeze", {states + "_2", axis0});
  const std::string x =
      writer.node("Concat", {writer.tensor(at_.tail_in), onnx_repeat_candidates(writer, last)},
                  {{"axis", std::int64_t{1}}});
  const std::string p = writer.node("Add", {writer.node("MatMul", {x, kernel}), bias});
  const auto gate = [&](std::int64_t index, const char* function) {
    return writer.node(function, {columns(p, index * h, (index + 1) * h)});
  };
  const std::string kept =
      writer.node("Mul", {gate(2, "Sigmoid"), onnx_repeat_candidates(writer, last_c)});
  const std::string added = writer.node("Mul", {gate(0, "Sigmoid"), gate(1, "Tanh")});
  const std::string c = writer.node("Add", {kept, added});
  writer.bind(at_.out.tail, writer.node("Mul", {gate(3, "Sigmoid"), writer.node("Tanh", {c})}));
}

}  // namespace

LstmOutputs lstm(Graph& graph, std::string name, TensorId history, std::int32_t hidden,
                 LstmOptions options) {
  const TensorSpec x = graph.spec(history);
  CHECK(x.rows == Rows::kHistory) << name;
  CHECK_GT(hidden, 0) << name;
  LstmParts parts;
  parts.in = x.width;
  parts.hidden = hidden;
  parts.history = history;
  parts.tail_in = options.tail;
  parts.out.states = graph.tensor(Rows::kHistory, hidden);
  parts.out.last = graph.tensor(Rows::kGroup, hidden);
  parts.out.tail = kNoTensor;
  if (parts.has_tail()) {
    CHECK(graph.spec(options.tail).rows == Rows::kSample) << name;
    CHECK_EQ(graph.spec(options.tail).width, x.width) << name;
    parts.out.tail = graph.tensor(Rows::kSample, hidden);
  }
  parts.kernel.id =
      graph.param(name + "/kernel", x.width + hidden, 4 * hidden, {Init::kGlorotUniform});
  parts.bias.id = graph.param(name + "/bias", 1, 4 * hidden, {Init::kConstant, 0.0f});
  graph.add(std::make_unique<Lstm>(std::move(name), parts));
  return parts.out;
}

}  // namespace meander::nn
