// SPDX-License-Identifier: Apache-2.0
#include "net/zmq_transport.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <zmq.hpp>

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
// Loopback has no delay to bridge: a socket buffer that stays in the cache is worth a tenth of pull
// and push (bench_wire tcp). Between hosts the system sizes them.
constexpr int kLoopbackBufferBytes = 256 << 10;

zmq::message_t part_of(const Buffer& bytes) {
  if (bytes.size() <= kCopyBytesMax) return {bytes.data(), bytes.size()};
  const auto release = [](void*, void* owner) { delete static_cast<Buffer*>(owner); };
  auto owner = std::make_unique<Buffer>(bytes);
  zmq::message_t part(owner->data(), owner->size(), release, owner.get());
  owner.release();
  return part;
}

zmq::message_t part_of(const wire::Header& header) {
  const std::size_t size = header.ByteSizeLong();
  CHECK_LE(size, kHeaderBytesMax);
  zmq::message_t part(size);
  header.SerializeWithCachedSizesToArray(part.data<std::uint8_t>());
  return part;
}

// The bytes of a received part: kept where they are when they are aligned, else copied.
Buffer take(zmq::message_t part) {
  if (part.size() <= kCopyBytesMax ||
      reinterpret_cast<std::uintptr_t>(part.data()) % kFrameAlign != 0) {
    return Buffer::copy_of(part.data(), part.size());
  }
  auto owner = std::make_shared<zmq::message_t>(std::move(part));
  return Buffer::view(owner->data(), owner->size(), owner);
}

// A message as it came.
struct Arrival {
  std::string peer;
  zmq::message_t header;
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

void set_options(zmq::socket_t& socket, const std::string& endpoint) {
  const auto ms = [](std::chrono::milliseconds d) { return static_cast<int>(d.count()); };
  socket.set(zmq::sockopt::linger, ms(ZmqTransport::kLinger));
  socket.set(zmq::sockopt::sndhwm, ZmqTransport::kQueueMessagesMax);
  socket.set(zmq::sockopt::rcvhwm, ZmqTransport::kQueueMessagesMax);
  socket.set(zmq::sockopt::maxmsgsize, static_cast<std::int64_t>(kFrameBytesMax));
  socket.set(zmq::sockopt::reconnect_ivl, ms(ZmqTransport::kReconnectFirst));
  socket.set(zmq::sockopt::reconnect_ivl_max, ms(ZmqTransport::kReconnectLast));
  if (!endpoint.starts_with("tcp:")) return;
  if (endpoint.starts_with("tcp://127.")) {
    socket.set(zmq::sockopt::sndbuf, kLoopbackBufferBytes);
    socket.set(zmq::sockopt::rcvbuf, kLoopbackBufferBytes);
  }
  socket.set(zmq::sockopt::connect_timeout, ms(ZmqTransport::kConnectTimeout));
  socket.set(zmq::sockopt::heartbeat_ivl, ms(ZmqTransport::kHeartbeatEvery));
  socket.set(zmq::sockopt::heartbeat_timeout, ms(ZmqTransport::kHeartbeatTimeout));
  socket.set(zmq::sockopt::heartbeat_ttl, ms(ZmqTransport::kHeartbeatTimeout));
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
      return invalid(what + "not an endpoint; write tcp://host:port or inproc://name");
    case EMFILE:
    case ENFILE:
      return {Code::kExhausted, what + "too many open files; raise the limit (ulimit -n)"};
    default:
      return invalid(what + zmq_strerror(error));
  }
}

// A ZeroMQ socket. ZeroMQ signals its descriptor only when something changes: a socket is quiet
// once a receive found nothing, until its descriptor is readable or we have sent on it (which may
// have taken the signal). Sending and receiving go by return codes: a full queue is no exception.
struct Socket {
  zmq::socket_t handle;
  bool is_quiet = false;

  int descriptor() const { return handle.get(zmq::sockopt::fd); }
  // False: nothing is there.
  bool receive(zmq::message_t& part) {
    while (zmq_msg_recv(part.handle(), handle.handle(), ZMQ_DONTWAIT) < 0) {
      if (errno == EINTR) continue;
      is_quiet = true;
      return false;
    }
    return true;
  }
  bool send(zmq::message_t& part, bool more) {
    is_quiet = false;
    const int flags = ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0);
    while (zmq_msg_send(part.handle(), handle.handle(), flags) < 0) {
      if (errno != EINTR) return false;
    }
    return true;
  }
};

}  // namespace

ZmqContext::ZmqContext(int io_threads) : context_(std::make_unique<zmq::context_t>(io_threads)) {}
ZmqContext::~ZmqContext() = default;

struct ZmqTransport::Impl {
  struct Peer {
    std::string name;  // whom a DEALER is connected to; the ROUTER has none
    Socket socket;
  };

  Impl(ZmqContext& c, const std::string& n, int fd) : context(c), name(n), wake_fd(fd) {
    poll_items.push_back({wake_fd, POLLIN, 0});
  }
  ~Impl() { ::close(wake_fd); }

  Result<Socket> make_socket(zmq::socket_type type, const std::string& where);
  Peer* add(Peer peer);
  Status bind(const std::string& where);
  Status connect(const std::string& peer, const std::string& where);
  void send(const std::string& peer, const wire::Header& header, const std::vector<Buffer>& frames);
  bool send_parts(Socket& socket);
  std::size_t drain(const Deliver& deliver);
  bool receive(Peer& from, Arrival& arrival);
  void wait(Duration timeout);

