// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "common/partition.h"
#include "common/rng.h"

namespace meander::data {

// Numbers the distinct keys of a batch in the order in which they come. Open addressing; clear() is
// O(1), and nothing is allocated once the largest batch has been seen.
class KeySet {
 public:
  KeySet() { resize(1 << 12); }

  void clear() {
    keys_.clear();
    partitions_.clear();
    if (++stamp_ == 0) {  // after 2^32 batches
      for (Entry& entry : entries_) entry.stamp = 0;
      stamp_ = 1;
    }
  }

  std::uint32_t index_of(std::uint64_t key) {
    const std::uint64_t mixed = mix64(key);
    for (std::size_t at = mixed & mask_;; at = (at + 1) & mask_) {
      Entry& entry = entries_[at];
      if (entry.stamp != stamp_) {
        entry = {key, static_cast<std::uint32_t>(keys_.size()), stamp_};
        keys_.push_back(key);
        partitions_.push_back(static_cast<std::uint16_t>(mixed >> 50));  // partition_of(key)
        const std::uint32_t index = entry.index;
        if (keys_.size() * 2 > mask_) grow();
        return index;
      }
      if (entry.key == key) return entry.index;
    }
  }

  const std::vector<std::uint64_t>& keys() const { return keys_; }
  const std::vector<std::uint16_t>& partitions() const { return partitions_; }

 private:
  struct Entry {
    std::uint64_t key = 0;
    std::uint32_t index = 0;
    std::uint32_t stamp = 0;
  };

  void resize(std::size_t size) {
    entries_.assign(size, {});
    mask_ = size - 1;
    stamp_ = 1;
  }
  void grow() {
    resize(entries_.size() * 2);
    for (std::uint32_t i = 0; i < keys_.size(); ++i) {
      std::size_t at = mix64(keys_[i]) & mask_;
      while (entries_[at].stamp == stamp_) at = (at + 1) & mask_;
      entries_[at] = {keys_[i], i, stamp_};
    }
  }

  std::vector<Entry> entries_;
  std::size_t mask_ = 0;
  std::uint32_t stamp_ = 0;
  std::vector<std::uint64_t> keys_;
  std::vector<std::uint16_t> partitions_;
};

}  // namespace meander::data
