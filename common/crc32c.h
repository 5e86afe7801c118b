// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace meander {

// CRC-32C (Castagnoli, reflected, initial and final value ~0), as in iSCSI, leveldb and SSE4.2:
// crc32c("123456789") = 0xe3069283. To go on with more bytes, hand in the value so far:
// crc32c(b, crc32c(a)) = crc32c(a then b).
inline std::uint32_t crc32c(const void* bytes, std::size_t size, std::uint32_t so_far = 0) {
  const auto* p = static_cast<const unsigned char*>(bytes);
  std::uint64_t crc = ~so_far;
  for (; size >= 8; size -= 8, p += 8) {
    std::uint64_t word;
    std::memcpy(&word, p, 8);
    crc = __builtin_ia32_crc32di(crc, word);
  }
  auto tail = static_cast<std::uint32_t>(crc);
  for (; size != 0; --size, ++p) tail = __builtin_ia32_crc32qi(tail, *p);
  return ~tail;
}

}  // namespace meander
