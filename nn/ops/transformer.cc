// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/transformer.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "common/check.h"
#include "nn/graph_writer.h"
#include "nn/ops/carve.h"
#include "nn/ops/dropout.h"
#include "nn/ops/layer_norm.h"
#include "nn/ops/onnx_forms.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

constexpr std::int32_t kChunkRows = 128;  // rows, at least, that go through a block in cache
constexpr std::int32_t kTile = 32;        // queries, and keys, of a tile of scores

std::size_t floats(std::int32_t rows, std::int32_t cols) {
  return static_cast<std::size_t>(rows) * cols;
}

// ---------------------------------------------------------------------------------- positions

struct PositionParts {
  TensorId x, out;
  std::int32_t positions, width;
  float scale;
  OpParam rows;
};

class AddPositions final : public Op {
 public:
  AddPositions(std::string name, PositionParts parts, float dropout)
      : name_(std::move(name)), at_(parts), place_(name_, dropout) {}

  std::string name() const override { return name_; }
  std::vector<TensorId> inputs() const override { return {at_.x}; }
  std::vector<TensorId> outputs() const override { return {at_.out}; }
  void place_params(const std::vector<ParamSpec>& params) override { at_.rows.place(params); }
  // The gradient before it was dropped.
  std::size_t scratch_floats(const Layout& layout) const override {
    return floats(layout.history_rows, at_.width);
  }

  void forward(const OpContext& context) const override {
    const Kernels& k = kernels();
    const Matrix x = context.value(at_.x), out = context.value(at_.out);
    const std::size_t size = floats(out.rows, at_.width);
    const float* rows = at_.rows.in(context.params);
    for_rows(*context.layout, [&](std::int32_t row, std::size_t place) {
      k.copy_rows(rows + place, at_.width, out.row(row), at_.width, 1, at_.width);
    });
    k.axpy(at_.scale, x.data, out.data, size);
    if (context.training) k.dropout(place_.in(context), 0, out.data, out.data, size);
  }
  void backward(const OpContext& context) const override {
    const Kernels& k = kernels();
    const Matrix dx = context.grad(at_.x), dout = context.grad(at_.out);
    const std::size_t size = floats(dout.rows, at_.width);
    float* drows = at_.rows.in(context.dparams);
    float* d = context.scratch;
    k.dropout(place_.in(context), 0, dout.data, d, size);
    for_rows(*context.layout, [&](std::int32_t row, std::size_t place) {
      k.add_rows(d + floats(row, at_.width), at_.width, drows + place, at_.width, 1, at_.width);
    });
    if (dx.data != nullptr) k.axpy(at_.scale, d, dx.data, size);
  }
  void emit_onnx(GraphWriter& writer) const override;

 private:
  // body(history row, where its position's row begins).
  template <class Body>
  void for_rows(const Layout& layout, Body body) const {
    for (std::int32_t t = 0; t < layout.steps(); ++t) {
      for (std::int32_t g = 0; g < layout.step_rows[t]; ++g) {
        const std::int32_t position = std::max(0, at_.positions - layout.lengths[g] + t);
        body(layout.step_offset[t] + g, floats(position, at_.width));
      }
    }
  }

  std::string name_;
  PositionParts at_;
  DropPlace place_;
};

void AddPositions::emit_onnx(GraphWriter& writer) const {
  constexpr std::int64_t kOnnxInt64 = 7;  // TensorProto.DataType
  const std::string x = writer.tensor(at_.x);
  const std::string steps =
      writer.node("Gather", {writer.node("Shape", {x}), writer.constant_int({}, {0})});
  const std::string range =
      writer.node("Range", {writer.constant_int({}, {0}), steps, writer.constant_int({}, {1})});
  const std::string step = writer.node("Unsqueeze", {range, writer.constant_int({1}, {1})});
  const std::string lengths = writer.node("Cast", {writer.lengths()}, {{"to", kOnnxInt64}});
  const std::string first = writer.node("Sub", {writer.constant_int({}, {at_.positions}), lengths});
  // Padded steps would have positions beyond the last.
  const std::string position =
      writer.node("Clip", {writer.node("Add", {step, first}), writer.constant_int({}, {0}),
                           writer.constant_int({}, {at_.positions - 1})});
  const std::string rows = writer.node("Gather", {writer.param(at_.rows.id), position});
  const std::string scaled = writer.node("Mul", {x, writer.constant({}, {at_.scale})});
  writer.bind(at_.out, writer.node("Add", {scaled, rows}));
}

