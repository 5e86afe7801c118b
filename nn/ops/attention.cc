// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/attention.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "common/check.h"
#include "nn/graph_writer.h"
#include "nn/ops/carve.h"
#include "nn/ops/onnx_forms.h"
#include "nn/ops/turned.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

// Pairs (behaviour, candidate) that go through the narrow layers together, and stay in cache.
constexpr std::int32_t kChunkPairs = 96;

std::size_t floats(std::int32_t rows, std::int32_t cols) {
  return static_cast<std::size_t>(rows) * cols;
}

// ----------------------------------------------------------------------------------- weights
//
// A pair's first layer is [q, k, q - k, q * k] . (W1, W2, W3, W4), so for a candidate q it is
//   k . (W2 - W3 + diag(q) W4) + q . (W1 + W3):
// one product of the history with a matrix of the candidate's own. Pairs are worked sample by
// sample, each over its own history, in memory of their own; the tensors are time-major.

struct WeightsParts {
  TensorId query, keys, out;
  std::int32_t e, a, b;  // widths: query, first and second hidden layer
  OpParam kernel1, bias1, kernel2, bias2, kernel3, bias3;
};

struct Packed {
  float *query, *query_back;      // W1 + W3 (E, A) and its transpose
  float *key, *key_back;          // W2 - W3 (E, A)
  float *product, *product_back;  // W4 (E, A)
  float *second, *second_back;    // (A, B)
  float* folded;                  // (E, A) row-major, before packing
};

Packed carve_packed(const WeightsParts& at, Carve& carve) {
  const Kernels& k = kernels();
  const std::size_t forward = k.packed_floats(at.e, at.a), back = k.packed_floats(at.a, at.e);
  Packed packed;
  packed.query = carve.take(forward);
  packed.query_back = carve.take(back);
  packed.key = carve.take(forward);
  packed.key_back = carve.take(back);
  packed.product = carve.take(forward);
  packed.product_back = carve.take(back);
  packed.second = carve.take(k.packed_floats(at.a, at.b));
  packed.second_back = carve.take(k.packed_floats(at.b, at.a));
  packed.folded = carve.take(at.e, at.a);
  return packed;
}

struct Saved {
  float* y1;  // (pairs, A) first hidden layer
  float* y2;  // (pairs, B) second one; after backward, its gradient before the sigmoid
};

Saved carve_saved(const WeightsParts& at, const Layout& layout, Carve& carve) {
  const std::int32_t pairs = layout.rows(Rows::kHistorySample);
  Saved saved;
  saved.y1 = carve.take(pairs, at.a);
  saved.y2 = carve.take(pairs, at.b);
  return saved;
}

struct Scratch {
  float* query;     // (S, A) the query's share of the first layer, or its gradient
  float* keys;      // (T, E) a group's history
  float* dkeys;     // (T, E)
  float* weights;   // packed: a candidate's own matrix, or its transpose
  float* dz;        // (chunk, A)
  float* score;     // (pairs), or its gradient
  float* dkernel;   // (E, A) gradient of W2 - W3 or W1 + W3
  float* dweights;  // (E, A) of a candidate's own matrix
  float* dsecond;   // (B, A) gradient of the second kernel, turned
};

Scratch carve_scratch(const WeightsParts& at, const Layout& layout, Carve& carve) {
  const std::int32_t steps = layout.steps();
  Scratch scratch;
  scratch.query = carve.take(layout.samples(), at.a);
  scratch.keys = carve.take(steps, at.e);
  scratch.dkeys = carve.take(steps, at.e);
  scratch.weights = carve.take(
      std::max(kernels().packed_floats(at.e, at.a), kernels().packed_floats(at.a, at.e)));
  scratch.dz = carve.take(kChunkPairs + steps * layout.candidates, at.a);
  scratch.score = carve.take(layout.rows(Rows::kHistorySample));
  scratch.dkernel = carve.take(at.e, at.a);
  scratch.dweights = carve.take(at.e, at.a);
  scratch.dsecond = carve.take(at.b, at.a);
  return scratch;
}

