// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/attention.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "common/check.h"
#include "nn/graph_writer.h"
#include "nn/ops/carve.h"
#include "nn/ops/onnx_forms.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

// Pairs (behaviour, candidate) worked through all layers at a time, so that they stay in cache.
constexpr std::int32_t kTilePairs = 96;

std::size_t floats(std::int32_t rows, std::int32_t cols) {
  return static_cast<std::size_t>(rows) * cols;
}

std::int32_t tile_rows(const Layout& layout) {
  return std::min(layout.history_rows, std::max(1, kTilePairs / layout.candidates));
}

// History rows [first, first + rows) that belong to one step, to groups from `group` on.
struct Span {
  std::int32_t first, rows, group;
};

// Walks the spans of a growing range of history rows.
class Spans {
 public:
  explicit Spans(const Layout& layout) : layout_(layout) {}
  // The next span of at most `end` - `first` rows that starts at `first`, the end of the last one.
  Span next(std::int32_t first, std::int32_t end) {
    while (first >= layout_.step_offset[step_] + layout_.step_rows[step_]) ++step_;
    const std::int32_t step_end = layout_.step_offset[step_] + layout_.step_rows[step_];
    return {first, std::min(end, step_end) - first, first - layout_.step_offset[step_]};
  }

 private:
  const Layout& layout_;
  std::int32_t step_ = 0;
};

// ----------------------------------------------------------------------------------- weights

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
  float* query;    // (S, A) the query's share of the first layer, or its gradient
  float* key;      // (tile, A) the key's share, or its gradient
  float* product;  // (tile pairs, E) q * k, or its gradient
  float* dz;       // (tile pairs, A)
  float* dscore;   // (pairs)
  float* sample;   // (S) of the softmax
  float* dkernel;  // (E, A) gradient of W2 - W3 or W1 + W3
};

Scratch carve_scratch(const WeightsParts& at, const Layout& layout, Carve& carve) {
  const std::int32_t tile = tile_rows(layout), pairs = tile * layout.candidates;
  Scratch scratch;
  scratch.query = carve.take(layout.samples(), at.a);
  scratch.key = carve.take(tile, at.a);
  scratch.product = carve.take(pairs, at.e);
  scratch.dz = carve.take(pairs, at.a);
  scratch.dscore = carve.take(layout.rows(Rows::kHistorySample));
  scratch.sample = carve.take(layout.samples());
  scratch.dkernel = carve.take(at.e, at.a);
  return scratch;
}

// body(step's first pair, pairs): candidate s of the step is pair first + s, s < pairs.
template <class Body>
void for_steps(const Layout& layout, Body body) {
  for (std::int32_t t = 0; t < layout.steps(); ++t) {
    body(layout.step_offset[t] * layout.candidates, layout.step_rows[t] * layout.candidates);
  }
}

// Scores become weights, sample by sample over its history.
void softmax(const Layout& layout, float* score, float* sample) {
  for_steps(layout, [&](std::int32_t first, std::int32_t pairs) {
    for (std::int32_t s = 0; s < pairs; ++s) {
      sample[s] = first == 0 ? score[s] : std::max(sample[s], score[first + s]);
    }
  });
  for_steps(layout, [&](std::int32_t first, std::int32_t pairs) {
    for (std::int32_t s = 0; s < pairs; ++s) score[first + s] -= sample[s];
  });
  kernels().exp(score, score, static_cast<std::size_t>(layout.rows(Rows::kHistorySample)));
  for_steps(layout, [&](std::int32_t first, std::int32_t pairs) {
    for (std::int32_t s = 0; s < pairs; ++s) {
      sample[s] = first == 0 ? score[s] : sample[s] + score[first + s];
    }
  });
  for (std::int32_t s = 0; s < layout.samples(); ++s) sample[s] = 1 / sample[s];
  for_steps(layout, [&](std::int32_t first, std::int32_t pairs) {
    for (std::int32_t s = 0; s < pairs; ++s) score[first + s] *= sample[s];
  });
}