// -------------------------------------------------------------------------------------- block
//
// A block works group by group: the rows of some groups are gathered so that those of a group lie
// one after another, go through the block while they are in cache, and are scattered back. What
// backward needs is kept in that order. Scores exist a tile of queries at a time and are made again
// in backward; so are the draws of dropout.

struct BlockParts {
  TensorId x, out;
  std::int32_t d, heads;
  float epsilon;
  OpParam gamma1, beta1, query, query_bias, keys_values, keys_values_bias;
  OpParam gamma2, beta2, kernel1, bias1, kernel2, bias2;
  std::int32_t head_width() const { return d / heads; }
};

struct Packed {
  float *query, *query_back;              // (D, D)
  float *keys_values, *keys_values_back;  // (D, 2D)
  float *first, *first_back;              // (D, D)
  float *second, *second_back;            // (D, D)
};

Packed carve_packed(const BlockParts& at, Carve& carve) {
  const std::int32_t d = at.d;
  const std::size_t square = kernels().packed_floats(d, d);
  Packed packed;
  packed.query = carve.take(square);
  packed.query_back = carve.take(square);
  packed.keys_values = carve.take(kernels().packed_floats(d, 2 * d));
  packed.keys_values_back = carve.take(kernels().packed_floats(2 * d, d));
  packed.first = carve.take(square);
  packed.first_back = carve.take(square);
  packed.second = carve.take(square);
  packed.second_back = carve.take(square);
  return packed;
}

// Rows in the order of groups.
struct Saved {
  float* query;          // (rows, D)
  float* keys_values;    // (rows, 2D)
  float* y;              // (rows, D)
  float* hidden;         // (rows, D) behind relu and dropout
  float *norm1, *norm2;  // (rows, 2)
  float* softmax;        // (rows, heads, 2): of a group, head by head
};

Saved carve_saved(const BlockParts& at, const Layout& layout, Carve& carve) {
  const std::int32_t rows = layout.history_rows;
  Saved saved;
  saved.query = carve.take(rows, at.d);
  saved.keys_values = carve.take(rows, 2 * at.d);
  saved.y = carve.take(rows, at.d);
  saved.hidden = carve.take(rows, at.d);
  saved.norm1 = carve.take(rows, 2);
  saved.norm2 = carve.take(rows, 2);
  saved.softmax = carve.take(rows, 2 * at.heads);
  return saved;
}

// Rows of one chunk, and what attention needs of one head of one group.
struct Scratch {
  float* x;             // (chunk, D)
  float* z;             // (chunk, D)
  float* out;           // (chunk, D) of the feed-forward net, or its gradient
  float* q;             // (chunk, D) the normalised x, in backward
  float* dz;            // (chunk, D)
  float* dhidden;       // (chunk, D)
  float* dquery;        // (chunk, D)
  float* dkeys_values;  // (chunk, 2D)
  float* score;         // (tile, score_width)
  float* dscore;        // (tile, score_width)
  // Packed, a tile of keys after another: K^T and V^T (head width, tile), K and V (tile, head
  // width).
  float *keys_across, *keys, *values_across, *values;
  std::int32_t score_width;
  std::size_t across_floats, along_floats;  // of a tile
};

