// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "net/polled_transport.h"

namespace zmq {
class context_t;
}

namespace meander::net {

// One per process: sockets of one process share it, and inproc endpoints exist inside it. All its
// transports must be gone before it; it then waits at most kLinger for what they still had to send.
class ZmqContext {
 public:
  explicit ZmqContext(int io_threads = 1);
  ~ZmqContext();
  ZmqContext(const ZmqContext&) = delete;
  ZmqContext& operator=(const ZmqContext&) = delete;
  zmq::context_t& get() const { return *context_; }

 private:
  std::unique_ptr<zmq::context_t> context_;
};

// Transport over ZeroMQ: one bound ROUTER (peers that connect to us) and one DEALER per peer that
// we connect to. Endpoints: inproc://name, tcp://host:port (port 0 or *: the system's).
// A peer that connects may be there before the one it connects to, and is heard again when either
// restarts (inproc: when connect() is called again). A newcomer takes over the name of an older
// peer. Big frames are sent without a copy. Unsent messages are bounded (kQueueMessagesMax per
// peer).
class ZmqTransport final : public PolledTransport {
 public:
  static constexpr int kQueueMessagesMax = 1000;             // for each peer and direction
  static constexpr std::chrono::milliseconds kLinger{1000};  // so that a last word still goes out
  static constexpr std::chrono::milliseconds kReconnectFirst{50}, kReconnectLast{2000};
  static constexpr std::chrono::milliseconds kConnectTimeout{5000};
  // A peer that answers no heartbeat of ZeroMQ (its I/O thread does) is disconnected.
  static constexpr std::chrono::milliseconds kHeartbeatEvery{2000}, kHeartbeatTimeout{10'000};

  // `name`: who we are to others, up to 255 bytes. `bind`: where to listen; empty: nowhere.
  // kInvalid: a bad endpoint, or one that is taken ("address already in use": what to do).
  static Result<std::unique_ptr<ZmqTransport>> create(ZmqContext& context, const std::string& name,
                                                      const std::string& bind);
  ~ZmqTransport() override;
  const std::string& endpoint() const override;
  Status connect(const std::string& peer, const std::string& endpoint) override;
  void send(const std::string& peer, const wire::Header& header,
            const std::vector<Buffer>& frames) override;
  Buffer allocate(const std::string& peer, std::size_t size) override;
  using Transport::send;
  std::size_t poll(Duration timeout, const Deliver& deliver) override;
  void wake() override;
  Counts counts() const override;

  // poll() also ends its wait when `descriptor` is readable.
  void watch(int descriptor);
  // An eventfd: adding to it is what wake() does.
  int wake_descriptor() const;

 private:
  struct Impl;
  explicit ZmqTransport(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace meander::net
