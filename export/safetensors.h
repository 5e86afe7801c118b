// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/buffer.h"
#include "common/status.h"
#include "common/storage.h"

// Files of named arrays that other programs read too: 8 bytes of header length (little-endian), a
// JSON header, the arrays one after another without gaps.
// Source: the format's description in the README of Hugging Face's safetensors.
//
// Ours have their first array at a multiple of a page (the header is padded with spaces), so a
// mapped file's first array, and what follows it in multiples of its alignment, is aligned.
namespace meander::artefact {

constexpr std::size_t kSafetensorsAlign = 4096;

struct ArraySpec {
  std::string name;
  std::string type;  // "I64" or "F32"
  std::vector<std::int64_t> shape;

  std::uint64_t count() const;
  std::uint64_t bytes() const;
};

// Writes the arrays of one file in the order in which they were announced.
class SafetensorsWriter {
 public:
  static Result<SafetensorsWriter> create(Storage& storage, const std::string& path,
                                          std::vector<ArraySpec> arrays);
  // The next bytes; small pieces are gathered. Appending more than was announced is a bug (CHECK).
  Status append(const void* bytes, std::size_t size);
  template <class T>
  Status append(std::span<const T> values) {
    return append(values.data(), values.size_bytes());
  }
  // The file is durable. Having appended less than was announced is a bug (CHECK).
  Status close();
  // Where an array starts in the file.
  std::uint64_t offset(const std::string& name) const;
  std::uint64_t file_bytes() const { return payload_at_ + payload_bytes_; }

 private:
  SafetensorsWriter() = default;
  Status flush();
  std::vector<ArraySpec> arrays_;
  std::unique_ptr<WritableFile> file_;
  std::vector<std::byte> pending_;
  std::uint64_t payload_at_ = 0, payload_bytes_ = 0, appended_ = 0;
};

// A file opened for reading (mapped where the storage maps). Copies share it.
class Safetensors {
 public:
  // kNotFound, kCorrupt (not of this format, truncated, or offsets that do not fit).
  static Result<Safetensors> open(Storage& storage, const std::string& path);

  const ArraySpec* find(const std::string& name) const;
  // The array `name`, whose type and number of dimensions must be these. kCorrupt names the file.
  Result<std::span<const std::int64_t>> ints(const std::string& name, std::size_t dims) const;
  Result<std::span<const float>> floats(const std::string& name, std::size_t dims) const;

 private:
  struct Array {
    ArraySpec spec;
    std::uint64_t offset = 0;  // in the file
  };
  template <class T>
  Result<std::span<const T>> array(const std::string& name, const char* type,
                                   std::size_t dims) const;

  std::string path_;
  Buffer bytes_;
  std::map<std::string, Array> arrays_;
};

}  // namespace meander::artefact