// dscore = weight (dweight - the sum of weight * dweight over the sample's history).
void softmax_backward(const Layout& layout, const float* weight, const float* dweight,
                      float* dscore, float* sample) {
  std::fill_n(sample, layout.samples(), 0.0f);
  for_steps(layout, [&](std::int32_t first, std::int32_t pairs) {
    for (std::int32_t s = 0; s < pairs; ++s) sample[s] += weight[first + s] * dweight[first + s];
  });
  for_steps(layout, [&](std::int32_t first, std::int32_t pairs) {
    for (std::int32_t s = 0; s < pairs; ++s) {
      dscore[first + s] = weight[first + s] * (dweight[first + s] - sample[s]);
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
    const Matrix query = context.value(at_.query), out = context.value(at_.out);
    const Packed packed = packed_in(context);
    Carve saved_memory(context.saved), scratch_memory(context.scratch);
    const Saved saved = carve_saved(at_, layout, saved_memory);
    const Scratch scratch = carve_scratch(at_, layout, scratch_memory);
    kernels().gemm(query.data, query.stride, packed.query, at_.bias1.in(context.params),
                   scratch.query, at_.a, query.rows, at_.e, at_.a, false);
    Spans spans(layout);
    const std::int32_t tile = tile_rows(layout);
    for (std::int32_t row = 0; row < layout.history_rows; row += tile) {
      const std::int32_t end = std::min(row + tile, layout.history_rows);
      forward_tile(context, packed, saved, scratch, spans, row, end);
    }
    softmax(layout, out.data, scratch.sample);
  }

  void backward(const OpContext& context) const override {
    const Layout& layout = *context.layout;
    const std::int32_t e = at_.e, a = at_.a;
    const Packed packed = packed_in(context);
    Carve saved_memory(context.saved), scratch_memory(context.scratch);
    const Saved saved = carve_saved(at_, layout, saved_memory);
    const Scratch scratch = carve_scratch(at_, layout, scratch_memory);
    softmax_backward(layout, context.value(at_.out).data, context.grad(at_.out).data,
                     scratch.dscore, scratch.sample);
    std::fill_n(scratch.query, floats(layout.samples(), a), 0.0f);
    std::fill_n(scratch.dkernel, floats(e, a), 0.0f);
    Spans spans(layout);
    const std::int32_t tile = tile_rows(layout);
    for (std::int32_t row = 0; row < layout.history_rows; row += tile) {
      const std::int32_t end = std::min(row + tile, layout.history_rows);
      backward_tile(context, packed, saved, scratch, spans, row, end);
    }
    add_folded(context, scratch.dkernel, 1, -1.0f);  // of W2 - W3
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

  // Scores of history rows [row, end) for their candidates.
  void forward_tile(const OpContext& context, const Packed& packed, const Saved& saved,
                    const Scratch& scratch, Spans& spans, std::int32_t row,
                    std::int32_t end) const {
    const Kernels& k = kernels();
    const std::int32_t e = at_.e, a = at_.a, b = at_.b, share = context.layout->candidates;
    const Matrix query = context.value(at_.query), keys = context.value(at_.keys);
    const std::int32_t pairs = (end - row) * share;
    const std::size_t pair = floats(row, share);
    float* y1 = saved.y1 + pair * a;
    float* y2 = saved.y2 + pair * b;
    k.gemm(keys.row(row), keys.stride, packed.key, nullptr, scratch.key, a, end - row, e, a, false);
    for (std::int32_t at = row; at < end;) {
      const Span span = spans.next(at, end);
      const std::size_t in_tile = floats(span.first - row, share);
      const std::int32_t sample = span.group * share;
      k.attention_join(keys.row(span.first), keys.stride, query.row(sample), query.stride,
                       scratch.key + floats(span.first - row, a), scratch.query + floats(sample, a),
                       scratch.product + in_tile * e, y1 + in_tile * a, span.rows, share, e, a);
      at += span.rows;
    }
    k.gemm(scratch.product, e, packed.product, nullptr, y1, a, pairs, e, a, true);
    k.sigmoid(y1, y1, floats(pairs, a));
    k.gemm(y1, a, packed.second, at_.bias2.in(context.params), y2, b, pairs, a, b, false);
    k.sigmoid(y2, y2, floats(pairs, b));
    k.row_dot(y2, b, at_.kernel3.in(context.params), *at_.bias3.in(context.params),
              context.value(at_.out).data + pair, pairs, b);
  }

  void backward_tile(const OpContext& context, const Packed& packed, const Saved& saved,
                     const Scratch& scratch, Spans& spans, std::int32_t row,
                     std::int32_t end) const {
    const Kernels& k = kernels();
    const std::int32_t e = at_.e, a = at_.a, b = at_.b, share = context.layout->candidates;
    const Matrix query = context.value(at_.query), keys = context.value(at_.keys);
    const Matrix dquery = context.grad(at_.query), dkeys = context.grad(at_.keys);
    const std::int32_t pairs = (end - row) * share;
    const std::size_t pair = floats(row, share);
    float* y1 = saved.y1 + pair * a;
    float* dz2 = saved.y2 + pair * b;
    const float* dscore = scratch.dscore + pair;
    float* const d = context.dparams;
    k.row_dot_sigmoid_backward(dscore, at_.kernel3.in(context.params), dz2, b, at_.kernel3.in(d),
                               pairs, b);
    k.column_sum(dscore, 1, pairs, 1, at_.bias3.in(d));
    k.gemm_tn(y1, a, dz2, b, at_.kernel2.in(d), b, pairs, a, b);
    k.column_sum(dz2, b, pairs, b, at_.bias2.in(d));
    k.gemm(dz2, b, packed.second_back, nullptr, scratch.dz, a, pairs, b, a, false);
    k.sigmoid_backward(y1, scratch.dz, floats(pairs, a));
    Spans again = spans;
    for (std::int32_t at = row; at < end;) {  // q * k once more
      const Span span = again.next(at, end);
      const std::int32_t sample = span.group * share;
      k.attention_join(keys.row(span.first), keys.stride, query.row(sample), query.stride, nullptr,
                       nullptr, scratch.product + floats(span.first - row, share) * e, nullptr,
                       span.rows, share, e, 0);
      at += span.rows;
    }
    k.gemm_tn(scratch.product, e, scratch.dz, a, at_.kernel1.in(d) + 3 * floats(e, a), a, pairs, e,
              a);
    k.gemm(scratch.dz, a, packed.product_back, nullptr, scratch.product, e, pairs, a, e, false);
    for (std::int32_t at = row; at < end;) {
      const Span span = spans.next(at, end);
      const std::size_t in_tile = floats(span.first - row, share);
      const std::int32_t sample = span.group * share;
      k.attention_join_backward(keys.row(span.first), keys.stride, query.row(sample), query.stride,
                                scratch.product + in_tile * e, scratch.dz + in_tile * a,
                                scratch.key + floats(span.first - row, a),
                                scratch.query + floats(sample, a),
                                dkeys.data == nullptr ? nullptr : dkeys.row(span.first),
                                dkeys.stride, dquery.data == nullptr ? nullptr : dquery.row(sample),
                                dquery.stride, span.rows, share, e, a);
      at += span.rows;
    }
    k.gemm_tn(keys.row(row), keys.stride, scratch.key, a, scratch.dkernel, a, end - row, e, a);
    if (dkeys.data == nullptr) return;
    k.gemm(scratch.key, a, packed.key_back, nullptr, dkeys.row(row), dkeys.stride, end - row, a, e,
           true);
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
