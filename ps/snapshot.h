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

// Writes a cut of a lane's tables while the lane goes on: the lane takes pieces (CutReader), and
// hands each to write() on another thread, one at a time, in any order of tables.
class SnapshotWriter {
 public:
  // `dir`: the generation's. `run`: goes into the files' names, so that two runs that write the
  // same generation do not write over each other's; 0: does not. Copies what it needs of the
  // tables.
  SnapshotWriter(Storage& storage, std::string dir, PartitionRange range, const Tables& tables,
                 std::uint64_t run);
  Status write(std::uint32_t table, const PackedRecords& records);
  // Fills in files and digest. A table without records in the cut has no file.
  Status finish(wire::Saved& saved);

 private:
  struct Part {  // of a table
    std::uint32_t values, groups;
    std::unique_ptr<checkpoint::RowsWriter> writer;  // null: nothing yet
  };
  Storage& storage_;
  const std::string dir_;
  const PartitionRange range_;
  const std::uint64_t run_;
  std::vector<Part> parts_;
  std::uint64_t digest_ = 0;
};

// The pieces of a cut through all tables of a lane.
class CutReader {
 public:
  static constexpr std::size_t kPieceBytes = std::size_t{1} << 20;
  struct Piece {
    std::uint32_t table = 0;
    PackedRecords records;  // may be empty
  };

  // Takes the cut: now. `base_steps` as in wire::Save.
  CutReader(Tables& tables, std::span<const std::uint64_t> base_steps);
  CutReader(const CutReader&) = delete;
  CutReader& operator=(const CutReader&) = delete;
  // False: there are no more.
  bool next(Piece& piece);
  // Of copies of records that have changed since, and were not taken yet.
  std::size_t bytes() const;

 private:
  Tables& tables_;
  std::vector<bool> is_open_;  // by table
};

// Writes a generation's files at once, while nobody pushes: for tools and tests. Fills in what
// Saved says of tables: files, steps, digest.
Status save_tables(Storage& storage, const std::string& dir, PartitionRange range, Tables& tables,
                   wire::Saved& saved);

// Loads the range's records and the tables' steps into empty tables, from the files of however many
// lanes, of the generation and of those that it stands on. `streams`: the positions in the
// manifest. kInvalid: a generation of other tables; kCorrupt.
Status load_tables(Storage& storage, const std::string& dir, PartitionRange range, Tables& tables,
                   std::vector<wire::StreamApplied>& streams);

}  // namespace meander::ps