  ZmqContext& context;
  const std::string name;
  const int wake_fd;
  std::string endpoint;
  std::vector<std::unique_ptr<Peer>> peers;
  std::vector<pollfd> poll_items;     // wake_fd, the socket of each of peers, what is watched
  std::vector<zmq::message_t> parts;  // of the message being sent
  Peer* router = nullptr;
  std::map<std::string, Peer*> dealers;
  BufferPool memory;      // of frames to be sent
  std::size_t first = 0;  // whose turn it is to be drained first
  Message received;       // of a drain(): its memory is used again
  Counts counts;
};

Result<Socket> ZmqTransport::Impl::make_socket(zmq::socket_type type, const std::string& where) {
  try {
    Socket socket{zmq::socket_t(context.get(), type)};
    set_options(socket.handle, where);
    return socket;
  } catch (const zmq::error_t& error) {
    return endpoint_error("open a socket for", where, error.num());
  }
}

ZmqTransport::Impl::Peer* ZmqTransport::Impl::add(Peer peer) {
  poll_items.insert(poll_items.begin() + 1 + static_cast<std::ptrdiff_t>(peers.size()),
                    {peer.socket.descriptor(), POLLIN, 0});
  peers.push_back(std::make_unique<Peer>(std::move(peer)));
  return peers.back().get();
}

Status ZmqTransport::Impl::bind(const std::string& where) {
  ASSIGN_OR_RETURN(Socket socket, make_socket(zmq::socket_type::router, where));
  socket.handle.set(zmq::sockopt::router_handover, true);
  socket.handle.set(zmq::sockopt::router_mandatory, true);  // so that drops are seen and counted
  try {
    socket.handle.bind(where);
  } catch (const zmq::error_t& error) {
    return endpoint_error("listen on", where, error.num());
  }
  endpoint = socket.handle.get(zmq::sockopt::last_endpoint);
  router = add({"", std::move(socket)});
  return {};
}

Status ZmqTransport::Impl::connect(const std::string& peer, const std::string& where) {
  ASSIGN_OR_RETURN(Socket socket, make_socket(zmq::socket_type::dealer, where));
  socket.handle.set(zmq::sockopt::routing_id, name);
  try {
    socket.handle.connect(where);
  } catch (const zmq::error_t& error) {
    return endpoint_error("connect to", where, error.num());
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
  parts.clear();
  if (!is_connected) parts.emplace_back(peer);
  parts.push_back(part_of(header));
  std::size_t bytes = parts.back().size();
  for (const Buffer& frame : frames) {
    CHECK_LE(frame.size(), kFrameBytesMax);
    bytes += frame.size();
    parts.push_back(part_of(frame));
  }
  const bool is_sent = to != nullptr && send_parts(to->socket);
  parts.clear();
  if (!is_sent) {
    ++counts.dropped;
    return;
  }
  ++counts.sent;
  counts.sent_bytes += bytes;
}

// The first part is refused when the queue is full or the peer unknown. A later one is refused when
// the peer goes away meanwhile; the rest must still be offered, or ZeroMQ would take the next
// message for it.
bool ZmqTransport::Impl::send_parts(Socket& socket) {
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
    zmq::message_t part;
    if (!from.socket.receive(part)) return false;  // at the first part only: messages are atomic
    has_more = part.more();
    if (is_name) {
      arrival.peer = part.to_string();
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

std::size_t ZmqTransport::Impl::drain(const Deliver& deliver) {
  std::size_t handled = 0;
  ++first;
  for (std::size_t i = 0; i < peers.size() && handled < kTurnMessagesMax; ++i) {
    Peer& from = *peers[(first + i) % peers.size()];
    while (!from.socket.is_quiet && handled < kTurnMessagesMax) {
      Arrival arrival;
      if (!receive(from, arrival)) break;
      ++handled;
      ++counts.received;
      counts.received_bytes += arrival.bytes;
      if (parse(arrival, received)) {
        deliver(received);
        received.frames.clear();  // who wants them has them
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
    if (poll_items[1 + i].revents != 0) peers[i]->socket.is_quiet = false;
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
ZmqTransport::Counts ZmqTransport::counts() const { return impl_->counts; }
int ZmqTransport::wake_descriptor() const { return impl_->wake_fd; }

void ZmqTransport::watch(int descriptor) { impl_->poll_items.push_back({descriptor, POLLIN, 0}); }

Status ZmqTransport::connect(const std::string& peer, const std::string& endpoint) {
  return impl_->connect(peer, endpoint);
}

Buffer ZmqTransport::allocate(const std::string&, std::size_t size) {
  return impl_->memory.take(size);
}

void ZmqTransport::send(const std::string& peer, const wire::Header& header,
                        const std::vector<Buffer>& frames) {
  impl_->send(peer, header, frames);
}

std::size_t ZmqTransport::poll(Duration timeout, const Deliver& deliver) {
  if (const std::size_t handled = impl_->drain(deliver); handled > 0) return handled;
  impl_->wait(timeout);
  return impl_->drain(deliver);
}

void ZmqTransport::wake() {
  const std::uint64_t one = 1;
  (void)!::write(impl_->wake_fd, &one, sizeof one);
}

}  // namespace meander::net
