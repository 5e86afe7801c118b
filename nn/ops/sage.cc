// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/sage.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "common/check.h"
#include "nn/ops/carve.h"
#include "nn/ops/dropout.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

constexpr std::int32_t kRowsOfTask = 256, kColumnsOfTask = 16;

struct Layer {
  std::int32_t in = 0, out = 0;
  OpParam kernel, bias;  // kernel.id < 0: rows are its products
  DropPlace drop;        // of its output; of the last one nothing
};

// Kept from forward to backward.
struct Saved {
  std::vector<float*> kept;  // by table (entries) of its input, with what dropout left
  std::vector<float*> z;     // by layer (nodes, 2 in) [h; mean of neighbours]
  std::vector<float*> h;     // by layer (nodes, out) after ReLU and dropout; the last: as it is
};

struct Scratch {
  float* packed;
  float* described;            // (all nodes, width); in backward its gradient
  std::array<float*, 2> grad;  // (nodes, out) of a layer's output
  float* dz;                   // (nodes, 2 in)
};

class SageOp final : public Op {
 public:
  SageOp(std::string name, std::vector<Layer> layers, SageOptions options, Sage out)
      : name_(std::move(name)),
        layers_(std::move(layers)),
        options_(options),
        drop_inputs_(name_ + "/inputs", options.dropout),
        out_(out) {}

  std::string name() const override { return name_; }
  Scope scope() const override { return Scope::kBatch; }
  std::vector<TensorId> inputs() const override { return {}; }
  std::vector<TensorId> outputs() const override {
    return out_.items == kNoTensor ? std::vector{out_.users} : std::vector{out_.users, out_.items};
  }
  void place_params(const std::vector<ParamSpec>& params) override {
    for (Layer& layer : layers_) {
      if (has_kernel(layer)) layer.kernel.place(params);
      layer.bias.place(params);
    }
  }
  std::size_t saved_floats(const Layout& layout) const override {
    Carve carve(nullptr);
    carve_saved(around(layout), carve);
    return carve.floats();
  }
  std::size_t scratch_floats(const Layout& layout) const override {
    Carve carve(nullptr);
    carve_scratch(around(layout), carve);
    return carve.floats();
  }

