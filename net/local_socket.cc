// SPDX-License-Identifier: Apache-2.0
#include "net/local_socket.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

#include "common/check.h"

namespace meander::net {
namespace {

constexpr std::size_t kTextMax = 512;
constexpr std::size_t kDescriptorsMax = 4;
constexpr int kBacklog = 256;

struct Address {
  explicit Address(const std::string& name) {
    CHECK_LT(name.size(), sizeof where.sun_path);
    where.sun_family = AF_UNIX;
    std::memcpy(where.sun_path + 1, name.data(), name.size());  // a zero first: no file
    size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&where); }
  sockaddr_un where{};
  socklen_t size;
};

Descriptor open_socket() {
  return Descriptor(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

Status error(const char* what) {
  return unavailable(std::string(what) + ": " + std::strerror(errno));
}

bool is_same_user(int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == ::geteuid();
}

}  // namespace

Descriptor::~Descriptor() {
  if (fd_ >= 0) ::close(fd_);
}

Result<Descriptor> listen_locally(const std::string& name) {
  const Address address(name);
  Descriptor socket = open_socket();
  if (!socket.is_open() || ::bind(socket.get(), address.get(), address.size) != 0 ||
      ::listen(socket.get(), kBacklog) != 0) {
    return error("cannot listen on a local socket");
  }
  return socket;
}

Result<Descriptor> connect_locally(const std::string& name) {
  const Address address(name);
  Descriptor socket = open_socket();
  if (!socket.is_open() || ::connect(socket.get(), address.get(), address.size) != 0) {
    return error("cannot connect to a local socket");
  }
  if (!is_same_user(socket.get())) return unavailable("the local socket is another user's");
  return socket;
}

Descriptor accept_locally(const Descriptor& listening) {
  for (;;) {
    Descriptor socket(::accept4(listening.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket.is_open() && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (!socket.is_open() || is_same_user(socket.get())) return socket;
  }
}

bool send_locally(const Descriptor& socket, const std::string& text, std::span<const int> fds) {
  CHECK(!text.empty() && text.size() <= kTextMax && fds.size() <= kDescriptorsMax);
  alignas(cmsghdr) char control[CMSG_SPACE(kDescriptorsMax * sizeof(int))] = {};
  iovec bytes{const_cast<char*>(text.data()), text.size()};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size_bytes());
  }
  for (;;) {
    if (::sendmsg(socket.get(), &message, MSG_NOSIGNAL) >= 0) return true;
    if (errno != EINTR) return false;
  }
}

Heard receive_locally(const Descriptor& socket, std::string& text, std::vector<Descriptor>& fds) {
  alignas(cmsghdr) char control[CMSG_SPACE(kDescriptorsMax * sizeof(int))];
  char buffer[kTextMax];
  iovec bytes{buffer, sizeof buffer};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t size = -1;
  do {
    size = ::recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC);
  } while (size < 0 && errno == EINTR);
  if (size < 0) return errno == EAGAIN ? Heard::kNothing : Heard::kGone;
  fds.clear();
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
    for (std::size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
      fds.emplace_back(fd);
    }
  }
  text.assign(buffer, static_cast<std::size_t>(size));
  return size == 0 ? Heard::kGone : Heard::kMessage;
}

}  // namespace meander::net
