// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/gcn.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/rng.h"
#include "nn/ops/carve.h"
#include "nn/ops/nodes.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

constexpr std::int32_t kRuns = 32;  // of a matrix's rows: tasks

// Kept from forward to backward. N nodes, F features, H hidden, C classes.
struct Saved {
  float* kept;          // (entries of X) with what dropout left
  float* hidden;        // (N, H) after relu and dropout: 0 where either made it so
  std::uint32_t* node;  // (G)
};

struct Scratch {
  std::uint32_t* node_of_row;  // (N)
  float* packed;
  float* first;   // (N, H)
  float* second;  // (N, H)
  float* out;     // (N, C)
};

class GcnOp final : public Op {
 public:
  GcnOp(std::string name, std::shared_ptr<const SparseMatrix> a,
        std::shared_ptr<const SparseMatrix> x, std::int32_t table, std::int32_t slot,
        GcnOptions options, OpParam w0, OpParam w1, TensorId out)
      : name_(std::move(name)),
        a_(std::move(a)),
        x_(std::move(x)),
        xt_(transposed(*x_, &entry_)),
        a_runs_(balanced_rows(*a_, kRuns)),
        x_runs_(balanced_rows(*x_, kRuns)),
        xt_runs_(balanced_rows(xt_, kRuns)),
        table_(table),
        slot_(slot),
        options_(options),
        w0_(w0),
        w1_(w1),
        out_(out) {}

  std::string name() const override { return name_; }
  Scope scope() const override { return Scope::kBatch; }
  std::vector<TensorId> inputs() const override { return {}; }
  std::vector<TensorId> outputs() const override { return {out_}; }
  void place_params(const std::vector<ParamSpec>& params) override {
    w0_.place(params);
    w1_.place(params);
  }
  std::size_t saved_floats(const Layout& layout) const override {
    Carve carve(nullptr);
    carve_saved(layout, carve);
    return carve.floats();
  }
  std::size_t scratch_floats(const Layout&) const override {
    Carve carve(nullptr);
    carve_scratch(carve);
    return carve.floats();
  }

  void forward(const OpContext& context) const override {
    Carve carve(context.saved), carve_of_scratch(context.scratch);
    const Saved saved = carve_saved(*context.layout, carve);
    const Scratch scratch = carve_scratch(carve_of_scratch);
    find_nodes(context, saved, scratch);
    drop_features(context, saved);
    const float* const w0 = w0_.in(context.params);
    multiply(context, kept(saved), x_runs_, w0, hidden(), scratch.first);
    multiply(context, a_->view(), a_runs_, scratch.first, hidden(), saved.hidden);
    relu_and_drop(context, saved);
    // H W_1 is narrower than H: it goes through the graph after the product.
    const Kernels& k = products();
    k.pack(w1_.in(context.params), classes(), hidden(), classes(), false, scratch.packed);
    k.gemm(saved.hidden, hidden(), scratch.packed, nullptr, scratch.out, classes(), nodes(),
           hidden(), classes(), false);
    const Matrix out = context.value(out_);
    k.spmm(a_->view(), saved.node, 0, out.rows, scratch.out, classes(), out.data, out.stride,
           nullptr, classes(), false);
    if (context.training && options_.decay > 0) *context.loss += decay_loss(w0);
  }

  void backward(const OpContext& context) const override {
    Carve carve(context.saved), carve_of_scratch(context.scratch);
    const Saved saved = carve_saved(*context.layout, carve);
    const Scratch scratch = carve_scratch(carve_of_scratch);
    const Kernels& k = products();
    back_through_graph(context, saved, scratch);
    k.gemm_tn(saved.hidden, hidden(), scratch.out, classes(), w1_.in(context.dparams), classes(),
              nodes(), hidden(), classes());
    k.pack(w1_.in(context.params), classes(), classes(), hidden(), true, scratch.packed);
    k.gemm(scratch.out, classes(), scratch.packed, nullptr, scratch.first, hidden(), nodes(),
           classes(), hidden(), false);
    const float scale = context.training ? 1 / (1 - options_.dropout) : 1;
    for (std::size_t i = 0; i < hidden_floats(); ++i) {
      scratch.first[i] = saved.hidden[i] > 0 ? scratch.first[i] * scale : 0;
    }
    multiply(context, a_->view(), a_runs_, scratch.first, hidden(), scratch.second);
    back_to_features(context, saved, scratch);
  }