  void forward(const OpContext& context) const override {
    const Work w = work(context);
    describe(w);
    const float* h = w.scratch.described;
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      forward_layer(w, l, h);
      h = w.saved.h[l];
    }
    copy_targets(w, h);
  }

  void backward(const OpContext& context) const override {
    const Work w = work(context);
    gather_target_gradients(w, w.scratch.grad[layers_.size() % 2]);
    for (std::size_t l = layers_.size(); l-- > 0;) backward_layer(w, l);
    back_to_rows(w);
  }

  void emit_onnx(GraphWriter&) const override {
    LOG(FATAL) << name_ << ": neighbours that are drawn have no ONNX form";
  }

 private:
  struct Work {
    const OpContext& context;
    const Neighbourhood& around;
    Saved saved;
    Scratch scratch;
  };

  const Neighbourhood& around(const Layout& layout) const {
    CHECK(layout.neighbourhood != nullptr) << name_ << ": no neighbours were drawn";
    CHECK_EQ(layout.neighbourhood->hops.size(), layers_.size()) << name_;
    return *layout.neighbourhood;
  }
  // Nodes that a layer is made for.
  std::int32_t rows(const Neighbourhood& around, std::size_t layer) const {
    return around.nodes[layers_.size() - 1 - layer];
  }
  static bool has_kernel(const Layer& layer) { return layer.kernel.id >= 0; }
  // Of the rows of tables.
  std::int32_t width() const { return has_kernel(layers_[0]) ? layers_[0].in : 2 * layers_[0].out; }

  Saved carve_saved(const Neighbourhood& around, Carve& carve) const {
    Saved saved;
    for (const SparseRows& input : around.inputs) {
      const bool is_there = input.begin != nullptr;
      saved.kept.push_back(carve.take(is_there ? input.begin[around.nodes.back()] : 0));
    }
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      saved.z.push_back(
          carve.take(rows(around, l), has_kernel(layers_[l]) ? 2 * layers_[l].in : 0));
      saved.h.push_back(carve.take(rows(around, l), layers_[l].out));
    }
    return saved;
  }
  Scratch carve_scratch(const Neighbourhood& around, Carve& carve) const {
    std::size_t packed = 0, grad = 0, dz = 0;
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      const Layer& layer = layers_[l];
      grad = std::max(grad, static_cast<std::size_t>(rows(around, l)) * layer.out);
      if (!has_kernel(layer)) continue;
      packed = std::max({packed, kernels().packed_floats(2 * layer.in, layer.out),
                         kernels().packed_floats(layer.out, 2 * layer.in)});
      dz = std::max(dz, static_cast<std::size_t>(rows(around, l)) * 2 * layer.in);
    }
    Scratch scratch;
    scratch.packed = carve.take(packed);
    scratch.described = carve.take(around.nodes.back(), width());
    scratch.grad = {carve.take(grad), carve.take(grad)};
    scratch.dz = carve.take(dz);
    return scratch;
  }
  Work work(const OpContext& context) const {
    Carve saved(context.saved), scratch(context.scratch);
    const Neighbourhood& n = around(*context.layout);
    CHECK_EQ(n.users.size(), static_cast<std::size_t>(context.layout->groups)) << name_;
    return {context, n, carve_saved(n, saved), carve_scratch(n, scratch)};
  }

  // body(first, count) for runs of `rows` rows, beside each other.
  template <class Body>
  static void for_rows(const Work& w, std::int32_t rows, const Body& body) {
    w.context.executor->parallel((rows + kRowsOfTask - 1) / kRowsOfTask, [&](std::size_t task) {
      const std::int32_t first = static_cast<std::int32_t>(task) * kRowsOfTask;
      body(first, std::min(kRowsOfTask, rows - first));
    });
  }

  // x (rows of a.column, n) += a^T . dy (rows, n), in runs of columns, each from the first entry
  // to the last: the sums do not depend on threads.
  static void add_transposed(const Work& w, const SparseRows& a, std::int32_t rows, const float* dy,
                             std::int64_t ldy, float* dx, std::int64_t ldx, std::int32_t n) {
    w.context.executor->parallel((n + kColumnsOfTask - 1) / kColumnsOfTask, [&](std::size_t task) {
      const std::int32_t first = static_cast<std::int32_t>(task) * kColumnsOfTask;
      const auto count = static_cast<std::size_t>(std::min(kColumnsOfTask, n - first));
      for (std::int32_t r = 0; r < rows; ++r) {
        for (std::uint32_t e = a.begin[r]; e < a.begin[r + 1]; ++e) {
          kernels().axpy(a.value[e], dy + r * ldy + first, dx + a.column[e] * ldx + first, count);
        }
      }
    });
  }

  void describe(const Work& w) const {
    const std::int32_t nodes = w.around.nodes.back(), n = width();
    bool accumulate = false;
    std::uint32_t first_entry = 0;
    for (std::size_t t = 0; t < w.around.inputs.size(); ++t) {
      if (w.around.inputs[t].begin == nullptr) continue;
      const std::uint32_t entries = w.around.inputs[t].begin[nodes];
      kernels().dropout(drop_inputs_.in(w.context), first_entry, w.around.inputs[t].value,
                        w.saved.kept[t], entries);
      first_entry += entries;
      const SparseRows input = kept(w, t);
      const ConstMatrix& table = w.context.tables[t];
      CHECK_EQ(table.cols, n) << name_;
      for_rows(w, nodes, [&](std::int32_t first, std::int32_t count) {
        kernels().spmm(input, nullptr, first, count, table.data, table.stride, w.scratch.described,
                       n, nullptr, n, accumulate);
      });
      accumulate = true;
    }
    CHECK(accumulate) << name_ << ": nothing describes the nodes";
  }

  // The described nodes' entries, with what dropout left of them.
  static SparseRows kept(const Work& w, std::size_t table) {
    SparseRows input = w.around.inputs[table];
    input.value = w.saved.kept[table];
    return input;
  }

  void forward_layer(const Work& w, std::size_t l, const float* h) const {
    const Layer& layer = layers_[l];
    const std::int32_t in = layer.in, nodes = rows(w.around, l);
    const SparseRows& neighbours = w.around.hops[layers_.size() - 1 - l];
    const bool is_last = l + 1 == layers_.size();
    if (has_kernel(layer)) {
      kernels().pack(layer.kernel.in(w.context.params), layer.out, 2 * in, layer.out, false,
                     w.scratch.packed);
    }
    for_rows(w, nodes, [&](std::int32_t first, std::int32_t count) {
      float* const out = w.saved.h[l] + static_cast<std::int64_t>(first) * layer.out;
      const float* const bias = layer.bias.in(w.context.params);
      if (has_kernel(layer)) {
        float* const z = w.saved.z[l] + static_cast<std::int64_t>(first) * 2 * in;
        kernels().copy_rows(h + static_cast<std::int64_t>(first) * in, in, z, 2 * in, count, in);
        kernels().spmm(neighbours, nullptr, first, count, h, in, w.saved.z[l] + in, 2 * in, nullptr,
                       in, false);
        kernels().gemm(z, 2 * in, w.scratch.packed, bias, out, layer.out, count, 2 * in, layer.out,
                       false);
      } else {
        const float* const own = h + std::int64_t{first} * width();
        kernels().copy_rows(own, width(), out, layer.out, count, layer.out);
        kernels().spmm(neighbours, nullptr, first, count, h + layer.out, width(), w.saved.h[l],
                       layer.out, nullptr, layer.out, true);
        for (std::int32_t r = 0; r < count; ++r) {
          kernels().axpy(1.0f, bias, out + std::int64_t{r} * layer.out,
                         static_cast<std::size_t>(layer.out));
        }
      }
      if (is_last) return;
      kernels().relu_dropout(layer.drop.in(w.context),
                             static_cast<std::uint32_t>(first * layer.out), out,
                             static_cast<std::size_t>(count) * layer.out);
    });
  }

  void copy_targets(const Work& w, const float* h) const {
    const auto copy = [&](std::span<const std::uint32_t> nodes, const Matrix& out) {
      kernels().gather_rows(h, options_.out, nodes.data(), out.data, out.stride, out.rows,
                            options_.out);
    };
    copy(w.around.users, w.context.value(out_.users));
    if (out_.items == kNoTensor) return;
    CHECK_EQ(w.around.items.size(), static_cast<std::size_t>(w.context.layout->samples()));
    copy(w.around.items, w.context.value(out_.items));
  }

  void gather_target_gradients(const Work& w, float* dh) const {
    std::fill_n(dh, static_cast<std::size_t>(w.around.nodes[0]) * options_.out, 0.0f);
    const auto add = [&](std::span<const std::uint32_t> nodes, const Matrix& dout) {
      for (std::int32_t r = 0; r < dout.rows; ++r) {
        kernels().axpy(1.0f, dout.row(r), dh + static_cast<std::int64_t>(nodes[r]) * options_.out,
                       static_cast<std::size_t>(options_.out));
      }
    };
    add(w.around.users, w.context.grad(out_.users));
    if (out_.items != kNoTensor) add(w.around.items, w.context.grad(out_.items));
  }

  // From the gradient of the layer's output to those of its parameters and of the layer before.
  // The first layer reads what nodes are described by.
  void backward_layer(const Work& w, std::size_t l) const {
    const Layer& layer = layers_[l];
    const std::int32_t nodes = rows(w.around, l);
    const float* const dout = w.scratch.grad[(l + 1) % 2];
    kernels().column_sum(dout, layer.out, nodes, layer.out, layer.bias.in(w.context.dparams));
    const std::int32_t before = l == 0 ? w.around.nodes.back() : rows(w.around, l - 1);
    const std::int32_t in = l == 0 ? width() : layer.in;
    float* const dh = l == 0 ? w.scratch.described : w.scratch.grad[l % 2];
    std::fill_n(dh, static_cast<std::size_t>(before) * in, 0.0f);
    const SparseRows& neighbours = w.around.hops[layers_.size() - 1 - l];
    if (has_kernel(layer)) {
      back_through_kernel(w, l, dout, dh);
      add_transposed(w, neighbours, nodes, w.scratch.dz + in, 2 * in, dh, in, in);
    } else {
      kernels().copy_rows(dout, layer.out, dh, in, nodes, layer.out);
      add_transposed(w, neighbours, nodes, dout, layer.out, dh + layer.out, in, layer.out);
    }
    if (l == 0) return;
    kernels().relu_dropout_backward(layers_[l - 1].drop.in(w.context).rate, w.saved.h[l - 1], dh,
                                    static_cast<std::size_t>(before) * in);
  }

  // dz = dout W^T, of which the first half is of a node itself.
  void back_through_kernel(const Work& w, std::size_t l, const float* dout, float* dh) const {
    const Layer& layer = layers_[l];
    const std::int32_t in = layer.in, nodes = rows(w.around, l);
    kernels().gemm_tn(w.saved.z[l], 2 * in, dout, layer.out, layer.kernel.in(w.context.dparams),
                      layer.out, nodes, 2 * in, layer.out);
    kernels().pack(layer.kernel.in(w.context.params), layer.out, layer.out, 2 * in, true,
                   w.scratch.packed);
    for_rows(w, nodes, [&](std::int32_t first, std::int32_t count) {
      float* const dz = w.scratch.dz + std::int64_t{first} * 2 * in;
      kernels().gemm(dout + std::int64_t{first} * layer.out, layer.out, w.scratch.packed, nullptr,
                     dz, 2 * in, count, layer.out, 2 * in, false);
      kernels().copy_rows(dz, 2 * in, dh + std::int64_t{first} * in, in, count, in);
    });
  }

  void back_to_rows(const Work& w) const {
    const std::int32_t nodes = w.around.nodes.back(), n = width();
    float* const dh = w.scratch.described;
    for (std::size_t t = 0; t < w.around.inputs.size(); ++t) {
      if (w.around.inputs[t].begin == nullptr) continue;
      const Matrix& dtable = w.context.dtables[t];
      add_transposed(w, kept(w, t), nodes, dh, n, dtable.data, dtable.stride, n);
    }
  }

  std::string name_;
  std::vector<Layer> layers_;
  SageOptions options_;
  DropPlace drop_inputs_;
  Sage out_;
};

}  // namespace

