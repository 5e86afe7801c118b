// SPDX-License-Identifier: Apache-2.0
#include "launch/node_rows.h"

#include <algorithm>

#include "common/check.h"
#include "nn/ops/gcn.h"
#include "nn/ops/light_gcn.h"

namespace meander::launch {
namespace {

// Slots item and user, each with a table of its own (models/model.cc).
constexpr std::size_t kItem = 0, kUser = 1;

std::vector<std::uint64_t> ids_of(const Plan& plan, std::size_t slot) {
  std::vector<std::uint64_t> ids;
  if (slot == kItem) {
    for (const data::ItemEntry& item : plan.log->items()) ids.push_back(item.item);
  } else {
    for (const data::Shard& shard : plan.log->shards()) {
      for (const data::UserEntry& user : shard.users) ids.push_back(user.id);
    }
    std::ranges::sort(ids);
  }
  return ids;
}

// Rows as a graph has them: by id, `width` floats each.
struct ById {
  std::vector<std::uint64_t> ids;
  std::int32_t width = 0;
  std::vector<float> rows;

  ById(std::vector<std::uint64_t> of, std::int32_t w) : ids(std::move(of)), width(w) {
    rows.resize(ids.size() * width);
  }
  nn::Matrix view() { return {rows.data(), static_cast<std::int32_t>(ids.size()), width, width}; }
};

ById trained(const Plan& plan, std::span<const artefact::TableRows> tables, std::size_t slot) {
  const artefact::TableRows& table = tables[plan.train.slots[slot].table];
  ById out(ids_of(plan, slot), static_cast<std::int32_t>(table.width));
  for (std::size_t n = 0; n < out.ids.size(); ++n) {
    const std::size_t at = table.index_of(out.ids[n]);
    CHECK_LT(at, table.keys.size()) << "every id of the log was asked for";
    std::copy_n(&table.rows[at * table.width], table.width, &out.rows[n * table.width]);
  }
  return out;
}

// As a table of mf: by signed key, a bias of 0 behind each row.
artefact::TableRows as_table(const ById& of, const artefact::TableRows& before) {
  artefact::TableRows table;
  table.name = before.name;
  table.width = static_cast<std::uint32_t>(of.width) + 1;
  table.stored = of.ids.size();
  for (const std::uint64_t id : of.ids) table.keys.push_back(static_cast<std::int64_t>(id));
  std::ranges::sort(table.keys);
  table.rows.resize(table.keys.size() * table.width);
  for (std::size_t n = 0; n < of.ids.size(); ++n) {
    std::copy_n(&of.rows[n * of.width], of.width,
                &table.rows[table.index_of(of.ids[n]) * table.width]);
  }
  return table;
}

nn::ConstMatrix param(const nn::Graph& graph, const std::string& name,
                      std::span<const float> dense) {
  const auto spec = std::ranges::find(graph.params(), name, &nn::ParamSpec::name);
  CHECK(spec != graph.params().end()) << name;
  return {dense.data() + spec->offset, spec->rows, spec->cols, spec->cols};
}

}  // namespace

Result<NodeRows> node_rows(const Plan& plan, std::span<const artefact::TableRows> tables,
                           std::span<const float> dense) {
  const models::GraphKind kind = models::graph_of(plan.model.kind);
  if (kind == models::GraphKind::kDrawn) {
    return invalid("model " + plan.model.kind +
                   " has no export: what it says of a node is drawn anew for each batch");
  }
  CHECK(kind != models::GraphKind::kNone) << plan.model.kind;
  const bool has_nodes = kind == models::GraphKind::kNodes;
  const std::int32_t width = has_nodes ? plan.model.classes : plan.model.slots[kItem].width;
  ById items(ids_of(plan, kItem), width), users(ids_of(plan, kUser), width);
  if (has_nodes) {
    nn::gcn_scores(*plan.model.adjacency, *plan.model.features,
                   param(*plan.graph, "gcn/kernel0", dense),
                   param(*plan.graph, "gcn/kernel1", dense), users.view());
    for (std::int32_t c = 0; c < width; ++c) items.rows[c * width + c] = 1;
  } else {
    ById of_users = trained(plan, tables, kUser), of_items = trained(plan, tables, kItem);
    nn::propagate_all(*plan.model.adjacency, plan.model.layers, of_users.view(), of_items.view(),
                      users.view(), items.view());
  }
  NodeRows out;
  out.model.kind = "mf";
  out.model.positions = 0;
  for (const std::size_t slot : {kItem, kUser}) {
    const nn::SlotSpec& of = plan.model.slots[slot];
    out.model.slots.push_back({of.name, of.table, width + 1, of.in_history});
  }
  out.tables.resize(2);
  for (const std::size_t slot : {kItem, kUser}) {
    const std::size_t table = plan.train.slots[slot].table;
    out.tables[table] = as_table(slot == kItem ? items : users, tables[table]);
  }
  return out;
}

}  // namespace meander::launch
