// SPDX-License-Identifier: Apache-2.0
#include "net/zmq_transport.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <utility>

namespace meander::net {
namespace {

// Below this many bytes a copy is cheaper than keeping the owner alive.
constexpr std::size_t kCopyBytesMax = 512;
constexpr std::size_t kFrameAlign = 8;

// One part of a message.
class Part {
 public:
  Part() { zmq_msg_init(&msg_); }
  explicit Part(std::size_t size) {
    CHECK_EQ(zmq_msg_init_size(&msg_, size), 0)
        << "no memory for a message of " << size << " bytes";
  }
  explicit Part(const Buffer& bytes);
  Part(Part&& other) noexcept : Part() { zmq_msg_move(&msg_, &other.msg_); }
  Part& operator=(Part&& other) noexcept {
    zmq_msg_move(&msg_, &other.msg_);
    return *this;
  }
  ~Part() { zmq_msg_close(&msg_); }

  zmq_msg_t* get() { return &msg_; }
  void* data() { return zmq_msg_data(&msg_); }
  std::size_t size() const { return zmq_msg_size(&msg_); }
  bool has_more() const { return zmq_msg_more(&msg_) != 0; }
  std::string text() { return {static_cast<const char*>(data()), size()}; }

 private:
  zmq_msg_t msg_;
};

Part::Part(const Buffer& bytes) {
  if (bytes.size() > kCopyBytesMax) {
    const auto release = [](void*, void* owner) { delete static_cast<Buffer*>(owner); };
    auto owner = std::make_unique<Buffer>(bytes);
    CHECK_EQ(zmq_msg_init_data(&msg_, owner->data(), owner->size(), release, owner.get()), 0);
    owner.release();
    return;
  }
  CHECK_EQ(zmq_msg_init_size(&msg_, bytes.size()), 0);
  if (!bytes.empty()) std::memcpy(data(), bytes.data(), bytes.size());
}

Part part_of(const std::string& text) {
  Part part(text.size());
  std::memcpy(part.data(), text.data(), text.size());
  return part;
}

Part part_of(const wire::Header& header) {
  const std::size_t size = header.ByteSizeLong();
  CHECK_LE(size, kHeaderBytesMax);
  Part part(size);
  header.SerializeWithCachedSizesToArray(static_cast<std::uint8_t*>(part.data()));
  return part;
}

// The bytes of a received part: kept where they are when they are aligned, else copied.
Buffer take(Part part) {
  if (part.size() <= kCopyBytesMax ||
      reinterpret_cast<std::uintptr_t>(part.data()) % kFrameAlign != 0) {
    return Buffer::copy_of(part.data(), part.size());
  }
  auto owner = std::make_shared<Part>(std::move(part));
  return Buffer::view(owner->data(), owner->size(), owner);
}

// A message as it came.
struct Arrival {
  std::string peer;
  Part header;
  std::vector<Buffer> frames;
  std::size_t parts = 0;  // header and frames, also those above the bound
  std::size_t bytes = 0;
};

bool parse(Arrival& arrival, Message& message) {
  // ZeroMQ calls a peer that has told no name a zero byte and a number.
  if (arrival.peer.empty() || arrival.peer.front() == '\0') return false;
  if (arrival.parts == 0 || arrival.parts > 1 + kFramesMax) return false;
  if (arrival.header.size() > kHeaderBytesMax) return false;
  if (!message.header.ParseFromArray(arrival.header.data(),
                                     static_cast<int>(arrival.header.size()))) {
    return false;
  }
  message.peer = std::move(arrival.peer);
  message.frames = std::move(arrival.frames);
  return true;
}

template <class Value>
void set_option(void* socket, int option, Value value) {
  CHECK_EQ(zmq_setsockopt(socket, option, &value, sizeof value), 0)
      << "option " << option << ": " << zmq_strerror(errno);
}

void set_options(void* socket, bool is_tcp) {
  const auto ms = [](std::chrono::milliseconds d) { return static_cast<int>(d.count()); };
  set_option(socket, ZMQ_LINGER, ms(ZmqTransport::kLinger));
  set_option(socket, ZMQ_SNDHWM, ZmqTransport::kQueueMessagesMax);
  set_option(socket, ZMQ_RCVHWM, ZmqTransport::kQueueMessagesMax);
  set_option(socket, ZMQ_MAXMSGSIZE, static_cast<std::int64_t>(kFrameBytesMax));
  set_option(socket, ZMQ_RECONNECT_IVL, ms(ZmqTransport::kReconnectFirst));
  set_option(socket, ZMQ_RECONNECT_IVL_MAX, ms(ZmqTransport::kReconnectLast));
  if (!is_tcp) return;
  set_option(socket, ZMQ_CONNECT_TIMEOUT, ms(ZmqTransport::kConnectTimeout));
  set_option(socket, ZMQ_HEARTBEAT_IVL, ms(ZmqTransport::kHeartbeatEvery));
  set_option(socket, ZMQ_HEARTBEAT_TIMEOUT, ms(ZmqTransport::kHeartbeatTimeout));
  set_option(socket, ZMQ_HEARTBEAT_TTL, ms(ZmqTransport::kHeartbeatTimeout));
}

Status endpoint_error(const char* verb, const std::string& endpoint, int error) {
  const std::string what = std::string("cannot ") + verb + " " + endpoint + ": ";
  switch (error) {
    case EADDRINUSE:
      return invalid(what +
                     "address already in use; stop the other process or choose another port");
    case EADDRNOTAVAIL:
    case ENODEV:
      return invalid(what + "no such address on this host; listen on one of its own or on tcp://*");
    case EACCES:
      return invalid(what + "permission denied; choose a port above 1023 or another path");
    case EINVAL:
    case EPROTONOSUPPORT:
      return invalid(what + "not an endpoint; write tcp://host:port, ipc://path or inproc://name");
    case EMFILE:
    case ENFILE:
      return {Code::kExhausted, what + "too many open files; raise the limit (ulimit -n)"};
    default:
      return invalid(what + zmq_strerror(error));
  }
}

// A ZeroMQ socket. ZeroMQ signals its descriptor only when something changes: a socket is quiet
// once a receive found nothing, until its descriptor is readable or we have sent on it (which may
// have taken the signal).
class Socket {
 public:
  Socket(void* context, int type) : handle_(zmq_socket(context, type)) {}
  Socket(Socket&& other) noexcept
      : handle_(std::exchange(other.handle_, nullptr)), is_quiet_(other.is_quiet_) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(handle_, other.handle_);
    std::swap(is_quiet_, other.is_quiet_);
    return *this;
  }
  ~Socket() {
    if (handle_ != nullptr) zmq_close(handle_);
  }
  void* get() const { return handle_; }
  bool is_quiet() const { return is_quiet_; }
  void stir() { is_quiet_ = false; }
  int descriptor() const {
    int fd = -1;
    std::size_t size = sizeof fd;
    CHECK_EQ(zmq_getsockopt(handle_, ZMQ_FD, &fd, &size), 0) << zmq_strerror(errno);
    return fd;
  }
  // False: nothing is there.
  bool receive(Part& part) {
    while (zmq_msg_recv(part.get(), handle_, ZMQ_DONTWAIT) < 0) {
      if (errno == EINTR) continue;
      is_quiet_ = true;
      return false;
    }
    return true;
  }
  bool send(Part& part, bool more) {
    is_quiet_ = false;
    while (zmq_msg_send(part.get(), handle_, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)) < 0) {
      if (errno != EINTR) return false;
    }
    return true;
  }

