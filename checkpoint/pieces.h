// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "common/buffer.h"
#include "common/status.h"
#include "common/storage.h"

namespace meander::checkpoint {

// A file of known size, front to back, of which one piece at a time is in memory.
class Pieces {
 public:
  Pieces(Storage& storage, const std::string& path, std::uint64_t size)
      : storage_(storage), path_(path), size_(size) {}

  const std::string& path() const { return path_; }
  std::uint64_t left() const { return size_ - offset_; }
  // The next `size` bytes, at most left(). kCorrupt: the file is shorter or longer than said.
  Status read(void* out, std::uint64_t size);
  void skip(std::uint64_t size);
  // kCorrupt: the file is longer than said. Reads at the end find this as well.
  Status check_end();

 private:
  Status load();  // the piece that begins at offset_

  Storage& storage_;
  const std::string& path_;
  const std::uint64_t size_;
  std::uint64_t offset_ = 0;
  std::uint64_t begin_ = 0;  // of the piece
  Buffer piece_;
  bool saw_end_ = false;
};

}  // namespace meander::checkpoint
