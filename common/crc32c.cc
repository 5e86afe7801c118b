// SPDX-License-Identifier: Apache-2.0
#include "common/crc32c.h"

#include <nmmintrin.h>

#include <array>
#include <cstring>

// The crc32 instruction gives a result after three cycles and takes one operand each cycle, so
// three streams run side by side and are joined: the crc of A followed by n bytes is the crc of A
// moved n zero bytes on, xor the crc of the n bytes. Source of the method: Mark Adler's crc32c.c.
namespace meander {
namespace {

constexpr std::uint32_t kPolynomial = 0x82f63b78;
constexpr std::size_t kLong = 8192, kShort = 256;  // bytes of one of the three streams

// Moves a crc on by a fixed number of zero bytes: a linear map, so one table for each of its bytes.
class Shift {
 public:
  constexpr explicit Shift(std::size_t zero_bytes) {
    std::array<std::uint32_t, 32> columns{};  // where each bit goes
    for (int bit = 0; bit < 32; ++bit) columns[bit] = shifted(std::uint32_t{1} << bit, zero_bytes);
    for (int byte = 0; byte < 4; ++byte) {
      for (std::uint32_t value = 0; value < 256; ++value) {
        for (int bit = 0; bit < 8; ++bit) {
          if (value >> bit & 1) table_[byte][value] ^= columns[8 * byte + bit];
        }
      }
    }
  }
  std::uint32_t operator()(std::uint32_t crc) const {
    return table_[0][crc & 0xff] ^ table_[1][crc >> 8 & 0xff] ^ table_[2][crc >> 16 & 0xff] ^
           table_[3][crc >> 24];
  }

 private:
  static constexpr std::uint32_t shifted(std::uint32_t crc, std::size_t zero_bytes) {
    for (std::size_t i = 0; i < 8 * zero_bytes; ++i) {
      crc = crc & 1 ? crc >> 1 ^ kPolynomial : crc >> 1;
    }
    return crc;
  }
  std::array<std::array<std::uint32_t, 256>, 4> table_{};
};

// a * b modulo the polynomial; bit 31 is x^0.
std::uint32_t product(std::uint32_t a, std::uint32_t b) {
  std::uint32_t sum = 0;
  for (; a != 0; a <<= 1) {
    if (a >> 31) sum ^= b;
    b = b & 1 ? b >> 1 ^ kPolynomial : b >> 1;
  }
  return sum;
}

std::uint64_t word_at(const unsigned char* p) {
  std::uint64_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}

// Takes blocks of three streams while there are any; moves p and size on.
std::uint64_t three_streams(const unsigned char*& p, std::size_t& size, std::uint64_t crc,
                            std::size_t stream, const Shift& shift) {
  for (; size >= 3 * stream; p += 3 * stream, size -= 3 * stream) {
    std::uint64_t a = crc, b = 0, c = 0;
    for (std::size_t i = 0; i < stream; i += 8) {
      a = _mm_crc32_u64(a, word_at(p + i));
      b = _mm_crc32_u64(b, word_at(p + stream + i));
      c = _mm_crc32_u64(c, word_at(p + 2 * stream + i));
    }
    b ^= shift(static_cast<std::uint32_t>(a));
    crc = c ^ shift(static_cast<std::uint32_t>(b));
  }
  return crc;
}

}  // namespace

std::uint32_t crc32c(const void* bytes, std::size_t size, std::uint32_t crc) {
  static const Shift shift_long(kLong), shift_short(kShort);
  auto p = static_cast<const unsigned char*>(bytes);
  std::uint64_t state = ~crc;
  state = three_streams(p, size, state, kLong, shift_long);
  state = three_streams(p, size, state, kShort, shift_short);
  for (; size >= 8; p += 8, size -= 8) state = _mm_crc32_u64(state, word_at(p));
  auto tail = static_cast<std::uint32_t>(state);
  for (; size > 0; ++p, --size) tail = _mm_crc32_u8(tail, *p);
  return ~tail;
}

std::uint32_t crc32c_joined(std::uint32_t a, std::uint32_t b, std::uint64_t b_size) {
  // a moved on by b_size zero bytes, each of which multiplies by x^8: by squares of that.
  for (std::uint32_t square = 1u << 23; b_size != 0; b_size >>= 1) {
    if (b_size & 1) a = product(a, square);
    square = product(square, square);
  }
  return a ^ b;
}

}  // namespace meander