  void emit_onnx(GraphWriter&) const override {
    LOG(FATAL) << name_ << ": a graph of all nodes has no ONNX form";
  }

 private:
  // Of float32 in any step: they are small beside the gathers.
  static const Kernels& products() { return kernels(Precision::kF32); }
  std::int32_t nodes() const { return a_->rows; }
  std::int32_t hidden() const { return options_.hidden; }
  std::int32_t classes() const { return options_.classes; }
  std::size_t hidden_floats() const { return static_cast<std::size_t>(nodes()) * hidden(); }

  Saved carve_saved(const Layout& layout, Carve& carve) const {
    Saved saved;
    saved.kept = carve.take(x_->entries());
    saved.hidden = carve.take(nodes(), hidden());
    saved.node = reinterpret_cast<std::uint32_t*>(carve.take(layout.groups));
    return saved;
  }
  Scratch carve_scratch(Carve& carve) const {
    Scratch scratch;
    scratch.node_of_row = reinterpret_cast<std::uint32_t*>(carve.take(nodes()));
    scratch.packed = carve.take(std::max(products().packed_floats(hidden(), classes()),
                                         products().packed_floats(classes(), hidden())));
    // In backward the transposed X with what dropout left of it is where `first` was.
    scratch.first = carve.take(std::max(hidden_floats(), x_->entries()));
    scratch.second = carve.take(nodes(), hidden());
    scratch.out = carve.take(nodes(), classes());
    return scratch;
  }

  void find_nodes(const OpContext& context, const Saved& saved, const Scratch& scratch) const {
    const Nodes all(context, table_, nodes());
    for (std::int32_t n = 0; n < nodes(); ++n) scratch.node_of_row[all.row[n]] = n;
    const std::int32_t k = context.layout->candidates;
    for_target_keys(context, slot_, [&](std::int32_t sample, std::uint32_t key) {
      if (sample % k == 0) saved.node[sample / k] = scratch.node_of_row[key];
    });
  }

  SparseRows kept(const Saved& saved) const {
    SparseRows x = x_->view();
    x.value = saved.kept;
    return x;
  }

  // y = a . x in runs of rows.
  static void multiply(const OpContext& context, const SparseRows& a,
                       const std::vector<std::int32_t>& runs, const float* x, std::int32_t width,
                       float* y, bool accumulate = false) {
    context.executor->parallel(runs.size() - 1, [&](std::size_t run) {
      kernels().spmm(a, nullptr, runs[run], runs[run + 1] - runs[run], x, width, y, width, nullptr,
                     width, accumulate);
    });
  }

  // Whether value i of `what` (0: entries of X, 1: the hidden layer) stays.
  bool stays(const OpContext& context, std::uint64_t what, std::size_t i) const {
    return unit_float(hash64(context.seed, what, i)) >= options_.dropout;
  }
  bool drops(const OpContext& context) const { return context.training && options_.dropout > 0; }

  void drop_features(const OpContext& context, const Saved& saved) const {
    std::ranges::copy(x_->value, saved.kept);
    if (!drops(context)) return;
    const float scale = 1 / (1 - options_.dropout);
    for (std::size_t e = 0; e < x_->entries(); ++e) {
      saved.kept[e] = stays(context, 0, e) ? saved.kept[e] * scale : 0;
    }
  }

  void relu_and_drop(const OpContext& context, const Saved& saved) const {
    const bool draws = drops(context);
    const float scale = draws ? 1 / (1 - options_.dropout) : 1;
    for (std::size_t i = 0; i < hidden_floats(); ++i) {
      const bool is_kept = saved.hidden[i] > 0 && (!draws || stays(context, 1, i));
      saved.hidden[i] = is_kept ? saved.hidden[i] * scale : 0;
    }
  }

