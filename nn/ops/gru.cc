// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/gru.h"

#include <algorithm>
#include <memory>
#include <numeric>
#include <utility>

#include "common/check.h"
#include "nn/graph_writer.h"
#include "nn/ops/carve.h"
#include "nn/ops/onnx_forms.h"
#include "nn/ops/projection.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

// The weights of a cell, as parameters and in kernel order. Rows of work are [r | u | c], 3H.
struct Cell {
  std::int32_t in, hidden;
  OpParam gates_kernel, gates_bias, candidate_kernel, candidate_bias;

  void place(const std::vector<ParamSpec>& params) {
    for (OpParam* p : {&gates_kernel, &gates_bias, &candidate_kernel, &candidate_bias})
      p->place(params);
  }
};

struct PackedCell {
  float* x;               // (in, 3H)
  float* x_back;          // (3H, in): transposes, for backward
  float* gates;           // (H, 2H)
  float* gates_back;      // (2H, H)
  float* candidate;       // (H, H)
  float* candidate_back;  // (H, H)
  float* bias;            // (3H)
  float* input_weights;   // (in, 3H) row-major: both kernels beside each other, before packing
};

PackedCell carve_packed(const Cell& cell, Carve& carve) {
  const Kernels& k = kernels();
  const std::int32_t h = cell.hidden, in = cell.in;
  PackedCell packed;
  packed.x = carve.take(k.packed_floats(in, 3 * h));
  packed.x_back = carve.take(k.packed_floats(3 * h, in));
  packed.gates = carve.take(k.packed_floats(h, 2 * h));
  packed.gates_back = carve.take(k.packed_floats(2 * h, h));
  packed.candidate = carve.take(k.packed_floats(h, h));
  packed.candidate_back = carve.take(k.packed_floats(h, h));
  packed.bias = carve.take(3 * h);
  packed.input_weights = carve.take(in, 3 * h);
  return packed;
}

std::size_t packed_cell_floats(const Cell& cell) {
  Carve carve(nullptr);
  carve_packed(cell, carve);
  return carve.floats();
}

const PackedCell packed_cell(const Cell& cell, const float* packed) {
  Carve carve(const_cast<float*>(packed));  // read only from here on
  return carve_packed(cell, carve);
}

void pack_cell(const Cell& cell, const float* params, float* memory) {
  const Kernels& k = kernels();
  const std::int32_t h = cell.hidden, in = cell.in;
  Carve carve(memory);
  const PackedCell packed = carve_packed(cell, carve);
  const float* gates = cell.gates_kernel.in(params);
  const float* candidate = cell.candidate_kernel.in(params);
  for (std::int32_t r = 0; r < in; ++r) {
    float* row = packed.input_weights + r * 3 * h;
    std::copy_n(gates + r * 2 * h, 2 * h, row);
    std::copy_n(candidate + r * h, h, row + 2 * h);
  }
  std::copy_n(cell.gates_bias.in(params), 2 * h, packed.bias);
  std::copy_n(cell.candidate_bias.in(params), h, packed.bias + 2 * h);
  k.pack(packed.input_weights, 3 * h, in, 3 * h, false, packed.x);
  k.pack(packed.input_weights, 3 * h, 3 * h, in, true, packed.x_back);
  k.pack(gates + in * 2 * h, 2 * h, h, 2 * h, false, packed.gates);
  k.pack(gates + in * 2 * h, 2 * h, 2 * h, h, true, packed.gates_back);
  k.pack(candidate + in * h, h, h, h, false, packed.candidate);
  k.pack(candidate + in * h, h, h, h, true, packed.candidate_back);
}

// What a run over the rows keeps for backward, row by row in time-major order.
struct Run {
  float* p;   // (rows, 3H) r, u, c; after backward, their gradients
  float* hp;  // (rows, H) the state before the step
  float* rh;  // (rows, H) r * hp
};

Run carve_run(std::int32_t rows, std::int32_t hidden, Carve& carve) {
  Run run;
  run.p = carve.take(rows, 3 * hidden);
  run.hp = carve.take(rows, hidden);
  run.rh = carve.take(rows, hidden);
  return run;
}