Scratch carve_scratch(const BlockParts& at, const Layout& layout, Carve& carve) {
  const std::int32_t chunk = kChunkRows + layout.steps();
  const std::int32_t tiles = (layout.steps() + kTile - 1) / kTile;
  Scratch scratch;
  for (float** rows : {&scratch.x, &scratch.z, &scratch.out, &scratch.q, &scratch.dz,
                       &scratch.dhidden, &scratch.dquery}) {
    *rows = carve.take(chunk, at.d);
  }
  scratch.dkeys_values = carve.take(chunk, 2 * at.d);
  scratch.score_width = tiles * kTile;
  scratch.score = carve.take(kTile, scratch.score_width);
  scratch.dscore = carve.take(kTile, scratch.score_width);
  scratch.across_floats = kernels().packed_floats(at.head_width(), kTile);
  scratch.along_floats = kernels().packed_floats(kTile, at.head_width());
  scratch.keys_across = carve.take(tiles, scratch.across_floats);
  scratch.values_across = carve.take(tiles, scratch.across_floats);
  scratch.keys = carve.take(tiles, scratch.along_floats);
  scratch.values = carve.take(tiles, scratch.along_floats);
  return scratch;
}

// Groups that go through a block together; rows in the order of groups.
struct Chunk {
  std::int32_t group = 0, end = 0;  // groups [group, end)
  std::int32_t row = 0, rows = 0;
};

template <class Body>
void for_chunks(const Layout& layout, Body body) {
  for (Chunk chunk; chunk.end < layout.groups;) {
    chunk.group = chunk.end;
    chunk.row += chunk.rows;
    for (chunk.rows = 0; chunk.end < layout.groups && chunk.rows < kChunkRows; ++chunk.end) {
      chunk.rows += layout.lengths[chunk.end];
    }
    body(chunk);
  }
}

// body(group, its first row within the chunk).
template <class Body>
void for_groups(const Layout& layout, const Chunk& chunk, Body body) {
  std::int32_t row = 0;
  for (std::int32_t g = chunk.group; g < chunk.end; ++g) {
    body(g, row);
    row += layout.lengths[g];
  }
}

// body(first, size, tile) over tiles of n rows.
template <class Body>
void for_tiles(std::int32_t n, Body body) {
  for (std::int32_t first = 0, tile = 0; first < n; first += kTile, ++tile) {
    body(first, std::min(kTile, n - first), tile);
  }
}

// One head of one group: T rows of queries, keys and values, and how its draws are numbered.
struct Head {
  std::int32_t rows;
  const float *query, *key, *value;  // rows are D, 2D, 2D apart
  float* softmax;                    // (T, 2)
  Drop drop;
  std::uint32_t number;  // of the first row's first weight; rows are `steps` apart
  std::int32_t steps;
  float scale;
};

class TransformerBlock final : public Op {
 public:
  TransformerBlock(std::string name, BlockParts parts, float dropout)
      : name_(std::move(name)),
        at_(parts),
        drop_weights_(name_ + "/attention", dropout),
        drop_hidden_(name_ + "/hidden", dropout),
        drop_out_(name_ + "/out", dropout) {}

  std::string name() const override { return name_; }
  std::vector<TensorId> inputs() const override { return {at_.x}; }
  std::vector<TensorId> outputs() const override { return {at_.out}; }
  void place_params(const std::vector<ParamSpec>& params) override {
    for (OpParam* p : {&at_.gamma1, &at_.beta1, &at_.query, &at_.query_bias, &at_.keys_values,
                       &at_.keys_values_bias, &at_.gamma2, &at_.beta2, &at_.kernel1, &at_.bias1,
                       &at_.kernel2, &at_.bias2}) {
      p->place(params);
    }
  }
  std::size_t packed_floats() const override {
    Carve carve(nullptr);
    carve_packed(at_, carve);
    return carve.floats();
  }
  void pack(const float* params, float* memory) const override {
    Carve carve(memory);
    const Packed packed = carve_packed(at_, carve);
    pack_both(at_.query.in(params), at_.d, packed.query, packed.query_back);
    pack_both(at_.keys_values.in(params), 2 * at_.d, packed.keys_values, packed.keys_values_back);
    pack_both(at_.kernel1.in(params), at_.d, packed.first, packed.first_back);
    pack_both(at_.kernel2.in(params), at_.d, packed.second, packed.second_back);
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
    const Work work(*this, context);
    for_chunks(*context.layout, [&](const Chunk& chunk) { forward_chunk(work, chunk); });
  }
  void backward(const OpContext& context) const override {
    const Work work(*this, context);
    for_chunks(*context.layout, [&](const Chunk& chunk) { backward_chunk(work, chunk); });
  }
  void emit_onnx(GraphWriter& writer) const override;

