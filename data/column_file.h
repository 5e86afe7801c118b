// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/buffer.h"
#include "common/status.h"
#include "common/storage.h"

namespace meander::data {

// A column file: `count` values of `width` bytes, little-endian, zeros up to a multiple of 64
// bytes, then this trailer. The values come first so that they can be written as they come and are
// aligned when the file is mapped. Layout: docs/prepared-log.md.
struct ColumnTrailer {
  char magic[8] = {'M', 'N', 'D', 'R', 'C', 'O', 'L', '\n'};
  std::uint32_t version = 1;
  std::uint32_t width = 0;
  std::uint64_t count = 0;
  std::uint32_t payload_crc = 0;  // of the values
  std::uint32_t reserved[8] = {};
  std::uint32_t trailer_crc = 0;  // of all of the trailer before it
};
static_assert(sizeof(ColumnTrailer) == 64);

// Writes a column file value by value, through a buffer of `buffer_bytes`. The first error of any
// append is kept: what comes after it is dropped, and status() and finish() return it. Errors are
// the storage's.
class ColumnWriter {
 public:
  // `is_scratch`: for work in progress (Storage::create_scratch).
  static Result<ColumnWriter> create(Storage& storage, const std::string& path, std::uint32_t width,
                                     std::size_t buffer_bytes = 256 << 10, bool is_scratch = false);
  template <class T>
  void append(const T& value) {
    std::memcpy(room(sizeof(T)), &value, sizeof(T));
  }
  template <class T>
  void append(std::span<T> values) {
    append_bytes(values.data(), sizeof(T), values.size());
  }
  // `count` values that are `width` bytes each.
  void append_bytes(const void* bytes, std::size_t width, std::size_t count);
  // Room for one value, which the caller writes before the next call.
  std::byte* room(std::size_t width) {
    CHECK_EQ(width, trailer_.width);
    if (used_ + width > pending_.size()) flush();
    std::byte* const at = pending_.data() + used_;
    used_ += width;
    ++trailer_.count;
    return at;
  }
  std::uint64_t count() const { return trailer_.count; }
  const Status& status() const { return status_; }
  Status finish();

 private:
  ColumnWriter() = default;
  void flush();

  std::unique_ptr<WritableFile> file_;
  ColumnTrailer trailer_;
  std::vector<std::byte> pending_;
  std::size_t used_ = 0;  // of pending_
  Status status_;
};

// Writes a whole column.
template <class T>
Status write_column(Storage& storage, const std::string& path, std::span<const T> values) {
  ASSIGN_OR_RETURN(ColumnWriter writer, ColumnWriter::create(storage, path, sizeof(T)));
  writer.append(values);
  return writer.finish();
}

// Reads the values of a column file in order, `chunk` at a time. The file must have been written by
// this process: only its length is checked.
template <class T>
class ColumnReader {
 public:
  ColumnReader(Storage& storage, std::string path, std::uint64_t count, std::size_t chunk)
      : storage_(&storage), path_(std::move(path)), left_(count), chunk_(chunk) {}

  // nullptr at the end, or when status() is an error. Valid until the next call.
  const T* next() {
    const T* value = peek();
    at_ += value != nullptr;
    return value;
  }
  // The same, and stays where it is.
  const T* peek() { return at_ == values_.size() && !refill() ? nullptr : &values_[at_]; }
  const Status& status() const { return status_; }

 private:
  bool refill() {
    const std::size_t want = std::min<std::uint64_t>(left_, chunk_);
    if (want == 0 || !status_.ok()) return false;
    Result<Buffer> bytes = storage_->read_range(path_, offset_, want * sizeof(T));
    if (!bytes.ok()) {
      status_ = bytes.status();
    } else if (bytes->size() != want * sizeof(T)) {
      status_ = corrupt(path_ + ": truncated");
    }
    if (!status_.ok()) return false;
    bytes_ = std::move(bytes).value();
    values_ = bytes_.as<T>();
    at_ = 0;
    left_ -= want;
    offset_ += want * sizeof(T);
    return true;
  }

  Storage* storage_;
  std::string path_;
  std::uint64_t left_, offset_ = 0;
  std::size_t chunk_, at_ = 0;
  Buffer bytes_;
  std::span<const T> values_;  // the chunk in hand
  Status status_;
};

// A column file as it lies in storage, mapped.
struct ColumnFile {
  std::string path;
  Buffer bytes;  // the whole file
  ColumnTrailer trailer;

  template <class T>
  std::span<const T> values() const {
    return bytes.slice(0, trailer.count * sizeof(T)).as<T>();
  }
  Status verify() const;  // kInvalid when the values do not match their checksum
};
// The last 64 bytes of a file that has as many.
ColumnTrailer trailer_of(const Buffer& bytes);
// Checks the length and the trailer, not the values. kNotFound; kInvalid: not a column file, or of
// another version, truncated or damaged.
Result<ColumnFile> open_column(Storage& storage, const std::string& path, std::uint32_t width);

}  // namespace meander::data