// The rows of one step when each group is `share` rows.
struct Step {
  std::int32_t shared;  // first row of the step among those of the groups
  std::int32_t first, rows;
};
Step step_at(const Layout& layout, std::int32_t share, std::int32_t t) {
  if (t == layout.steps()) return {0, 0, 0};
  return {layout.step_offset[t], layout.step_offset[t] * share, layout.step_rows[t] * share};
}

// History rows whose products with x are made together, and whose gradients are.
constexpr std::int32_t kChunkRows = 96;

// Whether a cell's update gate counts, or is 1 and leaves all to attention.
enum class UpdateGate { kLearned, kOpen };

// Gates and candidate of one step. Row i starts from row i / share of `projected`, x's share.
void forward_gates(const Cell& cell, const PackedCell& packed, const Step& step, std::int32_t share,
                   const float* projected, const Run& run, UpdateGate gate = UpdateGate::kLearned) {
  const Kernels& k = kernels();
  const std::int32_t h = cell.hidden;
  const std::int32_t depth = step.first == 0 ? 0 : h;  // before the first step the state is zero
  const float* from = projected + static_cast<std::size_t>(step.first / share) * 3 * h;
  float* p = run.p + static_cast<std::size_t>(step.first) * 3 * h;
  float* hp = run.hp + static_cast<std::size_t>(step.first) * h;
  float* rh = run.rh + static_cast<std::size_t>(step.first) * h;
  k.gemm_from(hp, h, packed.gates, from, 3 * h, share, p, 3 * h, step.rows, depth, 2 * h);
  k.gru_gates(p, 3 * h, hp, h, rh, h, step.rows, h);
  for (std::int32_t i = 0; gate == UpdateGate::kOpen && i < step.rows; ++i) {
    std::fill_n(p + i * 3 * h + h, h, 1.0f);  // of which the gradient is 0: u (1 - u)
  }
  k.gemm_from(rh, h, packed.candidate, from + 2 * h, 3 * h, share, p + 2 * h, 3 * h, step.rows,
              depth, h);
}

// Rows [begin, end) of the step: their state after it.
void forward_state(const Cell& cell, const Step& step, std::int32_t begin, std::int32_t end,
                   const Run& run, const float* attention, float* out, std::int32_t ldo) {
  const std::int32_t h = cell.hidden;
  const std::size_t row = static_cast<std::size_t>(step.first) + begin;
  kernels().gru_state(run.p + row * 3 * h, 3 * h, run.hp + row * h, h,
                      attention == nullptr ? nullptr : attention + row, out, ldo, end - begin, h);
}

// All steps back. dstates (no data: none) are gradients of the states, dh (rows of the first step,
// H) holds the gradient of each final state and is used up; drh is scratch of its size.
// finish(first, end): history rows [first, end) are done, while they are in cache; last to first.
template <class Finish>
void backward_steps(const Cell& cell, const PackedCell& packed, const Layout& layout,
                    std::int32_t share, const Run& run, const float* attention, float* dattention,
                    ConstMatrix dstates, float* dh, float* drh, Finish finish) {
  const Kernels& k = kernels();
  const std::int32_t h = cell.hidden;
  std::int32_t end = layout.history_rows;
  for (std::int32_t t = layout.steps() - 1; t >= 0; --t) {
    const Step step = step_at(layout, share, t);
    const std::size_t row = step.first;
    float* p = run.p + row * 3 * h;
    const float* hp = run.hp + row * h;
    k.gru_state_backward(p, 3 * h, hp, h, attention == nullptr ? nullptr : attention + row,
                         dstates.data == nullptr ? nullptr : dstates.row(step.first),
                         dstates.stride, dh, dattention == nullptr ? nullptr : dattention + row,
                         step.rows, h);
    if (t == 0) {  // r had nothing to reset
      for (std::int32_t i = 0; i < step.rows; ++i) std::fill_n(p + i * 3 * h, h, 0.0f);
      return finish(0, end);
    }
    k.gemm(p + 2 * h, 3 * h, packed.candidate_back, nullptr, drh, h, step.rows, h, h, false);
    k.gru_reset_backward(p, 3 * h, hp, h, drh, dh, step.rows, h);
    k.gemm(p, 3 * h, packed.gates_back, nullptr, dh, h, step.rows, 2 * h, h, true);
    if (end - step.shared < kChunkRows) continue;
    finish(step.shared, end);
    end = step.shared;
  }
}