 private:
  struct Work {
    const OpContext& context;
    const Layout& layout;
    Packed packed;
    Saved saved;
    Scratch scratch;
    Work(const TransformerBlock& op, const OpContext& c) : context(c), layout(*c.layout) {
      Carve packed_memory(const_cast<float*>(c.packed)), saved_memory(c.saved),
          scratch_memory(c.scratch);
      packed = carve_packed(op.at_, packed_memory);
      saved = carve_saved(op.at_, layout, saved_memory);
      scratch = carve_scratch(op.at_, layout, scratch_memory);
    }
    // The gradient of a parameter.
    float* d(const OpParam& param) const { return param.in(context.dparams); }
    const float* in(const OpParam& param) const { return param.in(context.params); }
  };

  // w (D, n).
  void pack_both(const float* w, std::int32_t n, float* forward, float* back) const {
    kernels().pack(w, n, at_.d, n, false, forward);
    kernels().pack(w, n, n, at_.d, true, back);
  }
  // First rows of the steps, as keys: from the first row of a group on, those of its history.
  static const std::uint32_t* steps_of(const Layout& layout) {
    return reinterpret_cast<const std::uint32_t*>(layout.step_offset.data());
  }
  void gather(const Work& work, const Chunk& chunk, const Matrix& from, float* to) const {
    for_groups(work.layout, chunk, [&](std::int32_t g, std::int32_t row) {
      kernels().gather_rows(from.row(g), from.stride, steps_of(work.layout),
                            to + floats(row, at_.d), at_.d, work.layout.lengths[g], at_.d);
    });
  }
  std::size_t at(const Chunk& chunk) const { return floats(chunk.row, at_.d); }

  void forward_chunk(const Work& work, const Chunk& chunk) const {
    const Kernels& k = kernels();
    const std::int32_t d = at_.d, rows = chunk.rows;
    const Scratch& s = work.scratch;
    float* query = work.saved.query + at(chunk);
    float* y = work.saved.y + at(chunk);
    float* hidden = work.saved.hidden + at(chunk);
    const auto number = static_cast<std::uint32_t>(at(chunk));
    gather(work, chunk, work.context.value(at_.x), s.x);
    // y begins as what the residual adds.
    k.layer_norm(s.x, d, work.in(at_.gamma1), work.in(at_.beta1), at_.epsilon, y, d,
                 work.saved.norm1 + floats(chunk.row, 2), rows, d);
    k.gemm(y, d, work.packed.query, work.in(at_.query_bias), query, d, rows, d, d, false);
    k.gemm(s.x, d, work.packed.keys_values, work.in(at_.keys_values_bias),
           work.saved.keys_values + 2 * at(chunk), 2 * d, rows, d, 2 * d, false);
    for_heads(work, chunk, [&](const Head& head, std::int32_t row, std::int32_t column) {
      attend(s, head, y + floats(row, d) + column);
    });
    k.layer_norm(y, d, work.in(at_.gamma2), work.in(at_.beta2), at_.epsilon, s.z, d,
                 work.saved.norm2 + floats(chunk.row, 2), rows, d);
    k.gemm(s.z, d, work.packed.first, work.in(at_.bias1), hidden, d, rows, d, d, false);
    k.relu_dropout(drop_hidden_.in(work.context), number, hidden, floats(rows, d));
    k.gemm(hidden, d, work.packed.second, work.in(at_.bias2), s.out, d, rows, d, d, false);
    k.dropout_add(drop_out_.in(work.context), number, s.out, s.z, floats(rows, d));
    const Matrix out = work.context.value(at_.out);
    for_groups(work.layout, chunk, [&](std::int32_t g, std::int32_t row) {
      k.scatter_rows(s.z + floats(row, d), d, steps_of(work.layout), out.row(g), out.stride,
                     work.layout.lengths[g], d);
    });
  }