  // scratch.out = A^T of the gradient of the scores, which histories have and no other nodes: the
  // rows of A of those nodes are its columns. Histories of one node add up.
  void back_through_graph(const OpContext& context, const Saved& saved,
                          const Scratch& scratch) const {
    const Matrix dout = context.grad(out_);
    std::fill_n(scratch.out, static_cast<std::size_t>(nodes()) * classes(), 0.0f);
    for (std::int32_t g = 0; g < dout.rows; ++g) {
      const std::uint32_t node = saved.node[g];
      for (std::uint32_t e = a_->begin[node]; e < a_->begin[node + 1]; ++e) {
        kernels().axpy(a_->value[e], dout.row(g),
                       scratch.out + static_cast<std::size_t>(a_->column[e]) * classes(),
                       static_cast<std::size_t>(classes()));
      }
    }
  }

  // dW_0 += dropout(X)^T . second.
  void back_to_features(const OpContext& context, const Saved& saved,
                        const Scratch& scratch) const {
    float* const value = scratch.first;
    for (std::size_t e = 0; e < entry_.size(); ++e) value[e] = saved.kept[entry_[e]];
    SparseRows xt = xt_.view();
    xt.value = value;
    float* const dw0 = w0_.in(context.dparams);
    multiply(context, xt, xt_runs_, scratch.second, hidden(), dw0, true);
    if (options_.decay == 0) return;
    kernels().axpy(options_.decay, w0_.in(context.params), dw0, w0_floats());
  }

  std::size_t w0_floats() const { return static_cast<std::size_t>(x_->cols) * hidden(); }
  double decay_loss(const float* w0) const {
    double sum = 0;
    for (std::size_t i = 0; i < w0_floats(); ++i) sum += double{w0[i]} * w0[i];
    return 0.5 * options_.decay * sum;
  }

  std::string name_;
  std::shared_ptr<const SparseMatrix> a_, x_;
  std::vector<std::uint32_t> entry_;  // of X, by entry of its transpose
  SparseMatrix xt_;
  std::vector<std::int32_t> a_runs_, x_runs_, xt_runs_;
  std::int32_t table_, slot_;
  GcnOptions options_;
  OpParam w0_, w1_;
  TensorId out_;
};

}  // namespace

void gcn_scores(const SparseMatrix& adjacency, const SparseMatrix& features, ConstMatrix w0,
                ConstMatrix w1, Matrix scores) {
  const Kernels& k = kernels(Precision::kF32);
  const std::int32_t nodes = adjacency.rows, hidden = w0.cols, classes = w1.cols;
  CHECK_EQ(features.cols, w0.rows);
  CHECK_EQ(scores.rows, nodes);
  const auto times = [&](const SparseMatrix& a, const float* x, std::int32_t width, float* y) {
    k.spmm(a.view(), nullptr, 0, nodes, x, width, y, width, nullptr, width, false);
  };
  std::vector<float> first(static_cast<std::size_t>(nodes) * hidden), values(first.size());
  times(features, w0.data, hidden, first.data());
  times(adjacency, first.data(), hidden, values.data());
  for (float& x : values) x = std::max(x, 0.0f);
  std::vector<float> packed(k.packed_floats(hidden, classes));
  std::vector<float> out(static_cast<std::size_t>(nodes) * classes);
  k.pack(w1.data, classes, hidden, classes, false, packed.data());
  k.gemm(values.data(), hidden, packed.data(), nullptr, out.data(), classes, nodes, hidden, classes,
         false);
  times(adjacency, out.data(), classes, scores.data);
}

TensorId gcn(Graph& graph, std::string name, std::shared_ptr<const SparseMatrix> adjacency,
             std::shared_ptr<const SparseMatrix> features, std::int32_t slot, GcnOptions options) {
  CHECK_EQ(adjacency->rows, adjacency->cols) << name;
  CHECK_EQ(adjacency->rows, features->rows) << name;
  const std::int32_t table = graph.slots().at(slot).table;
  for (const bool training : {false, true}) {
    graph.use_catalogue(table, training, Graph::CatalogueUse::kAll);
  }
  const OpParam w0 = {graph.param(name + "/kernel0", features->cols, options.hidden,
                                  {.kind = Init::kGlorotUniform})};
  const OpParam w1 = {graph.param(name + "/kernel1", options.hidden, options.classes,
                                  {.kind = Init::kGlorotUniform})};
  const TensorId out = graph.tensor(Rows::kGroup, options.classes);
  graph.add(std::make_unique<GcnOp>(std::move(name), std::move(adjacency), std::move(features),
                                    table, slot, options, w0, w1, out));
  return out;
}

}  // namespace meander::nn