// body(group, first pair): the pairs of a group are those of its candidates, one after another.
template <class Body>
void for_groups(const Layout& layout, Body body) {
  std::int32_t pair = 0;
  for (std::int32_t g = 0; g < layout.groups; ++g) {
    body(g, pair);
    pair += layout.lengths[g] * layout.candidates;
  }
}

// Pairs of one sample, at `first` on, and where each lies in time-major order.
template <class Body>
void for_samples(const Layout& layout, Body body) {
  for_groups(layout, [&](std::int32_t g, std::int32_t pair) {
    for (std::int32_t c = 0; c < layout.candidates; ++c, pair += layout.lengths[g]) {
      body(pair, layout.lengths[g], [&layout, g, c](std::int32_t t) {
        return floats(layout.step_offset[t] + g, layout.candidates) + c;
      });
    }
  });
}

// Scores become weights, sample by sample over its history, in `out` time-major.
void softmax(const Layout& layout, float* score, float* out) {
  for_samples(layout, [&](std::int32_t pair, std::int32_t length, auto) {
    float* own = score + pair;
    const float most = *std::max_element(own, own + length);
    for (std::int32_t t = 0; t < length; ++t) own[t] -= most;
  });
  kernels().exp(score, score, static_cast<std::size_t>(layout.rows(Rows::kHistorySample)));
  for_samples(layout, [&](std::int32_t pair, std::int32_t length, auto place) {
    const float* own = score + pair;
    float sum = 0;
    for (std::int32_t t = 0; t < length; ++t) sum += own[t];
    const float share = 1 / sum;
    for (std::int32_t t = 0; t < length; ++t) out[place(t)] = own[t] * share;
  });
}

// dscore = weight (dweight - the sum of weight * dweight over the sample's history).
void softmax_backward(const Layout& layout, const float* weight, const float* dweight,
                      float* dscore) {
  for_samples(layout, [&](std::int32_t pair, std::int32_t length, auto place) {
    float sum = 0;
    for (std::int32_t t = 0; t < length; ++t) sum += weight[place(t)] * dweight[place(t)];
    for (std::int32_t t = 0; t < length; ++t) {
      dscore[pair + t] = weight[place(t)] * (dweight[place(t)] - sum);
    }
  });
}

class AttentionWeights final : public Op {
 public:
  AttentionWeights(std::string name, WeightsParts parts) : name_(std::move(name)), at_(parts) {}

  std::string name() const override { return name_; }
  std::vector<TensorId> inputs() const override { return {at_.query, at_.keys}; }
  std::vector<TensorId> outputs() const override { return {at_.out}; }
  void place_params(const std::vector<ParamSpec>& params) override {
    for (OpParam* p :
         {&at_.kernel1, &at_.bias1, &at_.kernel2, &at_.bias2, &at_.kernel3, &at_.bias3})
      p->place(params);
  }
  std::size_t packed_floats() const override {
    Carve carve(nullptr);
    carve_packed(at_, carve);
    return carve.floats();
  }
  void pack(const float* params, float* memory) const override {
    const std::int32_t e = at_.e, a = at_.a, b = at_.b;
    Carve carve(memory);
    const Packed packed = carve_packed(at_, carve);
    const std::size_t size = floats(e, a);
    const float* w = at_.kernel1.in(params);  // W1, W2, W3, W4, each (E, A)
    for (std::size_t i = 0; i < size; ++i) packed.folded[i] = w[i] + w[2 * size + i];
    pack_both(packed.folded, e, a, packed.query, packed.query_back);
    for (std::size_t i = 0; i < size; ++i) packed.folded[i] = w[size + i] - w[2 * size + i];
    pack_both(packed.folded, e, a, packed.key, packed.key_back);
    pack_both(w + 3 * size, e, a, packed.product, packed.product_back);
    pack_both(at_.kernel2.in(params), a, b, packed.second, packed.second_back);
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
    const Matrix query = context.value(at_.query);
    const Packed packed = packed_in(context);
    Carve saved_memory(context.saved), scratch_memory(context.scratch);
    const Saved saved = carve_saved(at_, layout, saved_memory);
    const Scratch scratch = carve_scratch(at_, layout, scratch_memory);
    kernels().gemm(query.data, query.stride, packed.query, at_.bias1.in(context.params),
                   scratch.query, at_.a, query.rows, at_.e, at_.a, false);
    std::int32_t done = 0;
    for_groups(layout, [&](std::int32_t g, std::int32_t pair) {
      first_layer(context, packed, saved, scratch, g, pair);
      const std::int32_t end = pair + layout.lengths[g] * layout.candidates;
      if (end - done < kChunkPairs && g + 1 < layout.groups) return;
      score_pairs(context, packed, saved, scratch, done, end);
      done = end;
    });
    softmax(layout, scratch.score, context.value(at_.out).data);
  }

