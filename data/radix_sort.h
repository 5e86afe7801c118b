// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

namespace meander::data {

struct Keyed {
  std::uint64_t key;
  std::uint32_t index;
};

// Sorts by key; what has equal keys keeps its order. Least significant digit first, leaving out the
// bits that all keys share: linear in the number of values. Memory: as much again.
inline void sort_by_key(std::vector<Keyed>& values) {
  constexpr std::uint32_t kBits = 11, kDigits = 1 << kBits;
  std::uint64_t differs = 0;
  for (const Keyed& value : values) differs |= value.key ^ values.front().key;
  std::vector<Keyed> other(values.size());
  for (std::uint32_t shift = 0; shift < 64; shift += kBits) {
    if ((differs >> shift) % kDigits == 0) continue;
    std::array<std::uint32_t, kDigits> next{};  // place of the next value with this digit
    for (const Keyed& value : values) ++next[(value.key >> shift) % kDigits];
    std::uint32_t before = 0;
    for (std::uint32_t& place : next) before += std::exchange(place, before);
    for (const Keyed& value : values) other[next[(value.key >> shift) % kDigits]++] = value;
    values.swap(other);
  }
}

}  // namespace meander::data
