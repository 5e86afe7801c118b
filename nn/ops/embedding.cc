// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/embedding.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>

#include "common/check.h"
#include "nn/graph_writer.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

// Rows that are projected at once: they stay in cache between the look-up and the product.
constexpr std::int32_t kBlock = 128;

using Keys = std::span<const std::uint32_t>;

void gather(ConstMatrix table, Keys keys, Matrix out, std::int32_t first_column) {
  for (std::int32_t r = 0; r < out.rows; ++r) {
    DCHECK_LT(keys[r], static_cast<std::uint32_t>(table.rows));
    std::memcpy(out.row(r) + first_column, table.row(keys[r]), table.cols * sizeof(float));
  }
}

void scatter_add(ConstMatrix dout, std::int32_t first_column, Keys keys, Matrix dtable) {
  for (std::int32_t r = 0; r < dout.rows; ++r) {
    const float* __restrict from = dout.row(r) + first_column;
    float* __restrict to = dtable.row(keys[r]);
    for (std::int32_t c = 0; c < dtable.cols; ++c) to[c] += from[c];
  }
}

struct Column {
  std::int32_t slot, table, first_column;
  bool frozen;
  // Of a projected slot: what it is brought from and to, and by what.
  std::int32_t width, projected;
  OpParam kernel, bias;
};

class Embedding final : public Op {
 public:
  Embedding(std::string name, Source source, std::vector<Column> columns, TensorId out)
      : name_(std::move(name)), source_(source), columns_(std::move(columns)), out_(out) {}

  std::string name() const override { return name_; }
  std::vector<TensorId> inputs() const override { return {}; }
  std::vector<TensorId> outputs() const override { return {out_}; }
  void place_params(const std::vector<ParamSpec>& params) override {
    for (Column& column : columns_) {
      if (column.projected == 0) continue;
      column.kernel.place(params);
      column.bias.place(params);
    }
  }

  std::size_t packed_floats() const override {
    std::size_t floats = 0;
    for (const Column& column : columns_) floats += packed_floats(column);
    return floats;
  }
  void pack(const float* params, float* packed) const override {
    for (const Column& column : columns_) {
      if (column.projected == 0) continue;
      kernels().pack(column.kernel.in(params), column.projected, column.width, column.projected,
                     false, packed);
      packed += packed_floats(column);
    }
  }
  // A block of rows before their projection.
  std::size_t scratch_floats(const Layout& layout) const override {
    std::int32_t width = 0;
    for (const Column& column : columns_) {
      if (column.projected > 0) width = std::max(width, column.width);
    }
    return static_cast<std::size_t>(kBlock) * width;
  }

  void forward(const OpContext& context) const override {
    if (source_ == Source::kNegative && !context.training) return;
    const Matrix out = context.value(out_);
    const float* packed = context.packed;
    for (const Column& column : columns_) {
      if (column.projected == 0) {
        gather(context.tables[column.table], keys(context, column), out, column.first_column);
        continue;
      }
      project(context, column, packed, out);
      packed += packed_floats(column);
    }
  }

  void backward(const OpContext& context) const override {
    const Matrix dout = context.grad(out_);
    for (const Column& column : columns_) {
      if (column.projected > 0) {
        project_backward(context, column, dout);
      } else if (!column.frozen) {
        scatter_add(dout, column.first_column, keys(context, column),
                    context.dtables[column.table]);
      }
    }
  }

  void emit_onnx(GraphWriter& writer) const override {
    if (source_ == Source::kNegative) return;
    std::vector<std::string> parts;
    for (const Column& column : columns_) {
      std::string rows = writer.embedding(source_, column.slot);
      if (column.projected > 0) {
        rows = writer.node("MatMul", {rows, writer.param(column.kernel.id)});
        rows = writer.node("Add", {rows, writer.param(column.bias.id)});
      }
      parts.push_back(std::move(rows));
    }
    writer.bind(out_, parts.size() == 1
                          ? parts[0]
                          : writer.node("Concat", parts, {{"axis", std::int64_t{-1}}}));
  }

 private:
  static std::size_t packed_floats(const Column& column) {
    return column.projected == 0 ? 0 : kernels().packed_floats(column.width, column.projected);
  }

  Keys keys(const OpContext& context, const Column& column) const {
    const auto& columns = context.input->columns[static_cast<int>(source_)];
    CHECK_LT(static_cast<std::size_t>(column.slot), columns.size()) << name_;
    const Keys keys = columns[column.slot];
    CHECK_EQ(keys.size(), static_cast<std::size_t>(context.value(out_).rows)) << name_;
    return keys;
  }

  // Calls body(first, rows) with each block of looked-up rows.
  template <class Body>
  void each_block(const OpContext& context, const Column& column, const Body& body) const {
    const Keys all = keys(context, column);
    for (std::size_t first = 0; first < all.size(); first += kBlock) {
      const Keys block = all.subspan(first, std::min<std::size_t>(kBlock, all.size() - first));
      const Matrix rows{context.scratch, static_cast<std::int32_t>(block.size()), column.width,
                        column.width};
      gather(context.tables[column.table], block, rows, 0);
      body(static_cast<std::int32_t>(first), rows);
    }
  }

  void project(const OpContext& context, const Column& column, const float* packed,
               Matrix out) const {
    each_block(context, column, [&](std::int32_t first, Matrix rows) {
      kernels().gemm(rows.data, rows.stride, packed, column.bias.in(context.params),
                     out.row(first) + column.first_column, out.stride, rows.rows, column.width,
                     column.projected, false);
    });
  }

  void project_backward(const OpContext& context, const Column& column, ConstMatrix dout) const {
    each_block(context, column, [&](std::int32_t first, Matrix rows) {
      const float* d = dout.row(first) + column.first_column;
      kernels().gemm_tn(rows.data, rows.stride, d, dout.stride, column.kernel.in(context.dparams),
                        column.projected, rows.rows, column.width, column.projected);
      kernels().column_sum(d, dout.stride, rows.rows, column.projected,
                           column.bias.in(context.dparams));
    });
  }

  std::string name_;
  Source source_;
  std::vector<Column> columns_;
  TensorId out_;
};

}  // namespace

TensorId embedding(Graph& graph, std::string name, Source source, std::vector<std::int32_t> slots) {
  CHECK(!slots.empty()) << name;
  std::vector<Column> columns;
  std::int32_t width = 0;
  for (std::int32_t slot : slots) {
    const SlotSpec& spec = graph.slots().at(slot);
    CHECK(source == Source::kTarget || spec.in_history) << name << ": " << spec.name;
    Column& column = columns.emplace_back();
    column.slot = slot;
    column.table = spec.table;
    column.first_column = width;
    column.frozen = spec.frozen;
    column.width = spec.width;
    column.projected = spec.projected;
    if (spec.projected > 0) {
      column.kernel.id = graph.shared_param(spec.name + "/kernel", spec.width, spec.projected,
                                            {Init::kGlorotUniform});
      column.bias.id =
          graph.shared_param(spec.name + "/bias", 1, spec.projected, {Init::kConstant, 0.0f});
    }
    width += spec.columns();
  }
  if (source == Source::kNegative) graph.set_needs_negatives();
  const Rows rows = source == Source::kTarget ? Rows::kSample : Rows::kHistory;
  const TensorId out = graph.tensor(rows, width);
  graph.add(std::make_unique<Embedding>(std::move(name), source, std::move(columns), out));
  return out;
}

}  // namespace meander::nn