// Gradients of the recurrent halves of the kernels of history rows [first, end), from run.p as
// backward_steps() left it.
void backward_recurrent_weights(const Cell& cell, const Layout& layout, std::int32_t share,
                                const Run& run, std::int32_t first, std::int32_t end,
                                float* dparams) {
  const Kernels& k = kernels();
  const std::int32_t h = cell.hidden;
  first = std::max(first, layout.groups);  // before the first step the state is zero
  if (first >= end) return;
  const std::size_t row = static_cast<std::size_t>(first) * share;
  const std::int32_t rows = (end - first) * share;
  const float* dp = run.p + row * 3 * h;
  k.gemm_tn(run.hp + row * h, h, dp, 3 * h, cell.gates_kernel.in(dparams) + cell.in * 2 * h, 2 * h,
            rows, h, 2 * h);
  k.gemm_tn(run.rh + row * h, h, dp + 2 * h, 3 * h, cell.candidate_kernel.in(dparams) + cell.in * h,
            h, rows, h, h);
}

// From dp (history rows [first, end), 3H), the gradient of x's share: biases, x, and into dkernels
// (in, 3H) the input halves of both kernels beside each other.
void backward_input(const Cell& cell, const PackedCell& packed, ConstMatrix x, const float* dp,
                    std::int32_t first, std::int32_t end, float* dkernels, float* dparams,
                    Matrix dx) {
  const Kernels& k = kernels();
  const std::int32_t h = cell.hidden, rows = end - first;
  k.gemm_tn(x.row(first), x.stride, dp, 3 * h, dkernels, 3 * h, rows, cell.in, 3 * h);
  k.column_sum(dp, 3 * h, rows, 2 * h, cell.gates_bias.in(dparams));
  k.column_sum(dp + 2 * h, 3 * h, rows, h, cell.candidate_bias.in(dparams));
  if (dx.data == nullptr) return;
  k.gemm(dp, 3 * h, packed.x_back, nullptr, dx.row(first), dx.stride, rows, 3 * h, cell.in, true);
}

void add_input_kernels(const Cell& cell, const float* dkernels, float* dparams) {
  const Kernels& k = kernels();
  const std::int32_t h = cell.hidden;
  for (std::int32_t r = 0; r < cell.in; ++r) {
    const float* row = dkernels + r * 3 * h;
    k.axpy(1.0f, row, cell.gates_kernel.in(dparams) + r * 2 * h, 2 * h);
    k.axpy(1.0f, row + 2 * h, cell.candidate_kernel.in(dparams) + r * h, h);
  }
}

Cell make_cell(Graph& graph, const std::string& name, std::int32_t in, std::int32_t hidden) {
  CHECK_GT(hidden, 0) << name;
  Cell cell;
  cell.in = in;
  cell.hidden = hidden;
  const std::int32_t rows = in + hidden;
  cell.gates_kernel.id =
      graph.param(name + "/gates/kernel", rows, 2 * hidden, {Init::kGlorotUniform});
  cell.gates_bias.id = graph.param(name + "/gates/bias", 1, 2 * hidden, {Init::kConstant, 1.0f});
  cell.candidate_kernel.id =
      graph.param(name + "/candidate/kernel", rows, hidden, {Init::kGlorotUniform});
  cell.candidate_bias.id =
      graph.param(name + "/candidate/bias", 1, hidden, {Init::kConstant, 0.0f});
  return cell;
}

// Rows [row, row + rows) and columns [column, column + columns) of a 2-d ONNX value.
std::string block(GraphWriter& writer, const std::string& value, std::int64_t row,
                  std::int64_t rows, std::int64_t column, std::int64_t columns) {
  return writer.node("Slice", {value, writer.constant_int({2}, {row, column}),
                               writer.constant_int({2}, {row + rows, column + columns}),
                               writer.constant_int({2}, {0, 1})});
}

// ---------------------------------------------------------------------------------------- gru

class Gru final : public Op {
 public:
  Gru(std::string name, Cell cell, TensorId x, TensorId out)
      : name_(std::move(name)), cell_(cell), x_(x), out_(out) {}

