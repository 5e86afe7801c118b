// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/auxiliary_loss.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "common/check.h"
#include "nn/ops/carve.h"
#include "nn/ops/turned.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

constexpr std::int32_t kTileRows = 96;  // history rows; each is a click and a non-click
const float kInverseDeviation = static_cast<float>(1.0 / std::sqrt(1.001));

std::size_t floats(std::int32_t rows, std::int32_t cols) {
  return static_cast<std::size_t>(rows) * cols;
}

struct Parts {
  TensorId states, history, negatives;
  std::int32_t h, e, a, b;  // widths: state, behaviour, first and second hidden layer
  AuxiliaryLossOptions options;
  OpParam gamma, beta, kernel1, bias1, kernel2, bias2, kernel3, bias3;
};

struct Packed {
  float *state, *state_back;          // (H, A) rows of the first kernel, times gamma
  float *behaviour, *behaviour_back;  // (E, A) the others
  float* bias1;                       // (A) with beta's share
  float *second, *second_back;        // (A, B)
  float* third;                       // (B) first column minus second: the logit of a click
  float* scaled;                      // (H + E, A) row-major, before packing
};

Packed carve_packed(const Parts& at, Carve& carve) {
  const Kernels& k = kernels();
  Packed packed;
  packed.state = carve.take(k.packed_floats(at.h, at.a));
  packed.state_back = carve.take(k.packed_floats(at.a, at.h));
  packed.behaviour = carve.take(k.packed_floats(at.e, at.a));
  packed.behaviour_back = carve.take(k.packed_floats(at.a, at.e));
  packed.bias1 = carve.take(at.a);
  packed.second = carve.take(k.packed_floats(at.a, at.b));
  packed.second_back = carve.take(k.packed_floats(at.b, at.a));
  packed.third = carve.take(at.b);
  packed.scaled = carve.take(at.h + at.e, at.a);
  return packed;
}

// Sums of gradients, made in forward and added to the parameters' in backward. Those of the inputs
// are added in forward, too: nothing of a row is kept for backward.
struct Saved {
  float* weights;                           // (H + E, A) of the scaled first kernel
  float *bias1, *weights2, *bias2, *third;  // (A), (B, A) turned, (B), (B)
  float* third_bias;                        // (1)
  std::size_t floats;                       // all of them
};

Saved carve_saved(const Parts& at, Carve& carve) {
  Saved saved;
  saved.weights = carve.take(at.h + at.e, at.a);
  saved.bias1 = carve.take(at.a);
  saved.weights2 = carve.take(at.b, at.a);
  saved.bias2 = carve.take(at.b);
  saved.third = carve.take(at.b);
  saved.third_bias = carve.take(1);
  saved.floats = carve.floats();
  return saved;
}

struct Scratch {
  float *state, *dstate;  // (tile, H)
  float* shared;          // (tile, A) the state's share of the first layer, or its gradient
  float* y1;              // (2 tile, A)
  float* dz1;             // (2 tile, A)
  float* y2;              // (2 tile, B) then its gradient before the sigmoid
  float *logit, *dlogit;  // (2 tile)
};

Scratch carve_scratch(const Parts& at, Carve& carve) {
  Scratch scratch;
  scratch.state = carve.take(kTileRows, at.h);
  scratch.dstate = carve.take(kTileRows, at.h);
  scratch.shared = carve.take(kTileRows, at.a);
  scratch.y1 = carve.take(2 * kTileRows, at.a);
  scratch.dz1 = carve.take(2 * kTileRows, at.a);
  scratch.y2 = carve.take(2 * kTileRows, at.b);
  scratch.logit = carve.take(2 * kTileRows);
  scratch.dlogit = carve.take(2 * kTileRows);
  return scratch;
}

// The history rows before those from the second step on: the same group's, a step earlier. They
// come in runs of rows that lie one after another.
class RowsBefore {
 public:
  explicit RowsBefore(const Layout& layout) : layout_(layout) {}
  // body(first, rows, done) for the runs of the next `count` rows; `done` of them came before.
  template <class Body>
  void next(std::int32_t count, Body body) {
    for (std::int32_t done = 0; done < count;) {
      while (group_ == layout_.step_rows[step_]) {
        ++step_;
        group_ = 0;
      }
      const std::int32_t rows = std::min(layout_.step_rows[step_] - group_, count - done);
      body(layout_.step_offset[step_ - 1] + group_, rows, done);
      group_ += rows;
      done += rows;
    }
  }