  void backward(const OpContext& context) const override {
    const Layout& layout = *context.layout;
    const std::int32_t e = at_.e, a = at_.a;
    const Packed packed = packed_in(context);
    Carve saved_memory(context.saved), scratch_memory(context.scratch);
    const Saved saved = carve_saved(at_, layout, saved_memory);
    const Scratch scratch = carve_scratch(at_, layout, scratch_memory);
    softmax_backward(layout, context.value(at_.out).data, context.grad(at_.out).data,
                     scratch.score);
    std::fill_n(scratch.query, floats(layout.samples(), a), 0.0f);
    std::fill_n(scratch.dkernel, floats(e, a), 0.0f);
    std::fill_n(scratch.dsecond, floats(at_.b, a), 0.0f);
    std::int32_t done = 0, first_group = 0;
    for_groups(layout, [&](std::int32_t g, std::int32_t pair) {
      const std::int32_t end = pair + layout.lengths[g] * layout.candidates;
      if (end - done < kChunkPairs && g + 1 < layout.groups) return;
      narrow_layers_backward(context, packed, saved, scratch, done, end);
      for (std::int32_t at = done; first_group <= g; ++first_group) {
        first_layer_backward(context, packed, scratch, first_group,
                             scratch.dz + floats(at - done, a));
        at += layout.lengths[first_group] * layout.candidates;
      }
      done = end;
    });
    add_folded(context, scratch.dkernel, 1, -1.0f);  // of W2 - W3
    add_turned(scratch.dsecond, at_.b, a, at_.kernel2.in(context.dparams));
    backward_query(context, packed, scratch);
  }

  void emit_onnx(GraphWriter& writer) const override;

 private:
  static void pack_both(const float* w, std::int32_t k, std::int32_t n, float* forward,
                        float* back) {
    kernels().pack(w, n, k, n, false, forward);
    kernels().pack(w, n, n, k, true, back);
  }
  Packed packed_in(const OpContext& context) const {
    Carve carve(const_cast<float*>(context.packed));  // read only
    return carve_packed(at_, carve);
  }
  // First rows of the steps, as keys: from the first row of a group on, those of its history.
  static const std::uint32_t* steps_of(const Layout& layout) {
    return reinterpret_cast<const std::uint32_t*>(layout.step_offset.data());
  }
  // The history of group g, its rows without gaps.
  void gather_keys(const OpContext& context, std::int32_t g, float* to) const {
    const Layout& layout = *context.layout;
    const Matrix keys = context.value(at_.keys);
    kernels().gather_rows(keys.row(g), keys.stride, steps_of(layout), to, at_.e, layout.lengths[g],
                          at_.e);
  }

  // y1 of the group's pairs, before its sigmoid.
  void first_layer(const OpContext& context, const Packed& packed, const Saved& saved,
                   const Scratch& scratch, std::int32_t g, std::int32_t pair) const {
    const Kernels& k = kernels();
    const Layout& layout = *context.layout;
    const std::int32_t e = at_.e, a = at_.a, length = layout.lengths[g];
    gather_keys(context, g, scratch.keys);
    for (std::int32_t c = 0; c < layout.candidates; ++c, pair += length) {
      const std::int32_t sample = g * layout.candidates + c;
      k.pack_add_rows(packed.key, packed.product, context.value(at_.query).row(sample), e, a,
                      scratch.weights);
      k.gemm(scratch.keys, e, scratch.weights, scratch.query + floats(sample, a),
             saved.y1 + floats(pair, a), a, length, e, a, false);
    }
  }

