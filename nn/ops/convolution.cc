// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/convolution.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "common/check.h"
#include "nn/ops/carve.h"
#include "nn/ops/onnx_forms.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

std::size_t floats(std::int32_t rows, std::int32_t cols) {
  return static_cast<std::size_t>(rows) * cols;
}

// The filters of one height. Their share of a window's i-th behaviour is columns
// [column + i * filters, ...) of the product of all behaviours with all kernels.
struct Height {
  std::int32_t height, column;
  OpParam kernel, bias;
};

class Horizontal final : public Op {
 public:
  Horizontal(std::string name, TensorId x, TensorId out, std::int32_t width, std::int32_t filters,
             std::vector<Height> heights)
      : name_(std::move(name)),
        x_(x),
        out_(out),
        width_(width),
        filters_(filters),
        heights_(std::move(heights)) {
    for (const Height& height : heights_) columns_ += height.height * filters_;
  }

  std::string name() const override { return name_; }
  std::vector<TensorId> inputs() const override { return {x_}; }
  std::vector<TensorId> outputs() const override { return {out_}; }
  void place_params(const std::vector<ParamSpec>& params) override {
    for (Height& height : heights_) {
      height.kernel.place(params);
      height.bias.place(params);
    }
  }

  // All kernels beside each other (w, columns), then packed, then their transpose.
  std::size_t packed_floats() const override {
    Carve carve(nullptr);
    carve_packed(carve);
    return carve.floats();
  }
  void pack(const float* params, float* memory) const override {
    Carve carve(memory);
    const Packed packed = carve_packed(carve);
    for_kernel_rows([&](OpParam kernel, std::size_t row, std::size_t beside) {
      std::copy_n(kernel.in(params) + row, filters_, packed.all + beside);
    });
    kernels().pack(packed.all, columns_, width_, columns_, false, packed.forward);
    kernels().pack(packed.all, columns_, columns_, width_, true, packed.back);
  }
  // Of each output the step at which its window ends.
  std::size_t saved_floats(const Layout& layout) const override {
    return floats(layout.groups, outputs_of_group());
  }
  std::size_t scratch_floats(const Layout& layout) const override {
    return floats(layout.history_rows + width_, columns_) + filters_;
  }

  void forward(const OpContext& context) const override {
    const Layout& layout = *context.layout;
    const Matrix x = context.value(x_), out = context.value(out_);
    Carve carve(const_cast<float*>(context.packed));  // read only
    float* shares = context.scratch;                  // (N, columns)
    float* sum = shares + floats(layout.history_rows + width_, columns_);
    kernels().gemm(x.data, x.stride, carve_packed(carve).forward, nullptr, shares, columns_, x.rows,
                   width_, columns_, false);
    std::fill_n(out.data, floats(out.rows, out.cols), 0.0f);
    for_windows(layout, [&](std::size_t which, std::int32_t g, std::int32_t end) {
      const Height& height = heights_[which];
      std::copy_n(height.bias.in(context.params), filters_, sum);
      for_steps(layout, height, g, end, [&](std::int32_t row, std::int32_t column) {
        const float* __restrict share = shares + floats(row, columns_) + column;
        for (std::int32_t f = 0; f < filters_; ++f) sum[f] += share[f];
      });
      const std::size_t first = which * filters_;
      float* __restrict best = out.row(g) + first;
      auto* __restrict at = ends(context) + floats(g, outputs_of_group()) + first;
      for (std::int32_t f = 0; f < filters_; ++f) {
        at[f] = sum[f] > best[f] ? end : at[f];
        best[f] = std::max(best[f], sum[f]);
      }
    });
  }

