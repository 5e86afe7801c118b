// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <string>

#include "common/clock.h"
#include "common/status.h"

namespace meander::launch {

// Keeps other programs of this host out of what they lock the same folder for. The system takes it
// back when the program ends, however it ends.
class FolderLock {
 public:
  // Waits while another holds it; `on_wait` is called once, before. The folder must be there.
  // kUnavailable: another has held it for `patience`.
  static Result<FolderLock> take(const std::string& folder, const std::function<void()>& on_wait,
                                 Duration patience = std::chrono::hours(12));
  FolderLock(FolderLock&& other) noexcept;
  ~FolderLock();

 private:
  explicit FolderLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace meander::launch
