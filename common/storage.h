// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/buffer.h"
#include "common/status.h"

namespace meander {

// A file being written. Nothing is promised until close() returns ok: then the bytes are durable.
class WritableFile {
 public:
  virtual ~WritableFile() = default;
  virtual Status append(const void* bytes, std::size_t size) = 0;
  // Makes durable what has been appended so far. kInvalid: this storage cannot do that before
  // close() (an object store).
  virtual Status sync() { return invalid("this storage makes no part of a file durable"); }
  virtual Status close() = 0;  // flush, fsync, close
};

// A file being read, by one thread at a time; the storage must outlive it.
class ReadableFile {
 public:
  virtual ~ReadableFile() = default;
  // As Storage::read_range. What comes next is likely to follow.
  virtual Result<Buffer> read(std::uint64_t offset, std::size_t size) = 0;
};

// All input and output of files goes through here: POSIX, memory, an object store
// (checkpoint/open_storage.h), or a simulated disk with faults. Errors: kNotFound; kInvalid (may
// not be used, or is of the wrong kind: a directory, a file); kExhausted (disk full); kUnavailable
// (an object store out of reach); kFailed. Each message names the path. Any thread may call it.
class Storage {
 public:
  virtual ~Storage() = default;
  // The whole file. POSIX maps it read-only, so resident memory grows only with what is touched.
  virtual Result<Buffer> read(const std::string& path) = 0;
  // `size` bytes from `offset` on, fewer at the end of the file, none beyond it. For reading a file
  // in pieces: what is resident is what the caller still holds.
  virtual Result<Buffer> read_range(const std::string& path, std::uint64_t offset,
                                    std::size_t size) {
    ASSIGN_OR_RETURN(const Buffer all, read(path));
    if (offset >= all.size()) return Buffer();
    return all.slice(offset, std::min<std::size_t>(size, all.size() - offset));
  }
  // The same of a file that nobody reads again soon: POSIX reads it past the system's cache, and
  // ahead of who reads it front to back.
  virtual Result<std::unique_ptr<ReadableFile>> open_cold(const std::string& path);
  virtual Result<std::unique_ptr<WritableFile>> create(const std::string& path) = 0;
  // For much that nobody reads soon: POSIX writes it past the system's cache, by a thread beside
  // the caller's.
  virtual Result<std::unique_ptr<WritableFile>> create_cold(const std::string& path) {
    return create(path);
  }
  // For work in progress: whole for readers of this machine once closed, but lost in a power cut.
  virtual Result<std::unique_ptr<WritableFile>> create_scratch(const std::string& path) {
    return create(path);
  }
  // Replaces `to` atomically and makes the change durable (directory fsync). Directories too.
  virtual Status rename(const std::string& from, const std::string& to) = 0;
  // A file, or a directory with all it holds. Ok when absent.
  virtual Status remove(const std::string& path) = 0;
  virtual Status make_directories(const std::string& path) = 0;
  // Makes the names in a directory durable, whoever put them there and died before he could.
  virtual Status sync_directory(const std::string&) { return {}; }
  // Names (not paths) inside a directory, sorted. kNotFound when there is none.
  virtual Result<std::vector<std::string>> list(const std::string& path) = 0;
  virtual bool exists(const std::string& path) = 0;
  // As exists(), for whoever acts on a "no": an error when it cannot be told.
  virtual Result<bool> has(const std::string& path) { return exists(path); }

  // Writes a whole file so that it appears whole or not at all: temporary name, fsync, rename.
  virtual Status write_atomic(const std::string& path, const void* bytes, std::size_t size);
  // The same, but only where there is no such file yet (else kInvalid): of two who do so at once,
  // one wins. (By itself this looks first, which is enough where nobody else writes.)
  virtual Status write_exclusive(const std::string& path, const void* bytes, std::size_t size);

  // Frees what writers that died have left in a directory, out of sight of list(): unfinished
  // uploads of an object store. Nobody may be writing there.
  virtual Status drop_unfinished(const std::string& path) { return {}; }
};

std::unique_ptr<Storage> make_posix_storage();
// Keeps files in memory. For tests.
std::unique_ptr<Storage> make_memory_storage();

inline std::string join_path(const std::string& a, const std::string& b) {
  if (a.empty() || (!b.empty() && b.front() == '/')) return b;
  return a.back() == '/' ? a + b : a + "/" + b;
}

}  // namespace meander
