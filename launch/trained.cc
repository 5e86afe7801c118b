// SPDX-License-Identifier: Apache-2.0
#include "launch/trained.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "worker/dense_blocks.h"

namespace meander::launch {
namespace {

// Every id that the log has for a slot: what a request may ask for.
std::vector<std::uint64_t> known_ids(const data::PreparedLog& log, const data::SlotSpec& slot) {
  std::unordered_set<std::uint64_t> ids;
  if (slot.source == data::SlotSource::kItem) {
    for (const data::ItemEntry& item : log.items()) ids.insert(item.item);
  }
  for (const data::Shard& shard : log.shards()) {
    if (slot.source == data::SlotSource::kCategory) {
      ids.insert(shard.category.begin(), shard.category.end());
    } else if (slot.source == data::SlotSource::kUser) {
      for (const data::UserEntry& user : shard.users) ids.insert(user.id);
    } else if (slot.source == data::SlotSource::kContext) {
      const auto& column = shard.context[log.context_column(slot.column).value()];
      ids.insert(column.begin(), column.end());
    }
  }
  return {ids.begin(), ids.end()};
}

// A table of the vectors of items: those that the checkpoint's model was told, and any more.
artefact::TableRows rows_of(const data::Content& content, const std::string& name) {
  artefact::TableRows table;
  table.name = name;
  table.width = content.width();
  table.keys.assign(content.ids().begin(), content.ids().end());
  table.rows.assign(content.rows().begin(), content.rows().end() - content.width());
  table.stored = table.keys.size();
  return table;
}

}  // namespace

Result<Trained> load_trained(Storage& storage, const Plan& plan, const std::string& path,
                             bool with_known) {
  Trained trained;
  ASSIGN_OR_RETURN(trained.checkpoint, find_checkpoint(storage, plan, path));
  ASSIGN_OR_RETURN(trained.chain, checkpoint::open_chain(storage, trained.checkpoint.restore));
  const auto tables = static_cast<std::uint32_t>(plan.graph->tables());
  for (std::uint32_t t = 0; t < tables; ++t) {
    if (plan.graph->is_frozen(static_cast<std::int32_t>(t))) {
      trained.tables.push_back(rows_of(*plan.content, plan.tables[t].name()));
      continue;
    }
    std::vector<std::uint64_t> known;
    if (with_known) known = known_ids(*plan.log, plan.train.slots[t]);
    ASSIGN_OR_RETURN(auto table, artefact::load_table(storage, trained.chain, t, plan.tables[t],
                                                      std::move(known)));
    trained.tables.push_back(std::move(table));
  }
  trained.dense.resize(plan.graph->dense_size());
  const auto dense = worker::dense_tables(*plan.graph, worker::WorkerOptions().dense_block);
  for (std::size_t i = 0; i < dense.size(); ++i) {
    ASSIGN_OR_RETURN(const auto values,
                     artefact::load_dense(storage, trained.chain,
                                          tables + static_cast<std::uint32_t>(i), dense[i].size()));
    std::ranges::copy(values,
                      trained.dense.begin() + static_cast<std::ptrdiff_t>(dense[i].first()));
  }
  return trained;
}

}  // namespace meander::launch
