// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "net/polled_transport.h"
#include "net/zmq_transport.h"

namespace meander::net {

// Transport that talks to processes of its own host through shared memory, and to all others over
// ZeroMQ; which of both it is shows when two connect. Its endpoint is ZeroMQ's with the name of a
// local socket behind it: tcp://host:port?shm=name. Who connects to that name is here, and hands
// over the memory (shm_channel.h); everyone else ignores it. A frame that the memory has no room
// for goes over TCP, and everything does once a link is gone. Nothing outlives the processes.
class ShmTransport final : public PolledTransport {
 public:
  // How long poll() looks for messages before it sleeps: an answer that is on its way comes sooner
  // than a sleeper wakes.
  static constexpr std::chrono::microseconds kSpin{20};
  static constexpr std::size_t kLinksMax = 1024;

  // As ZmqTransport::create.
  static Result<std::unique_ptr<ShmTransport>> create(ZmqContext& context, const std::string& name,
                                                      const std::string& bind);
  ~ShmTransport() override;
  const std::string& endpoint() const override;
  Status connect(const std::string& peer, const std::string& endpoint) override;
  void send(const std::string& peer, const wire::Header& header,
            const std::vector<Buffer>& frames) override;
  using Transport::send;
  Buffer allocate(const std::string& peer, std::size_t size) override;
  std::size_t poll(Duration timeout, const Deliver& deliver) override;
  void wake() override;
  Counts counts() const override;

  // Peers that are reached through shared memory now.
  std::size_t links() const;

 private:
  struct Impl;
  explicit ShmTransport(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// The endpoint without what is for this host alone.
std::string remote_part(const std::string& endpoint);

}  // namespace meander::net