  // body(head, its group's first row in the chunk, its first column).
  template <class Body>
  void for_heads(const Work& work, const Chunk& chunk, Body body) const {
    const std::int32_t d = at_.d, width = at_.head_width(), steps = work.layout.steps();
    Head head;
    head.drop = drop_weights_.in(work.context);
    head.steps = steps;
    head.scale = 1 / std::sqrt(static_cast<float>(width));
    for_groups(work.layout, chunk, [&](std::int32_t g, std::int32_t row) {
      head.rows = work.layout.lengths[g];
      for (std::int32_t h = 0; h < at_.heads; ++h) {
        const std::int32_t column = h * width;
        head.query = work.saved.query + at(chunk) + floats(row, d) + column;
        head.key = work.saved.keys_values + 2 * (at(chunk) + floats(row, d)) + column;
        head.value = head.key + d;
        head.softmax = work.saved.softmax + floats((chunk.row + row) * at_.heads, 2) +
                       floats(h * head.rows, 2);
        head.number = static_cast<std::uint32_t>(g * at_.heads + h) *
                      static_cast<std::uint32_t>(steps) * static_cast<std::uint32_t>(steps);
        body(head, row, column);
      }
    });
  }

  // Adds to y (T, head width) what its rows see.
  void attend(const Scratch& s, const Head& head, float* y) const {
    const Kernels& k = kernels();
    const std::int32_t d = at_.d, width = at_.head_width();
    for_tiles(head.rows, [&](std::int32_t first, std::int32_t size, std::int32_t tile) {
      const std::size_t row = floats(first, 2 * d);
      k.pack(head.key + row, 2 * d, width, size, true, s.keys_across + tile * s.across_floats);
      k.pack(head.value + row, 2 * d, size, width, false, s.values + tile * s.along_floats);
    });
    for_tiles(head.rows, [&](std::int32_t first, std::int32_t size, std::int32_t) {
      const std::int32_t seen = first + size;
      scores(s.keys_across, s, head.query + floats(first, d), size, seen, s.score);
      k.softmax_prefix(s.score, s.score_width, head.scale, first, head.drop,
                       head.number + static_cast<std::uint32_t>(first * head.steps), head.steps,
                       head.softmax + floats(first, 2), size, seen);
      for_tiles(seen, [&](std::int32_t key, std::int32_t keys, std::int32_t tile) {
        k.gemm(s.score + key, s.score_width, s.values + tile * s.along_floats, nullptr,
               y + floats(first, d), d, size, keys, width, true);
      });
    });
  }

  // out (rows, seen) = the products of rows of `a` with the rows that `packed` holds across.
  void scores(const float* packed, const Scratch& s, const float* a, std::int32_t rows,
              std::int32_t seen, float* out) const {
    for_tiles(seen, [&](std::int32_t key, std::int32_t keys, std::int32_t tile) {
      kernels().gemm(a, at_.d, packed + tile * s.across_floats, nullptr, out + key, s.score_width,
                     rows, at_.head_width(), keys, false);
    });
  }