 private:
  void* handle_;
  bool is_quiet_ = false;
};

}  // namespace

ZmqContext::ZmqContext(int io_threads) : handle_(zmq_ctx_new()) {
  CHECK(handle_ != nullptr) << zmq_strerror(errno);
  CHECK_EQ(zmq_ctx_set(handle_, ZMQ_IO_THREADS, io_threads), 0);
}

ZmqContext::~ZmqContext() {
  while (zmq_ctx_term(handle_) != 0 && errno == EINTR) {
  }
}

struct ZmqTransport::Impl {
  struct Peer {
    std::string name;  // whom a DEALER is connected to; the ROUTER has none
    Socket socket;
  };

  Impl(ZmqContext& c, const std::string& n, int fd) : context(c), name(n), wake_fd(fd) {
    poll_items.push_back({wake_fd, POLLIN, 0});
  }
  ~Impl() { ::close(wake_fd); }

  Result<Socket> make_socket(int type, const std::string& where);
  Peer* add(Peer peer);
  Status bind(const std::string& where);
  Status connect(const std::string& peer, const std::string& where);
  void send(const std::string& peer, const wire::Header& header, const std::vector<Buffer>& frames);
  bool send_parts(Socket& socket, std::vector<Part> parts);
  std::size_t drain(const std::function<void(Message)>& deliver);
  bool receive(Peer& from, Arrival& arrival);
  void wait(Duration timeout);