 private:
  const Layout& layout_;
  std::int32_t step_ = 1, group_ = 0;
};

void add_row(const float* from, float* to, std::int32_t n) {
  kernels().axpy(1.0f, from, to, static_cast<std::size_t>(n));
}

class AuxiliaryLoss final : public Op {
 public:
  AuxiliaryLoss(std::string name, Parts parts) : name_(std::move(name)), at_(parts) {}

  std::string name() const override { return name_; }
  std::vector<TensorId> inputs() const override { return {at_.states, at_.history, at_.negatives}; }
  std::vector<TensorId> outputs() const override { return {}; }
  void place_params(const std::vector<ParamSpec>& params) override {
    for (OpParam* p : {&at_.gamma, &at_.beta, &at_.kernel1, &at_.bias1, &at_.kernel2, &at_.bias2,
                       &at_.kernel3, &at_.bias3})
      p->place(params);
  }
  std::size_t packed_floats() const override {
    Carve carve(nullptr);
    carve_packed(at_, carve);
    return carve.floats();
  }
  void pack(const float* params, float* memory) const override {
    const Kernels& k = kernels();
    const std::int32_t h = at_.h, e = at_.e, a = at_.a, b = at_.b;
    Carve carve(memory);
    const Packed packed = carve_packed(at_, carve);
    const float* gamma = at_.gamma.in(params);
    const float* beta = at_.beta.in(params);
    const float* kernel = at_.kernel1.in(params);
    std::copy_n(at_.bias1.in(params), a, packed.bias1);
    for (std::int32_t r = 0; r < h + e; ++r) {
      const float* row = kernel + floats(r, a);
      const float scale = gamma[r] * kInverseDeviation;
      for (std::int32_t j = 0; j < a; ++j) packed.scaled[floats(r, a) + j] = scale * row[j];
      for (std::int32_t j = 0; j < a; ++j) packed.bias1[j] += beta[r] * row[j];
    }
    const float* behaviour = packed.scaled + floats(h, a);
    k.pack(packed.scaled, a, h, a, false, packed.state);
    k.pack(packed.scaled, a, a, h, true, packed.state_back);
    k.pack(behaviour, a, e, a, false, packed.behaviour);
    k.pack(behaviour, a, a, e, true, packed.behaviour_back);
    k.pack(at_.kernel2.in(params), b, a, b, false, packed.second);
    k.pack(at_.kernel2.in(params), b, b, a, true, packed.second_back);
    const float* third = at_.kernel3.in(params);
    for (std::int32_t j = 0; j < b; ++j) packed.third[j] = third[2 * j] - third[2 * j + 1];
  }
  std::size_t saved_floats(const Layout&) const override {
    Carve carve(nullptr);
    carve_saved(at_, carve);
    return carve.floats();
  }
  std::size_t scratch_floats(const Layout&) const override {
    Carve carve(nullptr);
    carve_scratch(at_, carve);
    return carve.floats();
  }

  void forward(const OpContext& context) const override {
    if (!context.training) return;
    Carve packed_memory(const_cast<float*>(context.packed));  // read only
    Carve saved_memory(context.saved), scratch_memory(context.scratch);
    const Packed packed = carve_packed(at_, packed_memory);
    const Saved saved = carve_saved(at_, saved_memory);
    const Scratch scratch = carve_scratch(at_, scratch_memory);
    std::fill_n(saved.weights, saved.floats, 0.0f);
    const Matrix states = context.value(at_.states), dstates = context.grad(at_.states);
    RowsBefore before(*context.layout);
    const std::int32_t count = context.layout->history_rows - context.layout->groups;
    for (std::int32_t first = 0; first < count; first += kTileRows) {
      const std::int32_t rows = std::min(kTileRows, count - first);
      RowsBefore again = before;
      before.next(rows, [&](std::int32_t from, std::int32_t run, std::int32_t done) {
        kernels().copy_rows(states.row(from), states.stride, scratch.state + floats(done, at_.h),
                            at_.h, run, at_.h);
      });
      run_tile(context, packed, saved, scratch, context.layout->groups + first, rows);
      if (dstates.data == nullptr) continue;
      again.next(rows, [&](std::int32_t to, std::int32_t run, std::int32_t done) {
        kernels().add_rows(scratch.dstate + floats(done, at_.h), at_.h, dstates.row(to),
                           dstates.stride, run, at_.h);
      });
    }
  }