  void backward(const OpContext& context) const override {
    const Layout& layout = *context.layout;
    const Matrix x = context.value(x_), dx = context.grad(x_);
    const Matrix out = context.value(out_), dout = context.grad(out_);
    Carve carve(const_cast<float*>(context.packed));  // read only
    float* dshares = context.scratch;
    float* dkernels = dshares + floats(layout.history_rows, columns_);
    std::fill_n(dshares, floats(layout.history_rows + width_, columns_), 0.0f);
    for (std::size_t which = 0; which < heights_.size(); ++which) {
      float* dbias = heights_[which].bias.in(context.dparams);
      for (std::int32_t g = 0; g < layout.groups; ++g) {
        const std::size_t first = which * filters_;
        const std::int32_t* at = ends(context) + floats(g, outputs_of_group()) + first;
        for (std::int32_t f = 0; f < filters_; ++f) {
          if (!(out.row(g)[first + f] > 0)) continue;
          const float d = dout.row(g)[first + f];
          dbias[f] += d;
          for_steps(layout, heights_[which], g, at[f], [&](std::int32_t row, std::int32_t column) {
            dshares[floats(row, columns_) + column + f] += d;
          });
        }
      }
    }
    kernels().gemm_tn(x.data, x.stride, dshares, columns_, dkernels, columns_, x.rows, width_,
                      columns_);
    for_kernel_rows([&](OpParam kernel, std::size_t row, std::size_t beside) {
      kernels().axpy(1.0f, dkernels + beside, kernel.in(context.dparams) + row,
                     static_cast<std::size_t>(filters_));
    });
    if (dx.data == nullptr) return;
    kernels().gemm(dshares, columns_, carve_packed(carve).back, nullptr, dx.data, dx.stride,
                   dx.rows, columns_, width_, true);
  }

  void emit_onnx(GraphWriter& writer) const override;

 private:
  struct Packed {
    float *all, *forward, *back;
  };
  Packed carve_packed(Carve& carve) const {
    Packed packed;
    packed.all = carve.take(width_, columns_);
    packed.forward = carve.take(kernels().packed_floats(width_, columns_));
    packed.back = carve.take(kernels().packed_floats(columns_, width_));
    return packed;
  }
  std::int32_t outputs_of_group() const {
    return static_cast<std::int32_t>(heights_.size()) * filters_;
  }
  static std::int32_t* ends(const OpContext& context) {
    return reinterpret_cast<std::int32_t*>(context.saved);
  }

  // body(kernel, place in it, place in all kernels beside each other) of each run of `filters_`.
  template <class Body>
  void for_kernel_rows(Body body) const {
    for (const Height& height : heights_) {
      for (std::int32_t i = 0; i < height.height; ++i) {
        for (std::int32_t c = 0; c < width_; ++c) {
          body(height.kernel, floats(i * width_ + c, filters_),
               floats(c, columns_) + height.column + i * filters_);
        }
      }
    }
  }
  // body(which height, group, step of the last behaviour) for all windows.
  template <class Body>
  void for_windows(const Layout& layout, Body body) const {
    for (std::size_t which = 0; which < heights_.size(); ++which) {
      for (std::int32_t g = 0; g < layout.groups; ++g) {
        const std::int32_t last = layout.lengths[g] - 1;
        for (std::int32_t end = std::min(heights_[which].height - 1, last); end <= last; ++end) {
          body(which, g, end);
        }
      }
    }
  }
  // body(row, first column of its share) for the behaviours of the window that ends at `end`.
  template <class Body>
  void for_steps(const Layout& layout, const Height& height, std::int32_t g, std::int32_t end,
                 Body body) const {
    const std::int32_t begin = end - height.height + 1;
    for (std::int32_t t = std::max(begin, 0); t <= end; ++t) {
      body(layout.step_offset[t] + g, height.column + (t - begin) * filters_);
    }
  }

  std::string name_;
  TensorId x_, out_;
  std::int32_t width_, filters_, columns_ = 0;
  std::vector<Height> heights_;
};