  std::string name() const override { return name_; }
  std::vector<TensorId> inputs() const override { return {x_}; }
  std::vector<TensorId> outputs() const override { return {out_}; }
  void place_params(const std::vector<ParamSpec>& params) override { cell_.place(params); }
  std::size_t packed_floats() const override { return packed_cell_floats(cell_); }
  void pack(const float* params, float* packed) const override { pack_cell(cell_, params, packed); }
  std::size_t saved_floats(const Layout& layout) const override {
    Carve carve(nullptr);
    carve_run(layout.history_rows, cell_.hidden, carve);
    return carve.floats();
  }
  std::size_t scratch_floats(const Layout& layout) const override {
    Carve carve(nullptr);
    for (int piece = 0; piece < 2; ++piece) carve.take(layout.groups, cell_.hidden);
    carve.take(cell_.in, 3 * cell_.hidden);
    return carve.floats();
  }

  void forward(const OpContext& context) const override {
    const Layout& layout = *context.layout;
    const std::int32_t h = cell_.hidden;
    const PackedCell packed = packed_cell(cell_, context.packed);
    Carve saved(context.saved);
    const Run run = carve_run(layout.history_rows, h, saved);
    const Matrix x = context.value(x_), states = context.value(out_);
    Projection projection(x, packed.x, packed.bias, run.p, 3 * h, kChunkRows);
    std::fill_n(run.hp, static_cast<std::size_t>(layout.groups) * h, 0.0f);
    for (std::int32_t t = 0; t < layout.steps(); ++t) {
      const Step step = step_at(layout, 1, t), next = step_at(layout, 1, t + 1);
      projection.reach(layout, t);
      forward_gates(cell_, packed, step, 1, run.p, run);
      forward_state(cell_, step, 0, step.rows, run, nullptr, states.row(step.first), states.stride);
      kernels().copy_rows(states.row(step.first), states.stride,
                          run.hp + static_cast<std::size_t>(next.first) * h, h, next.rows, h);
    }
  }

  void backward(const OpContext& context) const override {
    const Layout& layout = *context.layout;
    const std::int32_t h = cell_.hidden;
    const PackedCell packed = packed_cell(cell_, context.packed);
    Carve saved(context.saved), scratch(context.scratch);
    const Run run = carve_run(layout.history_rows, h, saved);
    float* dh = scratch.take(layout.groups, h);
    float* drh = scratch.take(layout.groups, h);
    float* dkernels = scratch.take(cell_.in, 3 * h);
    std::fill_n(dh, static_cast<std::size_t>(layout.groups) * h, 0.0f);
    std::fill_n(dkernels, static_cast<std::size_t>(cell_.in) * 3 * h, 0.0f);
    backward_steps(cell_, packed, layout, 1, run, nullptr, nullptr, context.grad(out_), dh, drh,
                   [&](std::int32_t first, std::int32_t end) {
                     backward_recurrent_weights(cell_, layout, 1, run, first, end, context.dparams);
                     backward_input(cell_, packed, context.value(x_),
                                    run.p + static_cast<std::size_t>(first) * 3 * h, first, end,
                                    dkernels, context.dparams, context.grad(x_));
                   });
    add_input_kernels(cell_, dkernels, context.dparams);
  }

  void emit_onnx(GraphWriter& writer) const override {
    const std::int64_t in = cell_.in, h = cell_.hidden;
    const std::string gates = writer.param(cell_.gates_kernel.id);
    const std::string candidate = writer.param(cell_.candidate_kernel.id);
    // (1, 3H, rows), in ONNX's order u, r, c.
    const auto weights = [&](std::int64_t row, std::int64_t rows) {
      const std::string wide =
          writer.node("Concat",
                      {block(writer, gates, row, rows, h, h), block(writer, gates, row, rows, 0, h),
                       block(writer, candidate, row, rows, 0, h)},
                      {{"axis", std::int64_t{1}}});
      const std::string turned =
          writer.node("Transpose", {wide}, {{"perm", std::vector<std::int64_t>{1, 0}}});
      return writer.node("Unsqueeze", {turned, writer.constant_int({1}, {0})});
    };
    const std::string gates_bias = writer.param(cell_.gates_bias.id);
    const std::string bias = writer.node(
        "Concat",
        {block(writer, gates_bias, 0, 1, h, h), block(writer, gates_bias, 0, 1, 0, h),
         writer.param(cell_.candidate_bias.id),
         writer.constant({1, 3 * h}, std::vector<float>(static_cast<std::size_t>(3 * h)))},
        {{"axis", std::int64_t{1}}});
    const std::string states = writer.node(
        "GRU", {writer.tensor(x_), weights(0, in), weights(in, h), bias, writer.lengths()},
        {{"hidden_size", h}});
    writer.bind(out_, writer.node("Squeeze", {states, writer.constant_int({1}, {1})}));
  }

