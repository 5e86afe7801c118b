// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/embedding.h"

#include <cstring>
#include <memory>
#include <utility>

#include "common/check.h"
#include "nn/graph_writer.h"

namespace meander::nn {
namespace {

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
};

class Embedding final : public Op {
 public:
  Embedding(std::string name, Source source, std::vector<Column> columns, TensorId out)
      : name_(std::move(name)), source_(source), columns_(std::move(columns)), out_(out) {}

  std::string name() const override { return name_; }
  std::vector<TensorId> inputs() const override { return {}; }
  std::vector<TensorId> outputs() const override { return {out_}; }

  void forward(const OpContext& context) const override {
    if (source_ == Source::kNegative && !context.training) return;
    const Matrix out = context.value(out_);
    for (const Column& column : columns_) {
      gather(context.tables[column.table], keys(context, column), out, column.first_column);
    }
  }

  void backward(const OpContext& context) const override {
    const Matrix dout = context.grad(out_);
    for (const Column& column : columns_) {
      scatter_add(dout, column.first_column, keys(context, column), context.dtables[column.table]);
    }
  }

  void emit_onnx(GraphWriter& writer) const override {
    if (source_ == Source::kNegative) return;
    std::vector<std::string> parts;
    for (const Column& column : columns_) parts.push_back(writer.embedding(source_, column.slot));
    writer.bind(out_, parts.size() == 1
                          ? parts[0]
                          : writer.node("Concat", parts, {{"axis", std::int64_t{-1}}}));
  }

 private:
  Keys keys(const OpContext& context, const Column& column) const {
    const auto& columns = context.input->columns[static_cast<int>(source_)];
    CHECK_LT(static_cast<std::size_t>(column.slot), columns.size()) << name_;
    const Keys keys = columns[column.slot];
    CHECK_EQ(keys.size(), static_cast<std::size_t>(context.value(out_).rows)) << name_;
    return keys;
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
    columns.push_back({slot, spec.table, width});
    width += spec.width;
  }
  if (source == Source::kNegative) graph.set_needs_negatives();
  const Rows rows = source == Source::kTarget ? Rows::kSample : Rows::kHistory;
  const TensorId out = graph.tensor(rows, width);
  graph.add(std::make_unique<Embedding>(std::move(name), source, std::move(columns), out));
  return out;
}

}  // namespace meander::nn
