// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/buffer.h"
#include "common/status.h"
#include "common/storage.h"

namespace meander::checkpoint {

// A file of known size, front to back, of which one piece at a time is in memory.
class Pieces {
 public:
  // `is_cold`: nobody else is going to read it soon.
  Pieces(Storage& storage, const std::string& path, std::uint64_t size, bool is_cold)
      : storage_(storage), path_(path), size_(size), is_cold_(is_cold) {}

  const std::string& path() const { return path_; }
  std::uint64_t left() const { return size_ - offset_; }
  // The next `size` bytes, at most left(). kCorrupt: the file is shorter or longer than said.
  Status read(void* out, std::uint64_t size);
  void skip(std::uint64_t size);
  // kCorrupt: the file is longer than said. Reads at the end find this as well.
  Status check_end();

 private:
  Result<Buffer> read_range(std::uint64_t size);  // from begin_ on
  Status load();                                  // the piece that begins at offset_

  Storage& storage_;
  const std::string& path_;
  const std::uint64_t size_;
  const bool is_cold_;
  std::unique_ptr<ReadableFile> file_;  // a cold one, from the first piece on
  std::uint64_t offset_ = 0;
  std::uint64_t begin_ = 0;  // of the piece
  Buffer piece_;
  bool saw_end_ = false;
};

}  // namespace meander::checkpoint