 private:
  std::string name_;
  Cell cell_;
  TensorId x_, out_;
};

// -------------------------------------------------------------------------------------- evolution

// A run for each candidate. x: kHistory, shared by the candidates of a group, or kHistorySample.
class Evolution final : public Op {
 public:
  Evolution(std::string name, Cell cell, UpdateGate gate, bool is_shared, TensorId x,
            TensorId attention, TensorId out)
      : name_(std::move(name)),
        cell_(cell),
        gate_(gate),
        is_shared_(is_shared),
        x_(x),
        attention_(attention),
        out_(out) {}

  std::string name() const override { return name_; }
  std::vector<TensorId> inputs() const override {
    return attention_ == kNoTensor ? std::vector<TensorId>{x_}
                                   : std::vector<TensorId>{x_, attention_};
  }
  std::vector<TensorId> outputs() const override { return {out_}; }
  void place_params(const std::vector<ParamSpec>& params) override { cell_.place(params); }
  std::size_t packed_floats() const override { return packed_cell_floats(cell_); }
  void pack(const float* params, float* packed) const override { pack_cell(cell_, params, packed); }
  std::size_t saved_floats(const Layout& layout) const override {
    Carve carve(nullptr);
    carve_run(layout.rows(Rows::kHistorySample), cell_.hidden, carve);
    return carve.floats();
  }
  // Forward: x's share of the gates. Backward: its gradient, and the two states of a step.
  std::size_t scratch_floats(const Layout& layout) const override {
    Carve carve(nullptr);
    carve.take(layout.history_rows, 3 * cell_.hidden);
    for (int piece = 0; piece < 2; ++piece) carve.take(layout.samples(), cell_.hidden);
    carve.take(cell_.in, 3 * cell_.hidden);
    return carve.floats();
  }

  void forward(const OpContext& context) const override {
    const Layout& layout = *context.layout;
    const std::int32_t h = cell_.hidden, share = layout.candidates;
    const std::int32_t x_share = is_shared_ ? share : 1;
    const PackedCell packed = packed_cell(cell_, context.packed);
    Carve saved(context.saved), scratch(context.scratch);
    const Run run = carve_run(layout.rows(Rows::kHistorySample), h, saved);
    // Where no row is shared, a row's gates grow where its projection lies.
    float* projected = x_share == 1 ? run.p : scratch.take(layout.history_rows, 3 * h);
    const Matrix x = context.value(x_), out = context.value(out_);
    const float* attention = attention_ == kNoTensor ? nullptr : context.value(attention_).data;
    Projection projection(x, packed.x, packed.bias, projected, 3 * h, kChunkRows);
    std::fill_n(run.hp, static_cast<std::size_t>(layout.samples()) * h, 0.0f);
    for (std::int32_t t = 0; t < layout.steps(); ++t) {
      const Step step = step_at(layout, share, t), next = step_at(layout, share, t + 1);
      projection.reach(layout, t, share / x_share);
      forward_gates(cell_, packed, step, x_share, projected, run, gate_);
      // Histories that go on leave their state to the next step; the others are done.
      forward_state(cell_, step, 0, next.rows, run, attention,
                    run.hp + static_cast<std::size_t>(next.first) * h, h);
      forward_state(cell_, step, next.rows, step.rows, run, attention, out.row(next.rows),
                    out.stride);
    }
  }

