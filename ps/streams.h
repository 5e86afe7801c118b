// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/buffer.h"
#include "ps/precision.h"
#include "ps/spare_nodes.h"

namespace meander::ps {

constexpr std::size_t kPullsKeptMax = 256;    // of a stream: how far ahead of `next` it may pull
constexpr std::size_t kEarlyPushesMax = 256;  // of a stream: how far ahead of `next` it may push
constexpr std::uint32_t kStreamsMax = 1u << 16;

// Who is to be answered.
struct Asker {
  std::string peer;
  std::uint64_t request = 0;
};

// Where the keys of a request are, by table: hints (Table::pull).
using Slots = std::vector<std::vector<std::uint32_t>>;

// A pull whose push has not been applied yet.
struct KeptPull {
  Asker asker;
  WireFormat format;         // of the answer
  bool is_waiting = true;    // for the clock; else it has been answered
  std::vector<Buffer> keys;  // by table
  Slots slots;               // once answered: hints for the push
  std::vector<Buffer> rows;  // under BSP: the answer

  void clear() {  // but not the memory of the slots
    is_waiting = true;
    keys.clear();
    rows.clear();
  }
};

// A push that is not applied yet.
struct HeldPush {
  Asker asker;
  bool is_last = false;
  WireFormat format;         // of the gradients
  std::vector<Buffer> keys;  // by table; empty: those of the pull of the same seq
  std::vector<Buffer> gradients;

  void clear() {
    keys.clear();
    gradients.clear();
  }
};

using Pulls = std::map<std::uint64_t, KeptPull>;   // by seq
using Pushes = std::map<std::uint64_t, HeldPush>;  // by seq

// What a lane knows of a stream. Pulls and pushes lie in [next, next + kMax): all are of `epoch`.
struct StreamState {
  std::uint64_t epoch = 0;
  std::uint64_t next = 0;
  std::uint64_t applied_epoch = 0;  // of the last push that was applied here; 0: not known
  bool has_ended = false;
  Pulls pulls;
  Pushes pushes;
  // Under BSP, the last batch applied here (it may be empty): a successor that repeats it, because
  // another lane has not applied it, must compute from the rows that its predecessor saw.
  Pulls::node_type applied_pull;

  bool has_turn() const { return !pushes.empty() && pushes.begin()->first == next; }
  // A newer lease: what is held for the older one goes.
  void fence(std::uint64_t newer_epoch) {
    epoch = newer_epoch;
    pulls.clear();
    pushes.clear();
  }
};

// All streams of a run and the rule of its consistency mode (docs/protocol.md).
class Streams {
 public:
  // Every stream at seq 0 under `first_epoch`. staleness as in wire::LaneSetup.
  Streams(std::uint32_t count, std::int64_t staleness, std::uint64_t first_epoch);

  bool is_bsp() const { return staleness_ == 0; }
  std::uint32_t size() const { return static_cast<std::uint32_t>(streams_.size()); }
  StreamState& operator[](std::uint32_t stream) { return streams_[stream]; }
  const StreamState& operator[](std::uint32_t stream) const { return streams_[stream]; }

  // May a pull of `seq` be answered now?
  bool is_due(std::uint64_t seq) const;
  // The streams whose pushes are to be applied now, in this order, one push each. Empty: none.
  // Valid until the next call.
  const std::vector<std::uint32_t>& turn();

 private:
  // The lowest `next` of the streams that have not ended; nothing when all have.
  std::optional<std::uint64_t> slowest() const;

  std::int64_t staleness_;
  std::vector<StreamState> streams_;
  std::vector<std::uint32_t> ready_;
};

}  // namespace meander::ps
