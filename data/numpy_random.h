// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

namespace meander::data {

// numpy.random.default_rng(seed), as far as shuffling goes: anybody with NumPy can draw our order.
// Sources: O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for
// Random Number Generation" (HMC-CS-2014-0905), variant XSL RR 128/64; her seed_seq as
// numpy.random.SeedSequence has it.
class NumpyRandom {
 public:
  explicit NumpyRandom(std::uint64_t seed);

  std::uint64_t next64();
  // Halves of next64(), the low one first.
  std::uint32_t next32();
  // Uniform on [0, last]: bits are drawn until they are no more.
  std::uint32_t up_to(std::uint32_t last);
  // Generator.shuffle of an array: of 0, 1, ... n - 1 it makes Generator.permutation(n).
  void shuffle(std::span<std::uint32_t> values);

 private:
  using Wide = unsigned __int128;
  Wide state_ = 0, increment_ = 0;
  bool has_half_ = false;
  std::uint32_t half_ = 0;
};

}  // namespace meander::data