// A padded convolution along time, of which windows that do not count become 0 before the maximum.
void Horizontal::emit_onnx(GraphWriter& writer) const {
  using Ints = std::vector<std::int64_t>;
  const std::string history = writer.tensor(x_);
  const std::string mask = onnx_history_mask(writer, history);  // (T, G, 1)
  const std::string real = writer.node("Where", {mask, history, writer.constant({}, {0.0f})});
  const std::string x = writer.node("Transpose", {real}, {{"perm", Ints{1, 2, 0}}});  // (G, w, T)
  const std::string is_real = writer.node("Transpose", {mask}, {{"perm", Ints{1, 2, 0}}});
  const std::string is_last =
      writer.node("Transpose", {onnx_last_mask(writer, history)}, {{"perm", Ints{1, 2, 0}}});
  std::vector<std::string> all;
  for (const Height& height : heights_) {
    const std::int64_t h = height.height, w = width_, f = filters_;
    const std::string kernel = writer.node(
        "Reshape", {writer.param(height.kernel.id), writer.constant_int({3}, {h, w, f})});
    const std::string turned = writer.node("Transpose", {kernel}, {{"perm", Ints{2, 1, 0}}});
    const std::string bias =
        writer.node("Reshape", {writer.param(height.bias.id), writer.constant_int({1}, {f})});
    const std::string y = writer.node(
        "Relu", {writer.node("Conv", {x, turned, bias}, {{"pads", Ints{h - 1, 0}}})});  // (G, f, T)
    const std::string is_whole = writer.node(
        "GreaterOrEqual", {onnx_steps(writer, history), writer.constant_int({}, {h - 1})});  // (T)
    const std::string counts =
        writer.node("And", {is_real, writer.node("Or", {is_whole, is_last})});
    all.push_back(writer.node("ReduceMax",
                              {writer.node("Where", {counts, y, writer.constant({}, {0.0f})})},
                              {{"axes", Ints{2}}, {"keepdims", std::int64_t{0}}}));
  }
  writer.bind(out_,
              all.size() == 1 ? all[0] : writer.node("Concat", all, {{"axis", std::int64_t{1}}}));
}

class Vertical final : public Op {
 public:
  Vertical(std::string name, TensorId x, TensorId out, std::int32_t width, std::int32_t length,
           std::int32_t filters, ParamId kernel)
      : name_(std::move(name)),
        x_(x),
        out_(out),
        width_(width),
        length_(length),
        filters_(filters) {
    kernel_.id = kernel;
  }

  std::string name() const override { return name_; }
  std::vector<TensorId> inputs() const override { return {x_}; }
  std::vector<TensorId> outputs() const override { return {out_}; }
  void place_params(const std::vector<ParamSpec>& params) override { kernel_.place(params); }

  void forward(const OpContext& context) const override {
    const Matrix x = context.value(x_), out = context.value(out_);
    std::fill_n(out.data, floats(out.rows, out.cols), 0.0f);
    const float* kernel = kernel_.in(context.params);
    for_products(*context.layout, [&](std::int32_t row, std::int32_t g, std::int32_t v,
                                      std::int32_t weight) {
      kernels().axpy(kernel[weight], x.row(row), out.row(g) + floats(v, width_), wide());
    });
  }

  void backward(const OpContext& context) const override {
    const Matrix x = context.value(x_), dx = context.grad(x_), dout = context.grad(out_);
    const float* kernel = kernel_.in(context.params);
    float* dkernel = kernel_.in(context.dparams);
    for_products(*context.layout,
                 [&](std::int32_t row, std::int32_t g, std::int32_t v, std::int32_t weight) {
                   const float* d = dout.row(g) + floats(v, width_);
                   float dot = 0;
                   kernels().row_dot(d, width_, x.row(row), 0.0f, &dot, 1, width_);
                   dkernel[weight] += dot;
                   if (dx.data != nullptr) kernels().axpy(kernel[weight], d, dx.row(row), wide());
                 });
  }

