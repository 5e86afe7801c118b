// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/storage.h"
#include "ps/mirror.h"
#include "ps/snapshot.h"
#include "ps/streams.h"

namespace meander::ps {

// What a LaneSetup makes: everything that a roll-back replaces.
struct Shard {
  // CHECKs check_setup().
  Shard(const wire::LaneSetup& setup, std::uint32_t lane)
      : setup(setup),
        range(lane_partitions(lane, setup.lanes())),
        streams(setup.streams(), setup.staleness(), setup.first_epoch()),
        is_backup(setup.backup()) {
    for (int t = 0; t < setup.tables_size(); ++t) {
      tables.push_back(std::make_unique<Table>(t, setup.tables(t)));
    }
  }

  // Where streams stand, and tables if the message has a place for it.
  template <class Message>
  void add_positions(Message& message) const {
    for (std::uint32_t s = 0; s < streams.size(); ++s) {
      wire::StreamApplied& applied = *message.add_applied();
      applied.set_stream(s);
      applied.set_next(streams[s].next);
      applied.set_ended(streams[s].has_ended);
      applied.set_epoch(streams[s].epoch);
    }
    if constexpr (requires { message.add_table_steps(0); }) {
      for (const auto& table : tables) message.add_table_steps(table->step());
    }
  }
  // Records of a table, from who had them before: newer than what is here.
  Status take_rows(std::uint32_t table, const std::vector<Buffer>& frames);
  // Where streams and tables stand there.
  Status take_positions(const wire::Mirror& mirror);

  wire::LaneSetup setup;
  PartitionRange range;
  Tables tables;
  Streams streams;
  bool is_backup;             // it stands by: somebody else serves
  bool is_complete = false;   // of a backup: all rows are there
  bool was_promoted = false;  // rows of pulls that were answered before are not known here
  MirrorReceiver received;    // of a backup
};

// kInvalid: what a peer asks for cannot be.
Status check_setup(const wire::LaneSetup& setup, std::uint32_t lane);
// Are these keys, and only of these partitions?
bool are_own_keys(const Buffer& keys, PartitionRange range);
// Are `values` (keys, width)?
bool is_matrix(const Buffer& values, const Buffer& keys, std::uint32_t width,
               wire::Precision precision = wire::F32);

// The rows of a fresh start, as LaneSetup's frames have them.
Status load_presets(const std::vector<Buffer>& frames, Shard& shard);
// Rows, and where streams are, of the generation that the set-up names.
Status restore(Storage& storage, Shard& shard);
// Takes up where streams are. They all must be this run's. `from`: who says so.
Status resume_streams(const std::string& from, const std::vector<wire::StreamApplied>& positions,
                      Streams& streams);

}  // namespace meander::ps