  void backward(const OpContext& context) const override {
    Carve saved_memory(context.saved);
    const Saved saved = carve_saved(at_, saved_memory);
    const float* params = context.params;
    float* d = context.dparams;
    const std::int32_t a = at_.a, b = at_.b;
    add_row(saved.bias1, at_.bias1.in(d), a);
    add_turned(saved.weights2, b, a, at_.kernel2.in(d));
    add_row(saved.bias2, at_.bias2.in(d), b);
    for (std::int32_t j = 0; j < b; ++j) {
      at_.kernel3.in(d)[2 * j] += saved.third[j];
      at_.kernel3.in(d)[2 * j + 1] -= saved.third[j];
    }
    at_.bias3.in(d)[0] += *saved.third_bias;
    at_.bias3.in(d)[1] -= *saved.third_bias;
    // Through scale and shift, which were folded into the first kernel and bias.
    for (std::int32_t r = 0; r < at_.h + at_.e; ++r) {
      const float* row = at_.kernel1.in(params) + floats(r, a);
      const float* dscaled = saved.weights + floats(r, a);
      float* drow = at_.kernel1.in(d) + floats(r, a);
      const float scale = at_.gamma.in(params)[r] * kInverseDeviation;
      const float beta = at_.beta.in(params)[r];
      float dgamma = 0, dbeta = 0;
      for (std::int32_t j = 0; j < a; ++j) {
        drow[j] += scale * dscaled[j] + beta * saved.bias1[j];
        dgamma += row[j] * dscaled[j];
        dbeta += row[j] * saved.bias1[j];
      }
      at_.gamma.in(d)[r] += dgamma * kInverseDeviation;
      at_.beta.in(d)[r] += dbeta;
    }
  }

  void emit_onnx(GraphWriter&) const override {}  // training only

 private:
  // Forward and backward of `rows` history rows, `row` and on; their states before are in s.state.
  // A row without a valid negative has no loss, so its gradients are zero.
  void run_tile(const OpContext& context, const Packed& packed, const Saved& saved,
                const Scratch& s, std::int32_t row, std::int32_t rows) const {
    const Kernels& k = kernels();
    const std::int32_t h = at_.h, e = at_.e, a = at_.a, b = at_.b, both = 2 * rows;
    const float* bias3 = at_.bias3.in(context.params);
    const Matrix clicks = context.value(at_.history), non_clicks = context.value(at_.negatives);
    const float* valid = context.input->negative_valid.data() + row;
    k.gemm(s.state, h, packed.state, packed.bias1, s.shared, a, rows, h, a, false);
    k.gemm_from(clicks.row(row), clicks.stride, packed.behaviour, s.shared, a, 1, s.y1, a, rows, e,
                a);
    k.gemm_from(non_clicks.row(row), non_clicks.stride, packed.behaviour, s.shared, a, 1,
                s.y1 + floats(rows, a), a, rows, e, a);
    k.sigmoid(s.y1, s.y1, floats(both, a));
    k.gemm(s.y1, a, packed.second, at_.bias2.in(context.params), s.y2, b, both, a, b, false);
    k.sigmoid(s.y2, s.y2, floats(both, b));
    k.row_dot(s.y2, b, packed.third, bias3[0] - bias3[1], s.logit, both, b);
    const float scale = scale_of(*context.layout);
    *context.loss += scale * loss_of(s, valid, rows, scale);
    *saved.third_bias += sum(s.dlogit, both);

    k.row_dot_sigmoid_backward(s.dlogit, packed.third, s.y2, b, saved.third, both, b);
    k.gemm_tn(s.y2, b, s.y1, a, saved.weights2, a, both, b, a);
    k.column_sum(s.y2, b, both, b, saved.bias2);
    k.gemm(s.y2, b, packed.second_back, nullptr, s.dz1, a, both, b, a, false);
    k.sigmoid_backward(s.y1, s.dz1, floats(both, a));
    k.gemm_tn(clicks.row(row), clicks.stride, s.dz1, a, saved.weights + floats(h, a), a, rows, e,
              a);
    k.gemm_tn(non_clicks.row(row), non_clicks.stride, s.dz1 + floats(rows, a), a,
              saved.weights + floats(h, a), a, rows, e, a);
    add_back(s.dz1, packed, context.grad(at_.history), row, rows);
    add_back(s.dz1 + floats(rows, a), packed, context.grad(at_.negatives), row, rows);
    k.axpy(1.0f, s.dz1 + floats(rows, a), s.dz1, floats(rows, a));  // both share the state
    k.gemm_tn(s.state, h, s.dz1, a, saved.weights, a, rows, h, a);
    k.column_sum(s.dz1, a, rows, a, saved.bias1);
    k.gemm(s.dz1, a, packed.state_back, nullptr, s.dstate, h, rows, a, h, false);
  }

