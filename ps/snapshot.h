// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/storage.h"
#include "proto/wire.pb.h"
#include "ps/table.h"

namespace meander::ps {

// The partitions that a lane owns: first ... last, as PartitionMap::even cuts them.
struct PartitionRange {
  std::uint32_t first = 0, last = 0;
};
PartitionRange lane_partitions(std::uint32_t lane, std::uint32_t lanes);

using Tables = std::vector<std::unique_ptr<Table>>;

// Writes the range's records of all tables into the generation's directory, one file for each table
// that has any. Fills in what Saved says of tables: files, steps, digest. Reads the tables only, so
// they may be pulled from meanwhile.
Status save_tables(Storage& storage, const std::string& dir, PartitionRange range,
                   const Tables& tables, wire::Saved& saved);

// Loads the range's records and the tables' steps into empty tables, from the files of however many
// lanes. `streams`: the positions in the manifest. kInvalid: a generation of other tables;
// kCorrupt.
Status load_tables(Storage& storage, const std::string& dir, PartitionRange range, Tables& tables,
                   std::vector<wire::StreamApplied>& streams);

}  // namespace meander::ps
