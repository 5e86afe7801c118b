// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/status.h"
#include "common/storage.h"
#include "data/column_file.h"
#include "data/record.h"

namespace meander::data {

// Records on their way from the input to their shards: fixed-size, in files split by user.
struct SpillHead {
  std::uint64_t user, item, category;
  std::int64_t time_ms;
  std::uint64_t row_and_kind;  // row * 4 + kind; row: place among the records of the input

  std::uint64_t row() const { return row_and_kind >> 2; }
  RecordKind kind() const { return static_cast<RecordKind>(row_and_kind & 3); }
};

// A view of one record in a spill file.
struct SpillRecord {
  const std::byte* bytes;
  const SpillHead& head() const { return *reinterpret_cast<const SpillHead*>(bytes); }
};

// Behind the head: contexts and the session (u64 each), then numbers and what the second label is
// made of (f32 each), padded to 8 bytes.
struct SpillLayout {
  std::uint32_t contexts = 0, numerics = 0;
  bool has_session = false, has_label = false;
  std::size_t context_offset(std::size_t i) const { return sizeof(SpillHead) + 8 * i; }
  std::size_t numeric_offset(std::size_t i) const {
    return context_offset(contexts + has_session) + 4 * i;
  }
  std::size_t bytes() const {
    return context_offset(contexts + has_session) + (4 * (numerics + has_label) + 7) / 8 * 8;
  }
  std::uint64_t session(SpillRecord record) const {
    return *reinterpret_cast<const std::uint64_t*>(record.bytes + context_offset(contexts));
  }
  float label(SpillRecord record) const { return numeric(record, numerics); }
  float numeric(SpillRecord record, std::size_t i) const {
    return *reinterpret_cast<const float*>(record.bytes + numeric_offset(i));
  }
};

struct SpillFile {
  std::string path;
  std::uint64_t records = 0;
};

// Deals records over `files` by user. `depth` picks the hash, so that a file which came out too big
// can be dealt again.
class Spill {
 public:
  static Result<Spill> create(Storage& storage, const std::string& path_prefix,
                              const SpillLayout& layout, std::uint32_t files, std::uint32_t depth);
  void add(const Record& record, std::uint64_t row);
  void add(SpillRecord record);
  Status status() const;  // the first error of any add(): what comes after it is dropped
  Result<std::vector<SpillFile>> finish();

 private:
  std::size_t file_of(std::uint64_t user) const;

  SpillLayout layout_;
  std::uint32_t depth_ = 0;
  std::vector<ColumnWriter> writers_;
  std::vector<std::string> paths_;
};

// Deals every file above `bytes_max` again until it is below, or holds one user only. Keeps the
// order of records.
Result<std::vector<SpillFile>> split_large(Storage& storage, std::vector<SpillFile> files,
                                           const SpillLayout& layout, std::uint64_t bytes_max);

}  // namespace meander::data
