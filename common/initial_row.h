// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include "common/rng.h"

namespace meander {

// The row of a key that was never stored: uniform in [-range, range), a pure function of (seed,
// table, key). So an absent row needs no memory, and a lane, an export and a test agree on it bit
// for bit.
inline void initial_row(std::uint64_t seed, std::uint32_t table, std::uint64_t key, float range,
                        std::span<float> row) {
  Rng rng(hash64(seed, table, key));
  // 2u - 1 is exact for the 24 bits of u, so there is one rounding: the product's.
  for (float& value : row) value = range * (2.0f * unit_float(rng.next()) - 1.0f);
}

}  // namespace meander