Sage sage(Graph& graph, std::string name, std::int32_t width, bool has_items, SageOptions options) {
  CHECK_GE(options.layers, 1) << name;
  if (options.rows_are_weights) {
    CHECK_GE(options.layers, 2) << name;
    CHECK_EQ(width, 2 * options.hidden) << name;
  }
  std::vector<Layer> layers(options.layers);
  for (std::int32_t l = 0; l < options.layers; ++l) {
    const bool is_last = l + 1 == options.layers;
    const std::string number = std::to_string(l);
    Layer& layer = layers[l];
    layer.in = l == 0 ? width : options.hidden;
    const bool is_dense = l > 0 || !options.rows_are_weights;
    layer.out = is_last ? options.out : options.hidden;
    if (is_dense) {
      layer.kernel = {graph.param(name + "/kernel" + number, 2 * layer.in, layer.out,
                                  {.kind = Init::kGlorotUniform})};
    }
    layer.bias = {graph.param(name + "/bias" + number, 1, layer.out, {})};
    if (!is_last) layer.drop = DropPlace(name + "/layer" + number, options.dropout);
  }
  const Sage out = {graph.tensor(Rows::kGroup, options.out),
                    has_items ? graph.tensor(Rows::kSample, options.out) : kNoTensor};
  graph.add(std::make_unique<SageOp>(std::move(name), std::move(layers), options, out));
  return out;
}

}  // namespace meander::nn
