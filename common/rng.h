// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace meander {

// A bijection on 64 bits whose every output bit depends on every input bit.
// Source: Stafford's "Mix13" finaliser of MurmurHash3, as used by SplitMix64 (Steele et al., 2014).
constexpr std::uint64_t mix64(std::uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// A random value that is a pure function of its arguments: what is drawn does not depend on who
// draws it, or when.
constexpr std::uint64_t hash64(std::uint64_t a, std::uint64_t b) {
  return mix64(mix64(a + 0x9e3779b97f4a7c15ull) + b);
}
constexpr std::uint64_t hash64(std::uint64_t a, std::uint64_t b, std::uint64_t c) {
  return hash64(hash64(a, b), c);
}

// Uniform on [0, bound); bound > 0. Bias below bound / 2^64.
constexpr std::uint64_t bounded(std::uint64_t random, std::uint64_t bound) {
  return static_cast<std::uint64_t>((static_cast<unsigned __int128>(random) * bound) >> 64);
}
// Uniform on [0, 1) with 24 random bits: exact in float.
constexpr float unit_float(std::uint64_t random) {
  return static_cast<float>(random >> 40) * 0x1p-24f;
}
// Uniform on [0, 1) with 53 random bits.
constexpr double unit_double(std::uint64_t random) {
  return static_cast<double>(random >> 11) * 0x1p-53;
}

// A seeded sequence (SplitMix64). The same seed gives the same sequence everywhere.
class Rng {
 public:
  explicit constexpr Rng(std::uint64_t seed) : state_(seed) {}
  constexpr std::uint64_t next() { return mix64(state_ += 0x9e3779b97f4a7c15ull); }
  constexpr std::uint64_t below(std::uint64_t bound) { return bounded(next(), bound); }
  constexpr double uniform() { return unit_double(next()); }
  constexpr bool chance(double probability) { return uniform() < probability; }

 private:
  std::uint64_t state_;
};

}  // namespace meander
