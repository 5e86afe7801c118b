// SPDX-License-Identifier: Apache-2.0
#include "common/direct_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace meander {
namespace {

// Of offsets, sizes and memory: as much as any device asks for.
constexpr std::size_t kUnit = 4096;

std::uint64_t round_down(std::uint64_t value) { return value / kUnit * kUnit; }
std::uint64_t round_up(std::uint64_t value) { return round_down(value + kUnit - 1); }

// The first whole units in memory that has one to spare.
Buffer at_unit(const Buffer& memory) {
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  const std::size_t skip = round_up(address) - address;
  return memory.slice(skip, round_down(memory.size() - skip));
}

bool set_direct(int fd, bool is_direct) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0) return false;
  return ::fcntl(fd, F_SETFL, is_direct ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
}

int write_all(int fd, const std::byte* bytes, std::size_t size) {
  while (size > 0) {
    const ssize_t n = ::write(fd, bytes, size);
    if (n < 0 && errno == EINTR) continue;
    // Said by who took the flag and cannot do it after all.
    if (n < 0 && errno == EINVAL && (::fcntl(fd, F_GETFL) & O_DIRECT) != 0 &&
        set_direct(fd, false)) {
      continue;
    }
    if (n < 0) return errno;
    bytes += n;
    size -= static_cast<std::size_t>(n);
  }
  return 0;
}

}  // namespace

TaskThread::TaskThread() : thread_([this] { serve(); }) {}

TaskThread::~TaskThread() {
  {
    const std::lock_guard lock(mutex_);
    is_ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void TaskThread::run(std::function<void()> task) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !task_; });
  task_ = std::move(task);
  changed_.notify_all();
}

void TaskThread::wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return !task_; });
}

void TaskThread::serve() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return task_ || is_ending_; });
    if (!task_) return;
    lock.unlock();
    task_();
    lock.lock();
    task_ = nullptr;
    changed_.notify_all();
  }
}

bool DirectWriter::can_write(int fd) { return set_direct(fd, true); }

int DirectWriter::append(const void* bytes, std::size_t size) {
  for (const auto* from = static_cast<const std::byte*>(bytes); size > 0;) {
    Buffer& block = blocks_[current_];
    if (block.empty()) block = at_unit(Buffer::allocate(kBlockBytes + kUnit)).slice(0, kBlockBytes);
    const std::size_t part = std::min(size, kBlockBytes - filled_);
    std::memcpy(block.data() + filled_, from, part);
    from += part;
    size -= part;
    filled_ += part;
    if (filled_ < kBlockBytes) continue;
    thread_.wait();
    if (error_ != 0) return error_;
    thread_.run([this, &block] { error_ = write_all(fd_, block.data(), kBlockBytes); });
    current_ ^= 1;
    filled_ = 0;
  }
  return 0;
}

int DirectWriter::finish() {
  thread_.wait();
  if (error_ != 0) return error_;
  set_direct(fd_, false);
  return error_ = write_all(fd_, blocks_[current_].data(), std::exchange(filled_, 0));
}

bool DirectReader::can_read(int fd) { return set_direct(fd, true); }

void DirectReader::fetch(Piece& piece) const {
  const std::size_t skip = piece.offset - round_down(piece.offset);
  const Buffer units = at_unit(piece.bytes);
  std::size_t done = 0;
  while (done < skip + piece.size) {
    const ssize_t n =
        ::pread(fd_, const_cast<std::byte*>(units.data()) + done,
                round_up(skip + piece.size) - done, static_cast<off_t>(piece.offset - skip + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EINVAL && (::fcntl(fd_, F_GETFL) & O_DIRECT) != 0 &&
        set_direct(fd_, false)) {
      continue;
    }
    if (n < 0) piece.error = errno;
    if (n <= 0) break;
    done += static_cast<std::size_t>(n);
    if (done % kUnit != 0) break;  // the end
  }
  piece.bytes = units.slice(skip, std::min(done - std::min(done, skip), piece.size));
}

int DirectReader::read(std::uint64_t offset, std::size_t size, Buffer& out) {
  thread_.wait();
  Piece piece = std::exchange(ahead_, {});
  const bool is_at_end = piece.bytes.size() < piece.size;
  if (piece.offset != offset || piece.error != 0 || (piece.size < size && !is_at_end)) {
    piece = {offset, size, memory_.take(size + 3 * kUnit), 0};
    fetch(piece);
    if (piece.error != 0) return piece.error;
  }
  out = piece.bytes.slice(0, std::min(size, piece.bytes.size()));
  if (out.size() < size) return 0;  // nothing follows
  ahead_ = {offset + size, size, memory_.take(size + 3 * kUnit), 0};
  thread_.run([this] { fetch(ahead_); });
  return 0;
}

}  // namespace meander