  void backward(const OpContext& context) const override {
    const Layout& layout = *context.layout;
    const std::int32_t h = cell_.hidden, share = layout.candidates;
    const PackedCell packed = packed_cell(cell_, context.packed);
    Carve saved(context.saved), scratch(context.scratch);
    const Run run = carve_run(layout.rows(Rows::kHistorySample), h, saved);
    float* dprojected = scratch.take(layout.history_rows, 3 * h);
    float* dh = scratch.take(layout.samples(), h);
    float* drh = scratch.take(layout.samples(), h);
    float* dkernels = scratch.take(cell_.in, 3 * h);
    const Matrix dout = context.grad(out_);
    kernels().copy_rows(dout.data, dout.stride, dh, h, layout.samples(), h);
    std::fill_n(dkernels, static_cast<std::size_t>(cell_.in) * 3 * h, 0.0f);
    const bool is_attentive = attention_ != kNoTensor;
    const float* attention = is_attentive ? context.value(attention_).data : nullptr;
    float* dattention = is_attentive ? context.grad(attention_).data : nullptr;
    backward_steps(
        cell_, packed, layout, share, run, attention, dattention, {}, dh, drh,
        [&](std::int32_t first, std::int32_t end) {
          backward_recurrent_weights(cell_, layout, share, run, first, end, context.dparams);
          const float* dp = run.p + static_cast<std::size_t>(first) * share * 3 * h;
          if (!is_shared_) {
            first *= share;
            end *= share;
          } else if (share > 1) {
            kernels().sum_shared(dp, 3 * h, dprojected, 3 * h, end - first, share, 3 * h);
            dp = dprojected;
          }
          backward_input(cell_, packed, context.value(x_), dp, first, end, dkernels,
                         context.dparams, context.grad(x_));
        });
    add_input_kernels(cell_, dkernels, context.dparams);
  }

  void emit_onnx(GraphWriter& writer) const override {
    const std::int64_t in = cell_.in, h = cell_.hidden;
    const std::string gates = writer.param(cell_.gates_kernel.id);
    const std::string candidate = writer.param(cell_.candidate_kernel.id);
    const auto repeated = [&](const std::string& history) {
      return is_shared_ ? onnx_repeat_history(writer, history) : history;
    };
    const auto projected = [&](const std::string& kernel, std::int64_t columns, ParamId bias) {
      const std::string product =
          writer.node("MatMul", {writer.tensor(x_), block(writer, kernel, 0, in, 0, columns)});
      return repeated(writer.node("Add", {product, writer.param(bias)}));
    };
    const std::string real =
        onnx_repeat_history(writer, onnx_history_mask(writer, writer.tensor(x_)));
    const std::string gates_state = block(writer, gates, in, h, 0, 2 * h);
    const std::string candidate_state = block(writer, candidate, in, h, 0, h);
    const std::string samples = writer.node("Shape", {writer.sample_lengths()});
    const std::string shape = writer.node("Concat", {samples, writer.constant_int({1}, {h})},
                                          {{"axis", std::int64_t{0}}});
    const std::string zero = writer.node("ConstantOfShape", {shape});
    const auto step = [&](GraphWriter& body, const std::vector<std::string>& states,
                          const std::vector<std::string>& slices) -> std::vector<std::string> {
      const std::string &before = states[0], one = body.constant({}, {1.0f});
      const std::string both = body.node(
          "Sigmoid", {body.node("Add", {slices[0], body.node("MatMul", {before, gates_state})})});
      const auto columns = [&](std::int64_t from) {
        return body.node("Slice",
                         {both, body.constant_int({1}, {from}), body.constant_int({1}, {from + h}),
                          body.constant_int({1}, {1})});
      };
      const std::string reset = body.node("Mul", {columns(0), before});
      const std::string c = body.node(
          "Tanh", {body.node("Add", {slices[1], body.node("MatMul", {reset, candidate_state})})});
      std::string keep = gate_ == UpdateGate::kOpen ? one : columns(h);
      if (attention_ != kNoTensor) {
        keep = body.node("Mul", {body.node("Sub", {one, slices[3]}), keep});
      }
      const std::string after = body.node(
          "Add",
          {body.node("Mul", {keep, before}), body.node("Mul", {body.node("Sub", {one, keep}), c})});
      return {body.node("Where", {slices[2], after, before})};
    };
    std::vector<std::string> scanned = {projected(gates, 2 * h, cell_.gates_bias.id),
                                        projected(candidate, h, cell_.candidate_bias.id), real};
    if (attention_ != kNoTensor) scanned.push_back(writer.tensor(attention_));
    const std::vector<std::string> last = writer.scan({zero}, scanned, 0, step);
    writer.bind(out_, last[0]);
  }

 private:
  std::string name_;
  Cell cell_;
  UpdateGate gate_;
  bool is_shared_;
  TensorId x_, attention_, out_;
};

