// SPDX-License-Identifier: Apache-2.0
#include "data/numpy_random.h"

#include <array>
#include <bit>
#include <utility>

#include "common/check.h"

namespace meander::data {
namespace {

using Words = std::array<std::uint32_t, 4>;

// SeedSequence: spreads the bits of a seed over a pool of words, and words of state out of it.
class SeedPool {
 public:
  explicit SeedPool(std::uint64_t seed) {
    Words& pool = pool_;
    pool = {hash(static_cast<std::uint32_t>(seed)), hash(static_cast<std::uint32_t>(seed >> 32)),
            hash(0), hash(0)};
    for (std::size_t from = 0; from < pool.size(); ++from) {
      for (std::size_t to = 0; to < pool.size(); ++to) {
        if (from != to) pool[to] = mix(pool[to], hash(pool[from]));
      }
    }
  }

  std::array<std::uint64_t, 4> state() const {
    std::array<std::uint64_t, 4> state{};
    std::uint32_t constant = 0x8b51f9dd;
    for (std::uint32_t i = 0; i < 8; ++i) {
      std::uint32_t word = pool_[i % 4] ^ constant;
      constant *= 0x58f38ded;
      word *= constant;
      word ^= word >> 16;
      state[i / 2] |= std::uint64_t{word} << 32 * (i % 2);
    }
    return state;
  }

 private:
  std::uint32_t hash(std::uint32_t value) {
    value ^= constant_;
    constant_ *= 0x931e8875;
    value *= constant_;
    return value ^ value >> 16;
  }
  static std::uint32_t mix(std::uint32_t x, std::uint32_t y) {
    const std::uint32_t mixed = 0xca01f9dd * x - 0x4973f715 * y;
    return mixed ^ mixed >> 16;
  }

  std::uint32_t constant_ = 0x43b0d7e5;
  Words pool_{};
};

}  // namespace

NumpyRandom::NumpyRandom(std::uint64_t seed) {
  const auto words = SeedPool(seed).state();
  increment_ = (Wide{words[2]} << 64 | words[3]) << 1 | 1;
  next64();
  state_ += Wide{words[0]} << 64 | words[1];
  next64();
}

std::uint64_t NumpyRandom::next64() {
  constexpr Wide kMultiplier = Wide{0x2360ed051fc65da4} << 64 | 0x4385df649fccf645;
  state_ = state_ * kMultiplier + increment_;
  const auto folded = static_cast<std::uint64_t>(state_ >> 64) ^ static_cast<std::uint64_t>(state_);
  const auto turn = static_cast<std::uint32_t>(state_ >> 122);
  return folded >> turn | folded << (64 - turn) % 64;
}

std::uint32_t NumpyRandom::next32() {
  if (std::exchange(has_half_, false)) return half_;
  const std::uint64_t both = next64();
  has_half_ = true;
  half_ = static_cast<std::uint32_t>(both >> 32);
  return static_cast<std::uint32_t>(both);
}

std::uint32_t NumpyRandom::up_to(std::uint32_t last) {
  if (last == 0) return 0;
  const std::uint32_t mask = 0xffffffffu >> std::countl_zero(last);
  for (;;) {
    const std::uint32_t drawn = next32() & mask;
    if (drawn <= last) return drawn;
  }
}

void NumpyRandom::shuffle(std::span<std::uint32_t> values) {
  CHECK_LT(values.size(), std::size_t{0xffffffff});
  for (std::size_t i = values.size(); i-- > 1;) {
    std::swap(values[i], values[up_to(static_cast<std::uint32_t>(i))]);
  }
}

}  // namespace meander::data
