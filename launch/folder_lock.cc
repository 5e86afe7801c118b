// SPDX-License-Identifier: Apache-2.0
#include "launch/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

namespace meander::launch {
namespace {

constexpr Duration kNap = std::chrono::milliseconds(50);

}  // namespace

Result<FolderLock> FolderLock::take(const std::string& folder, const std::function<void()>& on_wait,
                                    Duration patience) {
  FolderLock lock(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (lock.fd_ < 0) return failed("cannot open " + folder + ": " + std::strerror(errno));
  const SystemClock clock;
  const TimePoint deadline = clock.now() + patience;
  for (bool has_waited = false; flock(lock.fd_, LOCK_EX | LOCK_NB) != 0; has_waited = true) {
    if (errno != EWOULDBLOCK && errno != EINTR) {
      return failed("cannot lock " + folder + ": " + std::strerror(errno));
    }
    if (clock.now() >= deadline) {
      return unavailable(folder + ": another program holds its lock and does not end");
    }
    if (!has_waited) on_wait();
    std::this_thread::sleep_for(kNap);
  }
  return lock;
}

FolderLock::FolderLock(FolderLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

FolderLock::~FolderLock() {
  if (fd_ >= 0) close(fd_);
}

}  // namespace meander::launch
