// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "common/check.h"
#include "common/rng.h"

namespace meander {

// The key space in 16,384 hash partitions: the unit in which rows belong to lanes and lie in files.
constexpr std::uint32_t kPartitions = 16384;

// A key's partition: the top 14 bits of its mix. Tables index by other bits of the same mix.
constexpr std::uint32_t partition_of(std::uint64_t key) {
  return static_cast<std::uint32_t>(mix64(key) >> 50);
}

// Which lane owns each partition. The scheduler hands it out, with a version.
class PartitionMap {
 public:
  PartitionMap() = default;
  // Equal contiguous ranges over `lanes` lanes.
  static PartitionMap even(std::uint32_t lanes) {
    CHECK_GT(lanes, 0u);
    CHECK_LE(lanes, kPartitions);
    PartitionMap map;
    map.lanes_ = lanes;
    map.lane_.resize(kPartitions);
    for (std::uint32_t p = 0; p < kPartitions; ++p) {
      map.lane_[p] = static_cast<std::uint16_t>(std::uint64_t{p} * lanes / kPartitions);
    }
    return map;
  }
  std::uint32_t lanes() const { return lanes_; }
  std::uint32_t lane_of_partition(std::uint32_t partition) const { return lane_[partition]; }
  std::uint32_t lane_of(std::uint64_t key) const { return lane_[partition_of(key)]; }

 private:
  std::uint32_t lanes_ = 0;
  std::vector<std::uint16_t> lane_;
};

}  // namespace meander