  // The layers behind the first, of pairs [first, end).
  void score_pairs(const OpContext& context, const Packed& packed, const Saved& saved,
                   const Scratch& scratch, std::int32_t first, std::int32_t end) const {
    const Kernels& k = kernels();
    const std::int32_t a = at_.a, b = at_.b, pairs = end - first;
    float* y1 = saved.y1 + floats(first, a);
    float* y2 = saved.y2 + floats(first, b);
    k.sigmoid(y1, y1, floats(pairs, a));
    k.gemm(y1, a, packed.second, at_.bias2.in(context.params), y2, b, pairs, a, b, false);
    k.sigmoid(y2, y2, floats(pairs, b));
    k.row_dot(y2, b, at_.kernel3.in(context.params), *at_.bias3.in(context.params),
              scratch.score + first, pairs, b);
  }

  // From the gradient of scores to that of the first layer, scratch.dz, of pairs [first, end).
  void narrow_layers_backward(const OpContext& context, const Packed& packed, const Saved& saved,
                              const Scratch& scratch, std::int32_t first, std::int32_t end) const {
    const Kernels& k = kernels();
    const std::int32_t a = at_.a, b = at_.b, pairs = end - first;
    const float* y1 = saved.y1 + floats(first, a);
    float* dz2 = saved.y2 + floats(first, b);
    const float* dscore = scratch.score + first;
    float* const d = context.dparams;
    k.row_dot_sigmoid_backward(dscore, at_.kernel3.in(context.params), dz2, b, at_.kernel3.in(d),
                               pairs, b);
    k.column_sum(dscore, 1, pairs, 1, at_.bias3.in(d));
    k.gemm_tn(dz2, b, y1, a, scratch.dsecond, a, pairs, b, a);
    k.column_sum(dz2, b, pairs, b, at_.bias2.in(d));
    k.gemm(dz2, b, packed.second_back, nullptr, scratch.dz, a, pairs, b, a, false);
    k.sigmoid_backward(y1, scratch.dz, floats(pairs, a));
  }

  // `dz`: the gradients of the group's pairs before the first sigmoid.
  void first_layer_backward(const OpContext& context, const Packed& packed, const Scratch& scratch,
                            std::int32_t g, const float* dz) const {
    const Kernels& k = kernels();
    const Layout& layout = *context.layout;
    const std::int32_t e = at_.e, a = at_.a, length = layout.lengths[g];
    const Matrix query = context.value(at_.query), dquery = context.grad(at_.query);
    const Matrix dkeys = context.grad(at_.keys);
    const float* product = at_.kernel1.in(context.params) + 3 * floats(e, a);
    float* dproduct = at_.kernel1.in(context.dparams) + 3 * floats(e, a);
    gather_keys(context, g, scratch.keys);
    for (std::int32_t c = 0; c < layout.candidates; ++c, dz += floats(length, a)) {
      const std::int32_t sample = g * layout.candidates + c;
      const float* q = query.row(sample);
      k.column_sum(dz, a, length, a, scratch.query + floats(sample, a));
      std::fill_n(scratch.dweights, floats(e, a), 0.0f);
      k.gemm_tn(scratch.keys, e, dz, a, scratch.dweights, a, length, e, a);
      k.scaled_rows_backward(scratch.dweights, product, q, scratch.dkernel, dproduct,
                             dquery.data == nullptr ? nullptr : dquery.row(sample), e, a);
      if (dkeys.data == nullptr) continue;
      k.pack_add_columns(packed.key_back, packed.product_back, q, a, e, scratch.weights);
      k.gemm(dz, a, scratch.weights, nullptr, scratch.dkeys, e, length, a, e, c > 0);
    }
    if (dkeys.data == nullptr) return;
    k.scatter_add_rows(scratch.dkeys, e, steps_of(layout), dkeys.row(g), dkeys.stride, length, e);
  }

