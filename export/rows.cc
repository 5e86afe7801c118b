// SPDX-License-Identifier: Apache-2.0
#include "export/rows.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>

#include "checkpoint/generation.h"
#include "common/initial_row.h"
#include "common/partition.h"

namespace meander::artefact {
namespace {

using checkpoint::Record;

// Every record of a table that has a row of its own.
Status visit_rows(Storage& storage, const checkpoint::Chain& chain, std::uint32_t table,
                  const std::function<Status(const Record&)>& visit) {
  return checkpoint::read_table(
      storage, chain, table, 0, kPartitions - 1,
      [&](const Record& record) -> Status { return record.admitted ? visit(record) : Status(); });
}

Status check_table(const checkpoint::Link& generation, std::uint32_t table) {
  const int tables = generation.manifest.tables_size();
  if (table < static_cast<std::uint32_t>(tables)) return {};
  return invalid(generation.dir + ": has " + std::to_string(tables) +
                 " tables, the job's model needs more: is it of another job?");
}

// The rows in the order of their keys.
void sort_rows(TableRows& table) {
  std::vector<std::size_t> order(table.keys.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::sort(order, {}, [&](std::size_t i) { return table.keys[i]; });
  std::vector<std::int64_t> keys(order.size());
  std::vector<float> rows(table.rows.size());
  const std::size_t width = table.width;
  for (std::size_t i = 0; i < order.size(); ++i) {
    keys[i] = table.keys[order[i]];
    std::memcpy(&rows[i * width], &table.rows[order[i] * width], width * sizeof(float));
  }
  table.keys = std::move(keys);
  table.rows = std::move(rows);
}

}  // namespace

std::size_t TableRows::index_of(std::uint64_t key) const {
  const auto wanted = static_cast<std::int64_t>(key);
  const auto at = std::ranges::lower_bound(keys, wanted);
  return at != keys.end() && *at == wanted ? at - keys.begin() : keys.size();
}

Result<TableRows> load_table(Storage& storage, const checkpoint::Chain& chain, std::uint32_t index,
                             const wire::TableSpec& spec, std::vector<std::uint64_t> known) {
  RETURN_IF_ERROR(check_table(chain.back(), index));
  const std::string& dir = chain.back().dir;
  const manifest::Table& stored = chain.back().manifest.tables(static_cast<int>(index));
  if (stored.name() != spec.name() || stored.width() != spec.width()) {
    return invalid(dir + ": table " + std::to_string(index) + " is " + stored.name() +
                   " of width " + std::to_string(stored.width()) + ", the job's is " + spec.name() +
                   " of width " + std::to_string(spec.width()));
  }
  TableRows table;
  table.name = spec.name();
  table.width = spec.width();
  std::size_t rows = known.size();  // at most; a delta counts its own
  for (const checkpoint::Link& link : chain) {
    rows += link.manifest.tables(static_cast<int>(index)).rows();
  }
  table.keys.reserve(rows);
  table.rows.reserve(rows * table.width);
  RETURN_IF_ERROR(visit_rows(storage, chain, index, [&](const Record& record) -> Status {
    table.keys.push_back(static_cast<std::int64_t>(record.key));
    const auto weights = record.values.first(table.width);
    table.rows.insert(table.rows.end(), weights.begin(), weights.end());
    return {};
  }));
  sort_rows(table);
  table.stored = table.keys.size();

  std::ranges::sort(known);
  known.erase(std::ranges::unique(known).begin(), known.end());
  std::erase_if(known, [&](std::uint64_t key) { return table.index_of(key) != table.stored; });
  std::vector<float> row(table.width);
  for (const std::uint64_t key : known) {
    initial_row(spec.seed(), index, key, spec.init_range(), row);
    table.keys.push_back(static_cast<std::int64_t>(key));
    table.rows.insert(table.rows.end(), row.begin(), row.end());
  }
  sort_rows(table);
  return table;
}

Result<std::vector<float>> load_dense(Storage& storage, const checkpoint::Chain& chain,
                                      std::uint32_t table, std::size_t floats) {
  RETURN_IF_ERROR(check_table(chain.back(), table));
  const std::string& dir = chain.back().dir;
  const std::size_t width = chain.back().manifest.tables(static_cast<int>(table)).width();
  if (width == 0) return corrupt(dir + ": dense parameters in blocks of no floats");
  const std::size_t blocks = (floats + width - 1) / width;
  std::vector<float> dense(floats);
  std::vector<char> seen(blocks);
  RETURN_IF_ERROR(visit_rows(storage, chain, table, [&](const Record& record) -> Status {
    if (record.key >= blocks) {
      return invalid("dense block " + std::to_string(record.key) + " of a model with " +
                     std::to_string(blocks) + ": is it a checkpoint of another model?");
    }
    const std::size_t first = record.key * width, count = std::min(width, floats - first);
    std::memcpy(&dense[first], record.values.data(), count * sizeof(float));
    seen[record.key] = 1;
    return {};
  }));
  if (const auto hole = std::ranges::find(seen, 0); hole != seen.end()) {
    return corrupt(dir + ": dense block " + std::to_string(hole - seen.begin()) + " of " +
                   std::to_string(blocks) + " is missing");
  }
  return dense;
}

}  // namespace meander::artefact
