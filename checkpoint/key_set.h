// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "common/rng.h"

namespace meander::checkpoint {

// A set of keys, any 64 bits: open addressing, at most half full.
class KeySet {
 public:
  bool contains(std::uint64_t key) const {
    if (key == 0) return has_zero_;
    return !slots_.empty() && slots_[place_of(key)] == key;
  }
  // Whether it was not there before.
  bool insert(std::uint64_t key) {
    if (key == 0) return !std::exchange(has_zero_, true);
    if (2 * count_ >= slots_.size()) grow();
    std::uint64_t& slot = slots_[place_of(key)];
    if (slot == key) return false;
    slot = key;
    ++count_;
    return true;
  }

 private:
  // Where the key is, or would be.
  std::size_t place_of(std::uint64_t key) const {
    std::size_t i = mix64(key) & (slots_.size() - 1);
    while (slots_[i] != 0 && slots_[i] != key) i = (i + 1) & (slots_.size() - 1);
    return i;
  }
  void grow() {
    const std::vector<std::uint64_t> old = std::exchange(
        slots_, std::vector<std::uint64_t>(std::max<std::size_t>(64, 2 * slots_.size())));
    for (const std::uint64_t key : old) {
      if (key != 0) slots_[place_of(key)] = key;
    }
  }

  std::vector<std::uint64_t> slots_;  // a power of two of them; 0: free
  std::size_t count_ = 0;
  bool has_zero_ = false;
};

}  // namespace meander::checkpoint