  // dkernel is the gradient of block `own` of the first kernel, and `sign` times it that of W3.
  void add_folded(const OpContext& context, const float* dkernel, int own, float sign) const {
    const std::size_t size = floats(at_.e, at_.a);
    float* d = at_.kernel1.in(context.dparams);
    kernels().axpy(1.0f, dkernel, d + own * size, size);
    kernels().axpy(sign, dkernel, d + 2 * size, size);
  }

  void backward_query(const OpContext& context, const Packed& packed,
                      const Scratch& scratch) const {
    const Kernels& k = kernels();
    const Matrix query = context.value(at_.query), dquery = context.grad(at_.query);
    std::fill_n(scratch.dkernel, floats(at_.e, at_.a), 0.0f);
    k.gemm_tn(query.data, query.stride, scratch.query, at_.a, scratch.dkernel, at_.a, query.rows,
              at_.e, at_.a);
    add_folded(context, scratch.dkernel, 0, 1.0f);  // of W1 + W3
    k.column_sum(scratch.query, at_.a, query.rows, at_.a, at_.bias1.in(context.dparams));
    if (dquery.data == nullptr) return;
    k.gemm(scratch.query, at_.a, packed.query_back, nullptr, dquery.data, dquery.stride, query.rows,
           at_.a, at_.e, true);
  }

  std::string name_;
  WeightsParts at_;
};

void AttentionWeights::emit_onnx(GraphWriter& writer) const {
  const std::int64_t e = at_.e;
  const std::string keys = writer.tensor(at_.keys), query = writer.tensor(at_.query);
  const std::string kernel = writer.param(at_.kernel1.id);
  const auto block = [&](std::int64_t index) {
    return writer.node(
        "Slice", {kernel, writer.constant_int({1}, {index * e}),
                  writer.constant_int({1}, {(index + 1) * e}), writer.constant_int({1}, {0})});
  };
  const std::string of_query =
      writer.node("MatMul", {query, writer.node("Add", {block(0), block(2)})});
  const std::string of_key =
      writer.node("MatMul", {keys, writer.node("Sub", {block(1), block(2)})});
  const std::string product = writer.node("Mul", {onnx_repeat_history(writer, keys), query});
  std::string z = writer.node("MatMul", {product, block(3)});
  z = writer.node("Add", {z, onnx_repeat_history(writer, of_key)});
  z = writer.node("Add", {z, writer.node("Add", {of_query, writer.param(at_.bias1.id)})});
  std::string y = writer.node("Sigmoid", {z});
  for (const auto& [weight, bias] :
       {std::pair(at_.kernel2, at_.bias2), std::pair(at_.kernel3, at_.bias3)}) {
    y = writer.node("Add",
                    {writer.node("MatMul", {y, writer.param(weight.id)}), writer.param(bias.id)});
    if (weight.id == at_.kernel2.id) y = writer.node("Sigmoid", {y});
  }
  const std::string real = onnx_repeat_history(writer, onnx_history_mask(writer, keys));
  const std::string masked = writer.node("Where", {real, y, writer.constant({}, {-1e30f})});
  writer.bind(at_.out, writer.node("Softmax", {masked}, {{"axis", std::int64_t{0}}}));
}

// -------------------------------------------------------------------------------------- pool

class AttentionPool final : public Op {
 public:
  AttentionPool(std::string name, TensorId weights, TensorId keys, TensorId out)
      : name_(std::move(name)), weights_(weights), keys_(keys), out_(out) {}

  std::string name() const override { return name_; }
  std::vector<TensorId> inputs() const override { return {weights_, keys_}; }
  std::vector<TensorId> outputs() const override { return {out_}; }