  ZmqContext& context;
  const std::string name;
  const int wake_fd;
  std::string endpoint;
  std::vector<std::unique_ptr<Peer>> peers;
  std::vector<pollfd> poll_items;  // wake_fd, then the socket of each of peers
  Peer* router = nullptr;
  std::map<std::string, Peer*> dealers;
  std::size_t first = 0;  // whose turn it is to be drained first
  Counts counts;
};

Result<Socket> ZmqTransport::Impl::make_socket(int type, const std::string& where) {
  Socket socket(context.handle(), type);
  if (socket.get() == nullptr) return endpoint_error("open a socket for", where, errno);
  set_options(socket.get(), where.starts_with("tcp:"));
  return socket;
}

ZmqTransport::Impl::Peer* ZmqTransport::Impl::add(Peer peer) {
  poll_items.push_back({peer.socket.descriptor(), POLLIN, 0});
  peers.push_back(std::make_unique<Peer>(std::move(peer)));
  return peers.back().get();
}

Status ZmqTransport::Impl::bind(const std::string& where) {
  ASSIGN_OR_RETURN(Socket socket, make_socket(ZMQ_ROUTER, where));
  set_option(socket.get(), ZMQ_ROUTER_HANDOVER, 1);
  set_option(socket.get(), ZMQ_ROUTER_MANDATORY, 1);  // so that drops are seen and counted
  if (zmq_bind(socket.get(), where.c_str()) != 0) return endpoint_error("listen on", where, errno);
  char real[1024];
  std::size_t size = sizeof real;
  CHECK_EQ(zmq_getsockopt(socket.get(), ZMQ_LAST_ENDPOINT, real, &size), 0) << zmq_strerror(errno);
  endpoint = real;
  router = add({"", std::move(socket)});
  return {};
}

Status ZmqTransport::Impl::connect(const std::string& peer, const std::string& where) {
  ASSIGN_OR_RETURN(Socket socket, make_socket(ZMQ_DEALER, where));
  CHECK_EQ(zmq_setsockopt(socket.get(), ZMQ_ROUTING_ID, name.data(), name.size()), 0);
  if (zmq_connect(socket.get(), where.c_str()) != 0) {
    return endpoint_error("connect to", where, errno);
  }
  const auto known = dealers.find(peer);
  if (known == dealers.end()) {
    dealers[peer] = add({peer, std::move(socket)});
    return {};
  }
  const auto same = [&](const auto& p) { return p.get() == known->second; };
  const auto index = std::find_if(peers.begin(), peers.end(), same) - peers.begin();
  poll_items[1 + index].fd = socket.descriptor();
  known->second->socket = std::move(socket);
  return {};
}

void ZmqTransport::Impl::send(const std::string& peer, const wire::Header& header,
                              const std::vector<Buffer>& frames) {
  CHECK_LE(frames.size(), kFramesMax);
  const auto dealer = dealers.find(peer);
  const bool is_connected = dealer != dealers.end();
  Peer* to = is_connected ? dealer->second : router;
  std::vector<Part> parts;
  parts.reserve(2 + frames.size());
  if (!is_connected) parts.push_back(part_of(peer));
  parts.push_back(part_of(header));
  std::size_t bytes = parts.back().size();
  for (const Buffer& frame : frames) {
    CHECK_LE(frame.size(), kFrameBytesMax);
    bytes += frame.size();
    parts.push_back(Part(frame));
  }
  if (to == nullptr || !send_parts(to->socket, std::move(parts))) {
    ++counts.dropped;
    return;
  }
  ++counts.sent;
  counts.sent_bytes += bytes;
}

