// SPDX-License-Identifier: Apache-2.0
#include "ps/streams.h"

namespace meander::ps {

Streams::Streams(std::uint32_t count, std::int64_t staleness, std::uint64_t first_epoch)
    : staleness_(staleness), streams_(count) {
  for (StreamState& stream : streams_) stream.epoch = first_epoch;
}

std::optional<std::uint64_t> Streams::slowest() const {
  std::optional<std::uint64_t> lowest;
  for (const StreamState& stream : streams_) {
    if (!stream.has_ended && (!lowest || stream.next < *lowest)) lowest = stream.next;
  }
  return lowest;
}

bool Streams::is_due(std::uint64_t seq) const {
  if (staleness_ < 0) return true;
  const auto lowest = slowest();
  return !lowest || seq <= *lowest || seq - *lowest <= static_cast<std::uint64_t>(staleness_);
}

const std::vector<std::uint32_t>& Streams::turn() {
  ready_.clear();
  const auto clock = is_bsp() ? slowest() : std::nullopt;
  for (std::uint32_t s = 0; s < size(); ++s) {
    const StreamState& stream = streams_[s];
    const bool is_behind = clock && !stream.has_ended && stream.next == *clock;
    if (is_behind && !stream.has_turn()) {  // BSP: all of this clock, or none
      ready_.clear();
      break;
    }
    if (is_behind || (!is_bsp() && stream.has_turn())) ready_.push_back(s);
  }
  return ready_;
}

}  // namespace meander::ps
