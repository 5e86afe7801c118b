// SPDX-License-Identifier: Apache-2.0
#include "common/crc32c.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/rng.h"

namespace meander {
namespace {

// Bit by bit, as the definition has it.
std::uint32_t reference(const unsigned char* p, std::size_t size) {
  std::uint32_t crc = ~0u;
  for (std::size_t i = 0; i < size; ++i) {
    crc ^= p[i];
    for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
  }
  return ~crc;
}

std::vector<unsigned char> draw(std::uint64_t seed, std::size_t size) {
  Rng rng(seed);
  std::vector<unsigned char> bytes(size);
  for (unsigned char& b : bytes) b = static_cast<unsigned char>(rng.next());
  return bytes;
}

TEST(Crc32c, MatchesPublishedValues) {
  const std::string digits = "123456789";  // the "check" of the catalogue of CRCs
  EXPECT_EQ(crc32c(digits.data(), digits.size()), 0xe3069283u);
  const std::vector<unsigned char> zeros(32, 0), ones(32, 0xff);  // RFC 3720, B.4
  EXPECT_EQ(crc32c(zeros.data(), zeros.size()), 0x8a9136aau);
  EXPECT_EQ(crc32c(ones.data(), ones.size()), 0x62a8ab43u);
  EXPECT_EQ(crc32c(nullptr, 0), 0u);
}

TEST(Crc32c, MatchesTheDefinitionAtEveryLengthAndAlignment) {
  const auto bytes = draw(1, 60'000);
  for (std::size_t size : {0, 1, 7, 8, 9, 255, 767, 768, 769, 1600, 24575, 24576, 24577, 50'001}) {
    for (std::size_t offset : {0, 1, 3, 8}) {
      EXPECT_EQ(crc32c(bytes.data() + offset, size), reference(bytes.data() + offset, size))
          << size << " bytes at " << offset;
    }
  }
}

TEST(Crc32c, PiecesContinue) {
  const auto bytes = draw(2, 5000);
  const std::uint32_t whole = crc32c(bytes.data(), bytes.size());
  for (std::size_t cut : {0, 1, 100, 4999, 5000}) {
    const std::uint32_t first = crc32c(bytes.data(), cut);
    EXPECT_EQ(crc32c(bytes.data() + cut, bytes.size() - cut, first), whole);
    const std::uint32_t second = crc32c(bytes.data() + cut, bytes.size() - cut);
    EXPECT_EQ(crc32c_joined(first, second, bytes.size() - cut), whole);
  }
}

}  // namespace
}  // namespace meander
