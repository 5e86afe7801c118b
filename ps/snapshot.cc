// SPDX-License-Identifier: Apache-2.0
#include "ps/snapshot.h"

#include <cstdio>

#include "common/partition.h"

namespace meander::ps {
namespace {

std::string file_name(std::size_t table, PartitionRange range) {
  char name[64];
  std::snprintf(name, sizeof(name), "t%zu-p%05u-%05u.rows", table, range.first, range.last);
  return name;
}

Status check_same_tables(const std::string& dir, const manifest::Manifest& manifest,
                         const Tables& tables) {
  if (manifest.tables_size() != static_cast<int>(tables.size())) {
    return invalid(dir + ": has " + std::to_string(manifest.tables_size()) +
                   " tables, this run has " + std::to_string(tables.size()));
  }
  for (std::size_t t = 0; t < tables.size(); ++t) {
    const manifest::Table& stored = manifest.tables(static_cast<int>(t));
    if (stored.name() != tables[t]->name() || stored.width() != tables[t]->width() ||
        stored.state_width() != tables[t]->state_width()) {
      return invalid(dir + ": table " + stored.name() + " of " + std::to_string(stored.width()) +
                     " + " + std::to_string(stored.state_width()) + " floats is not this run's " +
                     tables[t]->name() + " of " + std::to_string(tables[t]->width()) + " + " +
                     std::to_string(tables[t]->state_width()));
    }
    if (!checkpoint::is_state_of(tables[t]->optimizer(), stored.optimizer())) {
      return invalid(dir + ": table " + stored.name() + " has the state of " + stored.optimizer() +
                     ", which is not that of this run's " +
                     checkpoint::optimizer_name(tables[t]->optimizer()));
    }
  }
  return {};
}

}  // namespace

PartitionRange lane_partitions(std::uint32_t lane, std::uint32_t lanes) {
  CHECK_LT(lane, lanes);
  // The first p with floor(p * lanes / kPartitions) == lane is the ceiling of its inverse.
  const auto first = [lanes](std::uint64_t l) {
    return static_cast<std::uint32_t>((l * kPartitions + lanes - 1) / lanes);
  };
  return {first(lane), first(lane + 1) - 1};
}

Status save_tables(Storage& storage, const std::string& dir, PartitionRange range,
                   const Tables& tables, wire::Saved& saved) {
  RETURN_IF_ERROR(storage.make_directories(dir));
  std::uint64_t digest = 0;
  for (std::size_t t = 0; t < tables.size(); ++t) {
    const Table& table = *tables[t];
    saved.add_table_steps(table.step());
    const std::string path = join_path(dir, file_name(t, range));
    const auto index = static_cast<std::uint32_t>(t);
    std::unique_ptr<checkpoint::RowsWriter> writer;
    RETURN_IF_ERROR(table.visit(range.first, range.last, [&](const checkpoint::Record& record) {
      if (writer == nullptr) {
        ASSIGN_OR_RETURN(writer, checkpoint::RowsWriter::create(
                                     storage, path, index, table.width() + table.state_width()));
      }
      digest += checkpoint::record_digest(index, record);
      return writer->add(record);
    }));
    if (writer == nullptr) continue;
    ASSIGN_OR_RETURN(const manifest::File file, writer->finish());
    wire::SavedFile& out = *saved.add_files();
    out.set_name(file.name());
    out.set_table(file.table());
    out.set_first_partition(file.first_partition());
    out.set_last_partition(file.last_partition());
    out.set_rows(file.rows());
    out.set_bytes(file.bytes());
    out.set_crc32c(file.crc32c());
  }
  saved.set_digest(digest);
  return {};
}

Status load_tables(Storage& storage, const std::string& dir, PartitionRange range, Tables& tables,
                   std::vector<wire::StreamApplied>& streams) {
  ASSIGN_OR_RETURN(const auto manifest, checkpoint::read_manifest(storage, dir));
  RETURN_IF_ERROR(check_same_tables(dir, manifest, tables));
  for (const manifest::File& file : manifest.files()) {
    if (file.last_partition() < range.first || file.first_partition() > range.last) continue;
    if (file.table() >= tables.size()) {
      return corrupt(dir + ": file " + file.name() + " is of a table that is not there");
    }
    Table& table = *tables[file.table()];
    RETURN_IF_ERROR(checkpoint::read_rows(
        storage, join_path(dir, file.name()), file, range.first, range.last,
        [&](const checkpoint::Record& record) { return table.restore(record); }));
  }
  for (std::size_t t = 0; t < tables.size(); ++t) {
    const std::uint64_t step = manifest.tables(static_cast<int>(t)).step();
    if (step > RowStore::kStepMax) return corrupt(dir + ": impossible step of a table");
    tables[t]->set_step(step);
  }
  for (const manifest::Stream& stream : manifest.streams()) {
    wire::StreamApplied& position = streams.emplace_back();
    position.set_stream(stream.stream());
    position.set_next(stream.next());
    position.set_ended(stream.ended());
  }
  return {};
}

}  // namespace meander::ps