  void backward_chunk(const Work& work, const Chunk& chunk) const {
    const Kernels& k = kernels();
    const std::int32_t d = at_.d, rows = chunk.rows;
    const Scratch& s = work.scratch;
    const float* hidden = work.saved.hidden + at(chunk);
    const float* y = work.saved.y + at(chunk);
    const float* norm2 = work.saved.norm2 + floats(chunk.row, 2);
    const auto number = static_cast<std::uint32_t>(at(chunk));
    gather(work, chunk, work.context.grad(at_.out), s.dz);
    k.dropout(drop_out_.in(work.context), number, s.dz, s.out, floats(rows, d));
    layer_backward(hidden, s.out, d, rows, work.d(at_.kernel2), work.d(at_.bias2));
    k.gemm(s.out, d, work.packed.second_back, nullptr, s.dhidden, d, rows, d, d, false);
    k.relu_dropout_backward(work.context.training ? drop_hidden_.rate() : 0, hidden, s.dhidden,
                            floats(rows, d));
    k.layer_norm_again(y, d, norm2, work.in(at_.gamma2), work.in(at_.beta2), s.z, d, rows, d);
    layer_backward(s.z, s.dhidden, d, rows, work.d(at_.kernel1), work.d(at_.bias1));
    k.gemm(s.dhidden, d, work.packed.first_back, nullptr, s.dz, d, rows, d, d, true);
    // From here on dz is the gradient of y.
    k.layer_norm_backward(y, d, norm2, work.in(at_.gamma2), s.dz, d, s.dz, d, work.d(at_.gamma2),
                          work.d(at_.beta2), rows, d, false);
    attention_backward(work, chunk);
  }

  void attention_backward(const Work& work, const Chunk& chunk) const {
    const Kernels& k = kernels();
    const std::int32_t d = at_.d, rows = chunk.rows;
    const Scratch& s = work.scratch;
    const float* norm1 = work.saved.norm1 + floats(chunk.row, 2);
    std::fill_n(s.dkeys_values, floats(rows, 2 * d), 0.0f);
    for_heads(work, chunk, [&](const Head& head, std::int32_t row, std::int32_t column) {
      attend_backward(s, head, floats(row, d) + column, 2 * floats(row, d) + column);
    });
    gather(work, chunk, work.context.value(at_.x), s.x);
    k.layer_norm_again(s.x, d, norm1, work.in(at_.gamma1), work.in(at_.beta1), s.q, d, rows, d);
    layer_backward(s.q, s.dquery, d, rows, work.d(at_.query), work.d(at_.query_bias));
    layer_backward(s.x, s.dkeys_values, 2 * d, rows, work.d(at_.keys_values),
                   work.d(at_.keys_values_bias));
    // dz becomes the gradient of the normalised x.
    k.gemm(s.dquery, d, work.packed.query_back, nullptr, s.dz, d, rows, d, d, true);
    k.gemm(s.dkeys_values, 2 * d, work.packed.keys_values_back, nullptr, s.out, d, rows, 2 * d, d,
           false);
    k.layer_norm_backward(s.x, d, norm1, work.in(at_.gamma1), s.dz, d, s.out, d, work.d(at_.gamma1),
                          work.d(at_.beta1), rows, d, true);
    const Matrix dx = work.context.grad(at_.x);
    if (dx.data == nullptr) return;
    for_groups(work.layout, chunk, [&](std::int32_t g, std::int32_t row) {
      k.scatter_add_rows(s.out + floats(row, d), d, steps_of(work.layout), dx.row(g), dx.stride,
                         work.layout.lengths[g], d);
    });
  }

  // Gradients of a layer's kernel (D, n) and bias from those of its result.
  void layer_backward(const float* x, const float* dout, std::int32_t n, std::int32_t rows,
                      float* dkernel, float* dbias) const {
    kernels().gemm_tn(x, at_.d, dout, n, dkernel, n, rows, at_.d, n);
    kernels().column_sum(dout, n, rows, n, dbias);
  }

