// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/buffer.h"
#include "common/status.h"
#include "common/storage.h"

namespace meander::data {

// An array of a NumPy file, mapped.
// Source: numpy.lib.format, versions 1.0 to 3.0.
struct NpyArray {
  std::string type;                  // "<f4", "<f2", "<i8", ...: little-endian, and its bytes
  std::vector<std::uint64_t> shape;  // in C order
  Buffer values;                     // exactly those of the shape
};

// Is this the beginning of a NumPy file?
bool is_npy(const Buffer& bytes);
// kNotFound; kInvalid: not a NumPy file, in Fortran order, of objects, structures or big-endian
// numbers; kCorrupt: cut off, or longer than its shape. The message names the path.
Result<NpyArray> read_npy(Storage& storage, const std::string& path);

// What stands before the values of such a file (version 1.0).
std::string npy_header(std::string_view type, const std::vector<std::uint64_t>& shape);

}  // namespace meander::data