// The first part is refused when the queue is full or the peer unknown. A later one is refused when
// the peer goes away meanwhile; the rest must still be offered, or ZeroMQ would take the next
// message for it.
bool ZmqTransport::Impl::send_parts(Socket& socket, std::vector<Part> parts) {
  bool is_sent = true;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    is_sent = socket.send(parts[i], i + 1 < parts.size()) && is_sent;
    if (i == 0 && !is_sent) return false;
  }
  return is_sent;
}

bool ZmqTransport::Impl::receive(Peer& from, Arrival& arrival) {
  arrival.peer = from.name;
  bool is_name = &from == router, has_more = true;
  for (; has_more; is_name = false) {
    Part part;
    if (!from.socket.receive(part)) return false;  // at the first part only: messages are atomic
    has_more = part.has_more();
    if (is_name) {
      arrival.peer = part.text();
      continue;
    }
    arrival.bytes += part.size();
    if (++arrival.parts == 1) {
      arrival.header = std::move(part);
    } else if (arrival.parts <= 1 + kFramesMax) {
      arrival.frames.push_back(take(std::move(part)));
    }
  }
  return true;
}

std::size_t ZmqTransport::Impl::drain(const std::function<void(Message)>& deliver) {
  std::size_t handled = 0;
  ++first;
  for (std::size_t i = 0; i < peers.size() && handled < kTurnMessagesMax; ++i) {
    Peer& from = *peers[(first + i) % peers.size()];
    while (!from.socket.is_quiet() && handled < kTurnMessagesMax) {
      Arrival arrival;
      if (!receive(from, arrival)) break;
      ++handled;
      ++counts.received;
      counts.received_bytes += arrival.bytes;
      Message message;
      if (parse(arrival, message)) {
        deliver(std::move(message));
      } else {
        ++counts.malformed;
      }
    }
  }
  return handled;
}

void ZmqTransport::Impl::wait(Duration timeout) {
  using std::chrono::seconds;
  const Duration bounded = std::clamp<Duration>(timeout, Duration(0), seconds(3600));
  const timespec limit{bounded / seconds(1), (bounded % seconds(1)).count()};
  if (::ppoll(poll_items.data(), poll_items.size(), &limit, nullptr) <= 0) return;
  if (poll_items[0].revents != 0) {
    std::uint64_t calls;
    (void)!::read(wake_fd, &calls, sizeof calls);
  }
  for (std::size_t i = 0; i < peers.size(); ++i) {
    if (poll_items[1 + i].revents != 0) peers[i]->socket.stir();
  }
}

ZmqTransport::ZmqTransport(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ZmqTransport::~ZmqTransport() = default;

Result<std::unique_ptr<ZmqTransport>> ZmqTransport::create(ZmqContext& context,
                                                           const std::string& name,
                                                           const std::string& bind) {
  CHECK(!name.empty() && name.size() <= 255) << "a peer's name: " << name;
  const int wake_fd = ::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (wake_fd < 0) return endpoint_error("open an event for", name, errno);
  auto impl = std::make_unique<Impl>(context, name, wake_fd);
  if (!bind.empty()) RETURN_IF_ERROR(impl->bind(bind));
  return std::unique_ptr<ZmqTransport>(new ZmqTransport(std::move(impl)));
}

const std::string& ZmqTransport::endpoint() const { return impl_->endpoint; }
const ZmqTransport::Counts& ZmqTransport::counts() const { return impl_->counts; }

Status ZmqTransport::connect(const std::string& peer, const std::string& endpoint) {
  return impl_->connect(peer, endpoint);
}

void ZmqTransport::send(const std::string& peer, wire::Header header, std::vector<Buffer> frames) {
  impl_->send(peer, header, frames);
}

std::size_t ZmqTransport::poll(Duration timeout, const std::function<void(Message)>& deliver) {
  if (const std::size_t handled = impl_->drain(deliver); handled > 0) return handled;
  impl_->wait(timeout);
  return impl_->drain(deliver);
}

void ZmqTransport::wake() {
  const std::uint64_t one = 1;
  (void)!::write(impl_->wake_fd, &one, sizeof one);
}

}  // namespace meander::net
