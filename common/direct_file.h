// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

#include "common/buffer.h"

namespace meander {

// Files of a POSIX system past its page cache (O_DIRECT), each with a thread that waits for the
// disk while its owner goes on. Copying through the cache takes the processor several times as long
// as the disk takes, where pages have to be found first. Each file has one owner; errors are
// errno's.

// Does one task at a time, at its maker's priority.
class TaskThread {
 public:
  TaskThread();
  ~TaskThread();                         // after the task
  void run(std::function<void()> task);  // after the one before
  void wait();                           // for the task

 private:
  void serve();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> task_;  // empty: idle
  bool is_ending_ = false;
  std::thread thread_;
};

class DirectWriter {
 public:
  static constexpr std::size_t kBlockBytes = std::size_t{2} << 20;  // two are in memory

  // Whether the file that `fd` is open on can be written so: from its beginning on.
  static bool can_write(int fd);
  explicit DirectWriter(int fd) : fd_(fd) {}
  ~DirectWriter() { thread_.wait(); }

  int append(const void* bytes, std::size_t size);
  // All is with the system, by way of its cache what is no whole block at the end. From here on
  // the file is written without this object.
  int finish();

 private:
  const int fd_;
  std::array<Buffer, 2> blocks_;
  std::size_t current_ = 0, filled_ = 0;  // the block that is filled, and how far
  int error_ = 0;                         // of the block before: the task's while it runs
  TaskThread thread_;
};

class DirectReader {
 public:
  // Whether the file that `fd` is open on can be read so.
  static bool can_read(int fd);
  explicit DirectReader(int fd) : fd_(fd) {}
  ~DirectReader() { thread_.wait(); }

  // Bytes [offset, offset + size), fewer at the file's end, into `out`. Then as many of those that
  // follow are fetched: who reads front to back finds them there.
  int read(std::uint64_t offset, std::size_t size, Buffer& out);

 private:
  struct Piece {
    std::uint64_t offset = 0;
    std::size_t size = 0;  // asked for; 0: there is none
    Buffer bytes;
    int error = 0;
  };
  void fetch(Piece& piece) const;

  const int fd_;
  Piece ahead_;  // the task's while it runs
  BufferPool memory_;
  TaskThread thread_;
};

}  // namespace meander