  // By a matrix (G, filters, T) of each step's weights, the kernel read backwards from the end.
  void emit_onnx(GraphWriter& writer) const override {
    using Ints = std::vector<std::int64_t>;
    const std::string history = writer.tensor(x_);
    const std::string real = writer.node(
        "Where", {onnx_history_mask(writer, history), history, writer.constant({}, {0.0f})});
    const std::string x = writer.node("Transpose", {real}, {{"perm", Ints{1, 0, 2}}});  // (G, T, w)
    const std::string lengths = writer.node(
        "Unsqueeze", {writer.node("Cast", {writer.lengths()}, {{"to", std::int64_t{7}}}),
                      writer.constant_int({1}, {1})});
    const std::string age = writer.node(  // (G, T) behaviours that came after; -1 and less: padding
        "Sub",
        {writer.node("Sub", {lengths, writer.constant_int({}, {1})}), onnx_steps(writer, history)});
    const std::string is_old =
        writer.node("Or", {writer.node("Less", {age, writer.constant_int({}, {0})}),
                           writer.node("Greater", {age, writer.constant_int({}, {length_ - 1})})});
    const std::string place =
        writer.node("Where", {is_old, writer.constant_int({}, {length_}), age});
    const std::string zero =
        writer.constant({filters_, 1}, std::vector<float>(static_cast<std::size_t>(filters_)));
    const std::string kernel =
        writer.node("Concat", {writer.param(kernel_.id), zero}, {{"axis", std::int64_t{1}}});
    const std::string weights = writer.node(
        "Transpose", {writer.node("Gather", {kernel, place}, {{"axis", std::int64_t{1}}})},
        {{"perm", Ints{1, 0, 2}}});
    writer.bind(out_, writer.node("Reshape", {writer.node("MatMul", {weights, x}),
                                              writer.constant_int({2}, {-1, filters_ * width_})}));
  }

 private:
  std::size_t wide() const { return static_cast<std::size_t>(width_); }
  // body(history row, group, filter, its weight) for all products.
  template <class Body>
  void for_products(const Layout& layout, Body body) const {
    for (std::int32_t g = 0; g < layout.groups; ++g) {
      const std::int32_t n = layout.lengths[g];
      for (std::int32_t age = 0; age < std::min(n, length_); ++age) {
        const std::int32_t row = layout.step_offset[n - 1 - age] + g;
        for (std::int32_t v = 0; v < filters_; ++v) body(row, g, v, v * length_ + age);
      }
    }
  }

  std::string name_;
  TensorId x_, out_;
  std::int32_t width_, length_, filters_;
  OpParam kernel_;
};

}  // namespace

TensorId horizontal_convolution(Graph& graph, std::string name, TensorId x,
                                std::vector<std::int32_t> heights, std::int32_t filters) {
  const TensorSpec in = graph.spec(x);
  CHECK(in.rows == Rows::kHistory && !heights.empty()) << name;
  CHECK_GT(filters, 0) << name;
  std::vector<Height> all;
  std::int32_t column = 0;
  for (const std::int32_t height : heights) {
    CHECK_GT(height, 0) << name;
    const std::string prefix = name + "/height" + std::to_string(height);
    Height& it = all.emplace_back(Height{height, column, {}, {}});
    it.kernel.id =
        graph.param(prefix + "/kernel", height * in.width, filters, {Init::kGlorotUniform});
    it.bias.id = graph.param(prefix + "/bias", 1, filters, {Init::kConstant, 0.0f});
    column += height * filters;
  }
  const TensorId out =
      graph.tensor(Rows::kGroup, static_cast<std::int32_t>(heights.size()) * filters);
  graph.add(
      std::make_unique<Horizontal>(std::move(name), x, out, in.width, filters, std::move(all)));
  return out;
}

TensorId vertical_convolution(Graph& graph, std::string name, TensorId x, std::int32_t length,
                              std::int32_t filters) {
  const TensorSpec in = graph.spec(x);
  CHECK(in.rows == Rows::kHistory) << name;
  CHECK(length > 0 && filters > 0) << name;
  const ParamId kernel = graph.param(name + "/kernel", filters, length, {Init::kGlorotUniform});
  const TensorId out = graph.tensor(Rows::kGroup, filters * in.width);
  graph.add(std::make_unique<Vertical>(std::move(name), x, out, in.width, length, filters, kernel));
  return out;
}

}  // namespace meander::nn
