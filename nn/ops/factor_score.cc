// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/factor_score.h"

#include <algorithm>
#include <array>
#include <memory>
#include <numeric>
#include <utility>

#include "common/check.h"
#include "nn/graph_writer.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

class FactorScore final : public Op {
 public:
  FactorScore(std::string name, Scope scope, TensorId a, TensorId b, TensorId out,
              std::int32_t factors, ParamId bias, float l2)
      : name_(std::move(name)), scope_(scope), a_(a), b_(b), out_(out), factors_(factors), l2_(l2) {
    bias_.id = bias;
  }

  std::string name() const override { return name_; }
  Scope scope() const override { return scope_; }
  std::vector<TensorId> inputs() const override { return {a_, b_}; }
  std::vector<TensorId> outputs() const override { return {out_}; }
  void place_params(const std::vector<ParamSpec>& params) override { bias_.place(params); }

  void forward(const OpContext& context) const override {
    const Matrix a = context.value(a_), b = context.value(b_), out = context.value(out_);
    const float bias = *bias_.in(context.params);
    for (std::int32_t r = 0; r < out.rows; ++r) {
      *out.row(r) = bias + a.row(r)[factors_] + b.row(r)[factors_];
    }
    kernels().pool_backward(out.data, a.data, a.stride, b.data, b.stride, out.data, nullptr, 0,
                            out.rows, 1, factors_);
    if (!context.training || l2_ == 0) return;
    *context.loss += share(context) * (squares(a) + squares(b)) / 2;
  }

  void backward(const OpContext& context) const override {
    const Matrix a = context.value(a_), b = context.value(b_), dout = context.grad(out_);
    add(dout, b, context.grad(a_));
    add(dout, a, context.grad(b_));
    if (l2_ > 0) {
      shrink(context, a, context.grad(a_));
      shrink(context, b, context.grad(b_));
    }
    float sum = 0;
    for (std::int32_t r = 0; r < dout.rows; ++r) sum += *dout.row(r);
    *bias_.in(context.dparams) += sum;
  }

  void emit_onnx(GraphWriter& writer) const override {
    const auto columns = [&](TensorId id, std::int64_t from, std::int64_t to) {
      return writer.node("Slice", {writer.tensor(id), writer.constant_int({1}, {from}),
                                   writer.constant_int({1}, {to}), writer.constant_int({1}, {-1})});
    };
    const std::string products =
        writer.node("Mul", {columns(a_, 0, factors_), columns(b_, 0, factors_)});
    const std::string dot = writer.node("ReduceSum", {products, writer.constant_int({1}, {-1})},
                                        {{"keepdims", std::int64_t{1}}});
    const std::string biases = writer.node(
        "Add", {columns(a_, factors_, factors_ + 1), columns(b_, factors_, factors_ + 1)});
    const std::string all = writer.node("Add", {biases, writer.param(bias_.id)});
    writer.bind(out_, writer.node("Add", {dot, all}));
  }

 private:
  // dx += dout . other, and the bias its own.
  void add(const Matrix& dout, const Matrix& other, const Matrix& dx) const {
    if (dx.data == nullptr) return;
    kernels().pool_add(dout.data, other.data, other.stride, dx.data, dx.stride, dx.rows, 1,
                       factors_);
    for (std::int32_t r = 0; r < dx.rows; ++r) dx.row(r)[factors_] += *dout.row(r);
  }

  // Of a row's squared norm in the loss.
  float share(const OpContext& context) const {
    const Layout& layout = *context.layout;
    return l2_ / static_cast<float>(layout.batch_groups * layout.candidates);
  }
  // Sums side by side: one after another, each would wait for the one before.
  static double squares(const Matrix& x) {
    double sum = 0;
    for (std::int32_t r = 0; r < x.rows; ++r) {
      std::array<float, 16> sums = {};
      for (std::int32_t c = 0; c < x.cols; ++c) sums[c % 16] += x.row(r)[c] * x.row(r)[c];
      sum += std::accumulate(sums.begin(), sums.end(), 0.0);
    }
    return sum;
  }
  void shrink(const OpContext& context, const Matrix& x, const Matrix& dx) const {
    if (dx.data == nullptr) return;
    for (std::int32_t r = 0; r < dx.rows; ++r) {
      kernels().axpy(share(context), x.row(r), dx.row(r), factors_ + 1);
    }
  }

  std::string name_;
  Scope scope_;
  TensorId a_, b_, out_;
  std::int32_t factors_;
  float l2_;
  OpParam bias_;
};

}  // namespace

TensorId factor_score(Graph& graph, std::string name, TensorId a, TensorId b, float l2) {
  const TensorSpec left = graph.spec(a), right = graph.spec(b);
  CHECK(left.rows == right.rows) << name;
  CHECK_EQ(left.width, right.width) << name;
  CHECK_GE(left.width, 2) << name;
  const TensorId out = graph.tensor(left.rows, 1);
  const ParamId bias = graph.param(name + "/bias", 1, 1, {Init::kConstant, 0.0f});
  graph.add(std::make_unique<FactorScore>(std::move(name), graph.scope(), a, b, out, left.width - 1,
                                          bias, l2));
  return out;
}

}  // namespace meander::nn