  // From dz at `place` to dquery there, and onto dkeys_values at `place2`.
  void attend_backward(const Scratch& s, const Head& head, std::size_t place,
                       std::size_t place2) const {
    const Kernels& k = kernels();
    const std::int32_t d = at_.d, width = at_.head_width();
    for_tiles(head.rows, [&](std::int32_t first, std::int32_t size, std::int32_t tile) {
      const float* key = head.key + floats(first, 2 * d);
      const float* value = head.value + floats(first, 2 * d);
      k.pack(key, 2 * d, width, size, true, s.keys_across + tile * s.across_floats);
      k.pack(value, 2 * d, width, size, true, s.values_across + tile * s.across_floats);
      k.pack(key, 2 * d, size, width, false, s.keys + tile * s.along_floats);
    });
    for_tiles(head.rows, [&](std::int32_t first, std::int32_t size, std::int32_t) {
      const std::int32_t seen = first + size;
      const float* query = head.query + floats(first, d);
      const float* dy = s.dz + place + floats(first, d);
      float* dquery = s.dquery + place + floats(first, d);
      scores(s.keys_across, s, query, size, seen, s.score);
      scores(s.values_across, s, dy, size, seen, s.dscore);
      k.softmax_prefix_backward(s.score, s.dscore, s.score_width, head.scale, first, head.drop,
                                head.number + static_cast<std::uint32_t>(first * head.steps),
                                head.steps, head.softmax + floats(first, 2), size, seen);
      for_tiles(seen, [&](std::int32_t key, std::int32_t keys, std::int32_t tile) {
        float* dkey = s.dkeys_values + place2 + floats(key, 2 * d);
        k.gemm(s.dscore + key, s.score_width, s.keys + tile * s.along_floats, nullptr, dquery, d,
               size, keys, width, tile > 0);
        k.gemm_tn(s.dscore + key, s.score_width, query, d, dkey, 2 * d, size, keys, width);
        k.gemm_tn(s.score + key, s.score_width, dy, d, dkey + d, 2 * d, size, keys, width);
      });
    });
  }

  std::string name_;
  BlockParts at_;
  DropPlace drop_weights_, drop_hidden_, drop_out_;
};

// x (T, G, D); attention in (G, heads, T, head width).
void TransformerBlock::emit_onnx(GraphWriter& writer) const {
  const std::string x = writer.tensor(at_.x);
  const auto layer = [&](const std::string& in, const OpParam& kernel, const OpParam& bias) {
    return writer.node(
        "Add", {writer.node("MatMul", {in, writer.param(kernel.id)}), writer.param(bias.id)});
  };
  const auto in_heads = [&](const std::string& in, std::vector<std::int64_t> order) {
    const std::string split =
        writer.node("Reshape", {in, writer.constant_int({4}, {0, 0, at_.heads, at_.head_width()})});
    return writer.node("Transpose", {split}, {{"perm", std::move(order)}});
  };
  const std::string q = onnx_layer_norm(writer, x, at_.gamma1.id, at_.beta1.id, at_.epsilon);
  const std::string keys_values = layer(x, at_.keys_values, at_.keys_values_bias);
  const auto half = [&](std::int64_t first) {
    return writer.node("Slice",
                       {keys_values, writer.constant_int({1}, {first}),
                        writer.constant_int({1}, {first + at_.d}), writer.constant_int({1}, {2})});
  };
  const std::string query = in_heads(layer(q, at_.query, at_.query_bias), {1, 2, 0, 3});
  std::string score = writer.node("MatMul", {query, in_heads(half(0), {1, 2, 3, 0})});
  score = writer.node(
      "Div", {score, writer.constant({}, {std::sqrt(static_cast<float>(at_.head_width()))})});
  // Padding is later than every real step, so what hides the future hides it as well.
  const std::string steps =
      writer.node("Gather", {writer.node("Shape", {x}), writer.constant_int({}, {0})});
  const std::string step =
      writer.node("Range", {writer.constant_int({}, {0}), steps, writer.constant_int({}, {1})});
  const std::string later =
      writer.node("Less", {writer.node("Unsqueeze", {step, writer.constant_int({1}, {1})}), step});
  score = writer.node("Where", {later, writer.constant({}, {-1e30f}), score});
  const std::string weight = writer.node("Softmax", {score}, {{"axis", std::int64_t{-1}}});
  const std::string seen = writer.node("MatMul", {weight, in_heads(half(at_.d), {1, 2, 0, 3})});
  const std::string back =
      writer.node("Transpose", {seen}, {{"perm", std::vector<std::int64_t>{2, 0, 1, 3}}});
  const std::string joined =
      writer.node("Reshape", {back, writer.constant_int({3}, {0, 0, at_.d})});
  const std::string y = writer.node("Add", {q, joined});
  const std::string z = onnx_layer_norm(writer, y, at_.gamma2.id, at_.beta2.id, at_.epsilon);
  const std::string hidden = writer.node("Relu", {layer(z, at_.kernel1, at_.bias1)});
  writer.bind(at_.out, writer.node("Add", {z, layer(hidden, at_.kernel2, at_.bias2)}));
}

}  // namespace