  // From dz1 to the gradients of behaviours, rows [row, row + rows) of `to`.
  void add_back(const float* dz1, const Packed& packed, const Matrix& to, std::int32_t row,
                std::int32_t rows) const {
    if (to.data == nullptr) return;
    kernels().gemm(dz1, at_.a, packed.behaviour_back, nullptr, to.row(row), to.stride, rows, at_.a,
                   at_.e, true);
  }

  float scale_of(const Layout& layout) const {
    const double steps = at_.options.real_rows ? layout.batch_negatives
                                               : static_cast<double>(layout.batch_groups) *
                                                     (layout.batch_longest - 1);
    CHECK_GT(steps, 0) << name_ << ": the layout lacks the size of its batch";
    return static_cast<float>(at_.options.weight / steps);
  }

  // The tile's sum of the losses; dlogit becomes scale times its gradient.
  static double loss_of(const Scratch& s, const float* valid, std::int32_t rows, float scale) {
    // softplus(x) = max(x, 0) + log(1 + exp(-|x|)): one logarithm of a product that cannot
    // overflow, for each factor is at most 2.
    double linear = 0, product = 1;
    for (std::int32_t i = 0; i < 2 * rows; ++i) s.dlogit[i] = -std::abs(s.logit[i]);
    static_assert(2 * kTileRows < 1000);
    kernels().exp(s.dlogit, s.dlogit, static_cast<std::size_t>(2 * rows));
    for (std::int32_t i = 0; i < 2 * rows; ++i) {
      const bool is_click = i < rows;
      if (valid[is_click ? i : i - rows] == 0) continue;
      linear += std::max(is_click ? -s.logit[i] : s.logit[i], 0.0f);
      product *= 1.0 + s.dlogit[i];
    }
    kernels().sigmoid(s.logit, s.dlogit, static_cast<std::size_t>(2 * rows));
    for (std::int32_t i = 0; i < 2 * rows; ++i) {
      const bool is_click = i < rows;
      const bool counts = valid[is_click ? i : i - rows] != 0;
      s.dlogit[i] = counts ? scale * (is_click ? s.dlogit[i] - 1 : s.dlogit[i]) : 0;
    }
    return linear + std::log(product);
  }

  static float sum(const float* x, std::int32_t n) {
    float total = 0;
    for (std::int32_t i = 0; i < n; ++i) total += x[i];
    return total;
  }

  std::string name_;
  Parts at_;
};

}  // namespace

void auxiliary_loss(Graph& graph, std::string name, TensorId states, TensorId history,
                    TensorId negatives, AuxiliaryLossOptions options) {
  for (const TensorId id : {states, history, negatives}) {
    CHECK(graph.spec(id).rows == Rows::kHistory) << name;
  }
  CHECK_EQ(graph.spec(history).width, graph.spec(negatives).width) << name;
  Parts parts;
  parts.states = states;
  parts.history = history;
  parts.negatives = negatives;
  parts.h = graph.spec(states).width;
  parts.e = graph.spec(history).width;
  parts.a = options.hidden1;
  parts.b = options.hidden2;
  parts.options = options;
  const std::int32_t width = parts.h + parts.e;
  parts.gamma.id = graph.param(name + "/scale/gamma", 1, width, {Init::kConstant, 1.0f});
  parts.beta.id = graph.param(name + "/scale/beta", 1, width, {Init::kConstant, 0.0f});
  const auto layer = [&](const char* number, std::int32_t in, std::int32_t out, OpParam& kernel,
                         OpParam& bias) {
    const std::string prefix = name + "/dense" + number;
    kernel.id = graph.param(prefix + "/kernel", in, out, {Init::kGlorotUniform});
    bias.id = graph.param(prefix + "/bias", 1, out, {Init::kConstant, 0.0f});
  };
  layer("1", width, parts.a, parts.kernel1, parts.bias1);
  layer("2", parts.a, parts.b, parts.kernel2, parts.bias2);
  layer("3", parts.b, 2, parts.kernel3, parts.bias3);
  graph.set_needs_negatives();
  graph.add(std::make_unique<AuxiliaryLoss>(std::move(name), parts));
}

}  // namespace meander::nn
