// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "net/transport.h"

namespace meander::net {

// One per process: sockets of one process share it, and inproc endpoints exist inside it.
class ZmqContext {
 public:
  explicit ZmqContext(int io_threads = 1);
  ~ZmqContext();
  void* handle() const { return handle_; }

 private:
  void* handle_;
};

// Transport over ZeroMQ: one bound ROUTER (peers that connect to us) and one DEALER per peer that we
// connect to. Endpoints: inproc://name, ipc://path, tcp://host:port (port 0 or *: the system's).
// Big frames are sent without a copy. Unsent messages are bounded (kQueueMessagesMax per peer).
// send() and poll() belong to one thread; wake() may be called from any.
class ZmqTransport final : public Transport {
 public:
  // `name`: who we are to others. `bind`: where to listen; empty: nowhere.
  // kInvalid: a bad endpoint; kUnavailable: the port is taken ("port in use": which, what to do).
  static Result<std::unique_ptr<ZmqTransport>> create(ZmqContext& context, const std::string& name,
                                                      const std::string& bind);
  ~ZmqTransport() override;
  // The bound endpoint with its real port; empty when none.
  const std::string& endpoint() const;
  Status connect(const std::string& peer, const std::string& endpoint) override;
  void send(const std::string& peer, wire::Header header, std::vector<Buffer> frames) override;
  using Transport::send;

  // Waits until something arrives, wake() or `timeout`; hands each message that is there to
  // `deliver`, at most kTurnMessagesMax. Returns how many. A malformed message is dropped and
  // counted, never fatal.
  std::size_t poll(Duration timeout, const std::function<void(Message)>& deliver);
  void wake();

 private:
  struct Impl;
  explicit ZmqTransport(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace meander::net
