// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/status.h"

namespace meander::net {

// A file descriptor with an owner.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor();
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  bool is_open() const { return fd_ >= 0; }

 private:
  int fd_;
};

// Unix sockets between processes of one host and user, under names that no file system knows: who
// connects to a name has found this very host (and network namespace) or nobody. They carry short
// messages with descriptors, and tell when the other process is gone. Nothing here blocks.
Result<Descriptor> listen_locally(const std::string& name);
// kUnavailable: nobody listens under this name here.
Result<Descriptor> connect_locally(const std::string& name);
// The next one who connects; closed when there is none. Other users are turned away.
Descriptor accept_locally(const Descriptor& listening);

// False: the other side is gone, or takes nothing.
bool send_locally(const Descriptor& socket, const std::string& text, std::span<const int> fds);
enum class Heard { kNothing, kMessage, kGone };
Heard receive_locally(const Descriptor& socket, std::string& text, std::vector<Descriptor>& fds);

}  // namespace meander::net
