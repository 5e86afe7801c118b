// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/factor_score.h"

#include <memory>
#include <utility>

#include "common/check.h"
#include "nn/graph_writer.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

class FactorScore final : public Op {
 public:
  FactorScore(std::string name, std::int32_t a, std::int32_t b, const Graph& graph, TensorId out,
              ParamId bias, float l2)
      : name_(std::move(name)),
        a_{a, graph.slots()[a].table},
        b_{b, graph.slots()[b].table},
        out_(out),
        factors_(graph.slots()[a].width - 1),
        l2_(l2) {
    bias_.id = bias;
  }

  std::string name() const override { return name_; }
  std::vector<TensorId> inputs() const override { return {}; }
  std::vector<TensorId> outputs() const override { return {out_}; }
  void place_params(const std::vector<ParamSpec>& params) override { bias_.place(params); }

  void forward(const OpContext& context) const override {
    const Matrix out = context.value(out_);
    const float bias = *bias_.in(context.params);
    const bool has_l2 = context.training && l2_ > 0;
    double squared = 0;
    each(context, [&](std::int32_t r, std::uint32_t of_a, std::uint32_t of_b) {
      const float* a = context.tables[a_.table].row(of_a);
      const float* b = context.tables[b_.table].row(of_b);
      *out.row(r) = dot(a, b, factors_, bias + a[factors_] + b[factors_]);
      if (has_l2) squared += dot(a, a, factors_ + 1, 0) + dot(b, b, factors_ + 1, 0);
    });
    if (has_l2) *context.loss += share(context) * squared / 2;
  }

  void backward(const OpContext& context) const override {
    const Matrix dout = context.grad(out_);
    const float l2 = l2_ > 0 ? share(context) : 0;
    float sum = 0;
    each(context, [&](std::int32_t r, std::uint32_t of_a, std::uint32_t of_b) {
      const float* a = context.tables[a_.table].row(of_a);
      const float* b = context.tables[b_.table].row(of_b);
      add(*dout.row(r), b, l2, a, context.dtables[a_.table].row(of_a));
      add(*dout.row(r), a, l2, b, context.dtables[b_.table].row(of_b));
      sum += *dout.row(r);
    });
    *bias_.in(context.dparams) += sum;
  }

  void emit_onnx(GraphWriter& writer) const override {
    const std::string a = writer.embedding(Source::kTarget, a_.slot);
    const std::string b = writer.embedding(Source::kTarget, b_.slot);
    const auto columns = [&](const std::string& rows, std::int64_t from, std::int64_t to) {
      return writer.node("Slice", {rows, writer.constant_int({1}, {from}),
                                   writer.constant_int({1}, {to}), writer.constant_int({1}, {-1})});
    };
    const std::string products =
        writer.node("Mul", {columns(a, 0, factors_), columns(b, 0, factors_)});
    const std::string dot = writer.node("ReduceSum", {products, writer.constant_int({1}, {-1})},
                                        {{"keepdims", std::int64_t{1}}});
    const std::string biases = writer.node(
        "Add", {columns(a, factors_, factors_ + 1), columns(b, factors_, factors_ + 1)});
    const std::string all = writer.node("Add", {biases, writer.param(bias_.id)});
    writer.bind(out_, writer.node("Add", {dot, all}));
  }

 private:
  struct Side {
    std::int32_t slot, table;
  };

  // body(sample, row of a, row of b).
  template <class Body>
  void each(const OpContext& context, const Body& body) const {
    const auto& columns = context.input->columns[static_cast<int>(Source::kTarget)];
    const std::int32_t rows = context.value(out_).rows;
    for (const Side& side : {a_, b_}) {
      CHECK_LT(static_cast<std::size_t>(side.slot), columns.size()) << name_;
      CHECK_EQ(columns[side.slot].size(), static_cast<std::size_t>(rows)) << name_;
    }
    for (std::int32_t r = 0; r < rows; ++r) body(r, columns[a_.slot][r], columns[b_.slot][r]);
  }

  // dx += dout . other + l2 x, and the bias its own.
  void add(float dout, const float* other, float l2, const float* x, float* dx) const {
    kernels().axpy(dout, other, dx, factors_);
    dx[factors_] += dout;
    if (l2 > 0) kernels().axpy(l2, x, dx, factors_ + 1);
  }

  // Of a row's squared norm in the loss.
  float share(const OpContext& context) const {
    const Layout& layout = *context.layout;
    return l2_ / static_cast<float>(layout.batch_groups * layout.candidates);
  }
  static float dot(const float* a, const float* b, std::int32_t n, float start) {
    float out = 0;
    kernels().row_dot(a, n, b, start, &out, 1, n);
    return out;
  }

  std::string name_;
  Side a_, b_;
  TensorId out_;
  std::int32_t factors_;
  float l2_;
  OpParam bias_;
};

}  // namespace

TensorId factor_score(Graph& graph, std::string name, std::int32_t a, std::int32_t b, float l2) {
  const SlotSpec &left = graph.slots().at(a), &right = graph.slots().at(b);
  CHECK(!left.frozen && !right.frozen) << name;
  CHECK_EQ(left.width, right.width) << name;
  CHECK_GE(left.width, 2) << name;
  const TensorId out = graph.tensor(Rows::kSample, 1);
  const ParamId bias = graph.param(name + "/bias", 1, 1, {Init::kConstant, 0.0f});
  auto op = std::make_unique<FactorScore>(std::move(name), a, b, graph, out, bias, l2);
  graph.add(std::move(op));
  return out;
}

}  // namespace meander::nn