TensorId add_positions(Graph& graph, std::string name, TensorId x, std::int32_t positions,
                       float scale, float dropout) {
  CHECK(graph.spec(x).rows == Rows::kHistory) << name;
  CHECK_GE(positions, 1) << name;
  PositionParts parts;
  parts.x = x;
  parts.width = graph.spec(x).width;
  parts.out = graph.tensor(Rows::kHistory, parts.width);
  parts.positions = positions;
  parts.scale = scale;
  parts.rows.id = graph.param(name + "/rows", positions, parts.width, {Init::kGlorotUniform});
  graph.add(std::make_unique<AddPositions>(std::move(name), parts, dropout));
  return parts.out;
}

TensorId transformer_block(Graph& graph, std::string name, TensorId x,
                           const TransformerOptions& options) {
  CHECK(graph.spec(x).rows == Rows::kHistory) << name;
  BlockParts parts;
  parts.x = x;
  parts.d = graph.spec(x).width;
  parts.out = graph.tensor(Rows::kHistory, parts.d);
  parts.heads = options.heads;
  parts.epsilon = options.epsilon;
  CHECK(parts.heads >= 1 && parts.d % parts.heads == 0) << name << ": " << parts.heads << " heads";
  const auto row = [&](const std::string& of, std::int32_t width, float value) {
    return graph.param(name + of, 1, width, {Init::kConstant, value});
  };
  const auto layer = [&](const std::string& of, std::int32_t width, OpParam& kernel,
                         OpParam& bias) {
    // Keys and values are two layers side by side.
    const Init init{Init::kGlorotUniform, 0, parts.d, parts.d};
    kernel.id = graph.param(name + of + "/kernel", parts.d, width, init);
    bias.id = row(of + "/bias", width, 0.0f);
  };
  parts.gamma1.id = row("/attention/norm/gamma", parts.d, 1.0f);
  parts.beta1.id = row("/attention/norm/beta", parts.d, 0.0f);
  layer("/attention/query", parts.d, parts.query, parts.query_bias);
  layer("/attention/keys_values", 2 * parts.d, parts.keys_values, parts.keys_values_bias);
  parts.gamma2.id = row("/feed_forward/norm/gamma", parts.d, 1.0f);
  parts.beta2.id = row("/feed_forward/norm/beta", parts.d, 0.0f);
  layer("/feed_forward/dense1", parts.d, parts.kernel1, parts.bias1);
  layer("/feed_forward/dense2", parts.d, parts.kernel2, parts.bias2);
  graph.add(std::make_unique<TransformerBlock>(std::move(name), parts, options.dropout));
  return parts.out;
}

TensorId transformer(Graph& graph, const std::string& name, TensorId history,
                     const TransformerOptions& options) {
  const float scale = std::sqrt(static_cast<float>(graph.spec(history).width));
  TensorId x =
      add_positions(graph, name + "/positions", history, options.positions, scale, options.dropout);
  for (std::int32_t b = 1; b <= options.blocks; ++b) {
    x = transformer_block(graph, name + "/block" + std::to_string(b), x, options);
  }
  return layer_norm(graph, name + "/norm", x, options.epsilon);
}

}  // namespace meander::nn