  void forward(const OpContext& context) const override {
    const Layout& layout = *context.layout;
    const Matrix keys = context.value(keys_), out = context.value(out_);
    const float* weights = context.value(weights_).data;
    for (std::int32_t s = 0; s < out.rows; ++s) std::fill_n(out.row(s), out.cols, 0.0f);
    for (std::int32_t t = 0; t < layout.steps(); ++t) {
      const std::int32_t row = layout.step_offset[t];
      kernels().pool_add(weights + floats(row, layout.candidates), keys.row(row), keys.stride,
                         out.data, out.stride, layout.step_rows[t], layout.candidates, out.cols);
    }
  }

  void backward(const OpContext& context) const override {
    const Layout& layout = *context.layout;
    const Matrix keys = context.value(keys_), dkeys = context.grad(keys_);
    const Matrix dout = context.grad(out_);
    const float* weights = context.value(weights_).data;
    float* dweights = context.grad(weights_).data;
    for (std::int32_t t = 0; t < layout.steps(); ++t) {
      const std::int32_t row = layout.step_offset[t];
      const std::size_t pair = floats(row, layout.candidates);
      kernels().pool_backward(weights + pair, keys.row(row), keys.stride, dout.data, dout.stride,
                              dweights + pair, dkeys.data == nullptr ? nullptr : dkeys.row(row),
                              dkeys.stride, layout.step_rows[t], layout.candidates, dout.cols);
    }
  }

  void emit_onnx(GraphWriter& writer) const override {
    // Weights of padded steps are zero, but keys there may be anything, NaN as well.
    const std::string keys = writer.tensor(keys_);
    const std::string real =
        writer.node("Where", {onnx_history_mask(writer, keys), keys, writer.constant({}, {0.0f})});
    const std::string products =
        writer.node("Mul", {onnx_repeat_history(writer, real), writer.tensor(weights_)});
    writer.bind(out_, writer.node("ReduceSum", {products, writer.constant_int({1}, {0})},
                                  {{"keepdims", std::int64_t{0}}}));
  }

 private:
  std::string name_;
  TensorId weights_, keys_, out_;
};

}  // namespace

TensorId attention_weights(Graph& graph, std::string name, TensorId query, TensorId keys,
                           AttentionOptions options) {
  CHECK(graph.spec(query).rows == Rows::kSample) << name;
  CHECK(graph.spec(keys).rows == Rows::kHistory) << name;
  CHECK_EQ(graph.spec(query).width, graph.spec(keys).width) << name;
  WeightsParts parts;
  parts.query = query;
  parts.keys = keys;
  parts.e = graph.spec(query).width;
  parts.a = options.hidden1;
  parts.b = options.hidden2;
  parts.out = graph.tensor(Rows::kHistorySample, 1);
  const auto layer = [&](const char* number, std::int32_t in, std::int32_t out, OpParam& kernel,
                         OpParam& bias) {
    const std::string prefix = name + "/dense" + number;
    kernel.id = graph.param(prefix + "/kernel", in, out, {Init::kGlorotUniform});
    bias.id = graph.param(prefix + "/bias", 1, out, {Init::kConstant, 0.0f});
  };
  layer("1", 4 * parts.e, parts.a, parts.kernel1, parts.bias1);
  layer("2", parts.a, parts.b, parts.kernel2, parts.bias2);
  layer("3", parts.b, 1, parts.kernel3, parts.bias3);
  graph.add(std::make_unique<AttentionWeights>(std::move(name), parts));
  return parts.out;
}

TensorId attention_pool(Graph& graph, std::string name, TensorId weights, TensorId keys) {
  CHECK(graph.spec(weights).rows == Rows::kHistorySample) << name;
  CHECK_EQ(graph.spec(weights).width, 1) << name;
  CHECK(graph.spec(keys).rows == Rows::kHistory) << name;
  const TensorId out = graph.tensor(Rows::kSample, graph.spec(keys).width);
  graph.add(std::make_unique<AttentionPool>(std::move(name), weights, keys, out));
  return out;
}

}  // namespace meander::nn
