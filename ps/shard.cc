// SPDX-License-Identifier: Apache-2.0
#include "ps/shard.h"

#include <algorithm>

#include "common/partition.h"

namespace meander::ps {
namespace {

constexpr int kTablesMax = 4096;

}  // namespace

Status Shard::take_rows(std::uint32_t table, const std::vector<Buffer>& frames) {
  if (table >= tables.size() || frames.size() != 1) return invalid("rows of no table");
  return PackedRecords::visit({frames[0].data(), frames[0].size()},
                              [&](const checkpoint::Record& record) {
                                const std::uint32_t partition = partition_of(record.key);
                                if (partition < range.first || partition > range.last) {
                                  return invalid("rows of another lane's partitions");
                                }
                                return tables[table]->restore(record, true);
                              });
}

Status Shard::take_positions(const wire::Mirror& mirror) {
  if (mirror.table_steps_size() != static_cast<int>(tables.size())) {
    return invalid("steps of other tables");
  }
  for (int t = 0; t < mirror.table_steps_size(); ++t) {
    if (mirror.table_steps(t) > RowStore::kStepMax) return invalid("an impossible step");
    tables[t]->set_step(mirror.table_steps(t));
  }
  std::vector<wire::StreamApplied> positions(mirror.applied().begin(), mirror.applied().end());
  RETURN_IF_ERROR(resume_streams("the lane that serves", positions, streams));
  for (const wire::StreamApplied& position : positions) {
    streams[position.stream()].epoch = position.epoch();
  }
  return {};
}

Status check_setup(const wire::LaneSetup& setup, std::uint32_t lane) {
  if (setup.lanes() == 0 || setup.lanes() > kPartitions || lane >= setup.lanes()) {
    return invalid("lane " + std::to_string(lane) + " of " + std::to_string(setup.lanes()) +
                   ": there may be 1 ... " + std::to_string(kPartitions) + " lanes");
  }
  if (setup.streams() == 0 || setup.streams() > kStreamsMax) {
    return invalid(std::to_string(setup.streams()) + " streams: there may be 1 ... " +
                   std::to_string(kStreamsMax));
  }
  if (setup.staleness() < -1) return invalid("staleness below -1");
  if (setup.tables_size() == 0 || setup.tables_size() > kTablesMax) {
    return invalid(std::to_string(setup.tables_size()) + " tables: there may be 1 ... " +
                   std::to_string(kTablesMax));
  }
  for (const wire::TableSpec& table : setup.tables()) RETURN_IF_ERROR(check_table(table));
  return {};
}

bool are_own_keys(const Buffer& keys, PartitionRange range) {
  if (!keys.holds<std::uint64_t>()) return false;
  for (const std::uint64_t key : keys.as<std::uint64_t>()) {
    const std::uint32_t partition = partition_of(key);
    if (partition < range.first || partition > range.last) return false;
  }
  return true;
}

bool is_matrix(const Buffer& values, const Buffer& keys, std::uint32_t width,
               wire::Precision precision) {
  const std::size_t count = keys.size() / sizeof(std::uint64_t) * width;
  return (precision == wire::F32 ? values.holds<float>() : values.holds<std::uint16_t>()) &&
         values.size() == count * bytes_of(precision);
}

Status load_presets(const std::vector<Buffer>& frames, Shard& shard) {
  const wire::LaneSetup& setup = shard.setup;
  if (frames.size() != 2 * static_cast<std::size_t>(setup.preset_tables_size())) {
    return invalid("set-up: preset rows are missing");
  }
  for (int i = 0; i < setup.preset_tables_size(); ++i) {
    const std::uint32_t t = setup.preset_tables(i);
    const Buffer &keys = frames[2 * i], &rows = frames[2 * i + 1];
    if (t >= shard.tables.size() || !are_own_keys(keys, shard.range) ||
        !is_matrix(rows, keys, shard.tables[t]->width())) {
      return invalid("set-up: preset rows of table " + std::to_string(t) + " are malformed");
    }
    shard.tables[t]->assign(keys.as<std::uint64_t>(), rows.as<float>().data());
  }
  return {};
}

Status resume_streams(const std::string& from, const std::vector<wire::StreamApplied>& positions,
                      Streams& streams) {
  if (positions.size() != streams.size()) {
    return invalid(from + ": has " + std::to_string(positions.size()) + " streams, this run has " +
                   std::to_string(streams.size()));
  }
  for (const wire::StreamApplied& position : positions) {
    if (position.stream() >= streams.size()) return corrupt(from + ": impossible stream number");
    streams[position.stream()].next = position.next();
    streams[position.stream()].has_ended = position.ended();
  }
  return {};
}

Status restore(Storage& storage, Shard& shard) {
  const std::string& dir = shard.setup.restore_dir();
  std::vector<wire::StreamApplied> positions;
  RETURN_IF_ERROR(load_tables(storage, dir, shard.range, shard.tables, positions));
  if (!shard.setup.restore_positions()) return {};
  RETURN_IF_ERROR(resume_streams(dir, positions, shard.streams));
  if (shard.setup.streams_go_on()) {
    for (std::uint32_t i = 0; i < shard.streams.size(); ++i) shard.streams[i].has_ended = false;
  }
  return {};
}

}  // namespace meander::ps
