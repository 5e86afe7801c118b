// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world/small_model.h"

#include <string>
#include <utility>
#include <vector>

#include "models/model.h"
#include "worker/dense_blocks.h"

namespace meander::sim {
namespace {

nn::Graph build_graph(const std::string& kind) {
  models::ModelSpec spec;
  spec.kind = kind;
  spec.slots = {{.name = "item", .table = 0, .width = 1, .in_history = true},
                {.name = "category", .table = 1, .width = 2, .in_history = true}};
  if (kind == "din") {
    spec.attention = {4, 3};
    spec.head = {4, 3};
    spec.dice = "moving";
  }
  Result<nn::Graph> graph = models::build_model(spec);
  CHECK(graph.ok()) << graph.status().message();
  return std::move(graph).value();
}

wire::Optimizer optimizer_of(bool is_counting) {
  wire::Optimizer optimizer;
  optimizer.set_kind(is_counting ? wire::Optimizer::SGD : wire::Optimizer::ADAM);
  optimizer.set_rate(is_counting ? 1.0f : 0.01f);
  optimizer.set_beta1(0.9f);
  optimizer.set_beta2(0.999f);
  optimizer.set_epsilon(1e-8f);
  return optimizer;
}

}  // namespace

const nn::Graph& graph_of(bool is_counting) {
  static const nn::Graph counting = build_graph("counting"), din = build_graph("din");
  return is_counting ? counting : din;
}

Tables tables_of(bool is_counting, const TableOptions& options) {
  Tables tables;
  const nn::Graph& graph = graph_of(is_counting);
  const auto add = [&](const std::string& name, std::uint32_t width) {
    wire::TableSpec& table = tables.specs.emplace_back();
    table.set_name(name);
    table.set_width(width);
    table.set_init_range(is_counting ? 0.0f : 0.1f);
    table.set_seed(3);
    *table.mutable_optimizer() = optimizer_of(is_counting);
  };
  for (std::int32_t t = 0; t < graph.tables(); ++t) {
    add("table" + std::to_string(t), graph.table_width(t));
    tables.specs.back().set_admit_count(options.admit_count);
    tables.specs.back().set_expire_steps(options.expire_steps);
    tables.specs.back().set_keep_count(options.keep_count);
  }
  const std::vector<float> dense = graph.initial_dense(1);
  for (const worker::DenseBlocks& blocks : worker::dense_tables(graph, kDenseBlock)) {
    std::vector<float> rows(blocks.blocks() * kDenseBlock);
    blocks.scatter(dense, rows);
    tables.presets.push_back({.table = static_cast<std::uint32_t>(tables.specs.size()),
                              .keys = blocks.keys(),
                              .rows = std::move(rows)});
    add("dense", kDenseBlock);
    if (blocks.first() == 0) continue;
    wire::Optimizer& sgd = *tables.specs.back().mutable_optimizer();
    sgd = {};
    sgd.set_kind(wire::Optimizer::SGD);
    sgd.set_rate(0.01f);
  }
  return tables;
}

}  // namespace meander::sim
