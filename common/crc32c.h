// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace meander {

// CRC-32C (Castagnoli, reflected polynomial 0x82f63b78) as in iSCSI, ext4 and TFRecord.
// `crc` is the value of the bytes before, so that a long run can be checked piece by piece:
// crc32c(b, nb, crc32c(a, na)) is the value of a and b together.
std::uint32_t crc32c(const void* bytes, std::size_t size, std::uint32_t crc = 0);
// The value of A and B together from the two values alone; B has `b_size` bytes.
std::uint32_t crc32c_joined(std::uint32_t a, std::uint32_t b, std::uint64_t b_size);

}  // namespace meander
