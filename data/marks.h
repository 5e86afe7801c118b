// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace meander::data {

// The bytes that end a field or change how it is read: '\n', the delimiter and, where fields may be
// quoted, '"'.
struct MarkBytes {
  char delimiter = ',';
  char quote = '"';  // '\n': fields are never quoted
};

// Writes the offsets of the marks in text[0, size) to `marks`, rising, and returns how many they
// are; size < 2^32. `marks` must have room for size + kMarksSlack.
using FindMarks = std::size_t (*)(const char* text, std::size_t size, MarkBytes bytes,
                                  std::uint32_t* marks);
constexpr std::size_t kMarksSlack = 64;

// By instruction set: "v2", "v3" or "v4" of x86-64; nullptr where this machine lacks it. All find
// the same.
FindMarks find_marks_for(const char* isa);
// The best of this machine; MEANDER_ISA may ask for a lesser one.
FindMarks find_marks();

}  // namespace meander::data
