// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "checkpoint/generation.h"

namespace meander::checkpoint {

// Picks records out of a block, into memory that is used again.
class Selection {
 public:
  // Those for which keep(i) holds, asked once for each i in order. The result points into `records`
  // when that is all of them, else into this, until the next call.
  template <class Keep>
  Records select(const Records& records, const Keep& keep) {
    kept_.resize(records.size());
    std::size_t count = 0;
    for (std::size_t i = 0; i < records.size(); ++i) count += kept_[i] = keep(i) ? 1 : 0;
    return count == records.size() ? records : copy_kept(records);
  }

 private:
  Records copy_kept(const Records& records);

  std::vector<std::uint8_t> kept_, admitted_;
  std::vector<std::uint64_t> keys_, steps_;
  std::vector<std::uint32_t> counts_;
  std::vector<float> values_;
};

}  // namespace meander::checkpoint