TensorId evolution(Graph& graph, std::string name, UpdateGate gate, TensorId x, TensorId attention,
                   std::int32_t hidden) {
  const Cell cell = make_cell(graph, name, graph.spec(x).width, hidden);
  const bool is_shared = graph.spec(x).rows == Rows::kHistory;
  const TensorId out = graph.tensor(Rows::kSample, hidden);
  graph.add(std::make_unique<Evolution>(std::move(name), cell, gate, is_shared, x, attention, out));
  return out;
}

// kHistory x (w), kHistorySample a (1) -> kHistorySample (w): a x.
class WeighedHistory final : public Op {
 public:
  WeighedHistory(std::string name, TensorId x, TensorId weights, TensorId out)
      : name_(std::move(name)), x_(x), weights_(weights), out_(out) {}

  std::string name() const override { return name_; }
  std::vector<TensorId> inputs() const override { return {x_, weights_}; }
  std::vector<TensorId> outputs() const override { return {out_}; }

  void forward(const OpContext& context) const override {
    const Matrix x = context.value(x_), weights = context.value(weights_);
    const Matrix out = context.value(out_);
    for (std::int32_t r = 0; r < out.rows; ++r) {
      const float weight = *weights.row(r);
      const float* from = x.row(r / context.layout->candidates);
      float* __restrict to = out.row(r);
      for (std::int32_t c = 0; c < out.cols; ++c) to[c] = weight * from[c];
    }
  }

  void backward(const OpContext& context) const override {
    const Matrix x = context.value(x_), weights = context.value(weights_);
    const Matrix dx = context.grad(x_), dweights = context.grad(weights_);
    const Matrix dout = context.grad(out_);
    for (std::int32_t r = 0; r < dout.rows; ++r) {
      const std::int32_t row = r / context.layout->candidates;
      if (dx.data != nullptr) kernels().axpy(*weights.row(r), dout.row(r), dx.row(row), dx.cols);
      if (dweights.data == nullptr) continue;
      *dweights.row(r) += std::inner_product(x.row(row), x.row(row) + x.cols, dout.row(r), 0.0f);
    }
  }

  void emit_onnx(GraphWriter& writer) const override {
    writer.bind(out_, writer.node("Mul", {onnx_repeat_history(writer, writer.tensor(x_)),
                                          writer.tensor(weights_)}));
  }

 private:
  std::string name_;
  TensorId x_, weights_, out_;
};

void check_inputs(const Graph& graph, const std::string& name, TensorId x, TensorId attention) {
  CHECK(graph.spec(x).rows == Rows::kHistory) << name;
  CHECK(graph.spec(attention).rows == Rows::kHistorySample) << name;
  CHECK_EQ(graph.spec(attention).width, 1) << name;
}

}  // namespace

TensorId gru(Graph& graph, std::string name, TensorId x, std::int32_t hidden) {
  CHECK(graph.spec(x).rows == Rows::kHistory) << name;
  const Cell cell = make_cell(graph, name, graph.spec(x).width, hidden);
  const TensorId out = graph.tensor(Rows::kHistory, hidden);
  graph.add(std::make_unique<Gru>(std::move(name), cell, x, out));
  return out;
}

TensorId augru(Graph& graph, std::string name, TensorId x, TensorId attention,
               std::int32_t hidden) {
  check_inputs(graph, name, x, attention);
  return evolution(graph, std::move(name), UpdateGate::kLearned, x, attention, hidden);
}

TensorId agru(Graph& graph, std::string name, TensorId x, TensorId attention, std::int32_t hidden) {
  check_inputs(graph, name, x, attention);
  return evolution(graph, std::move(name), UpdateGate::kOpen, x, attention, hidden);
}

TensorId aigru(Graph& graph, std::string name, TensorId x, TensorId attention,
               std::int32_t hidden) {
  check_inputs(graph, name, x, attention);
  const TensorId weighed = graph.tensor(Rows::kHistorySample, graph.spec(x).width);
  graph.add(std::make_unique<WeighedHistory>(name + "/inputs", x, attention, weighed));
  return evolution(graph, std::move(name), UpdateGate::kLearned, weighed, kNoTensor, hidden);
}

}  // namespace meander::nn
