// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "net/transport.h"

namespace meander::net {

// A transport that a thread waits on. send(), connect() and poll() belong to that one thread.
class PolledTransport : public Transport {
 public:
  static constexpr std::size_t kTurnMessagesMax = 64;
  using Deliver = std::function<void(const Message&)>;

  struct Counts {
    std::uint64_t sent = 0, received = 0;  // messages
    std::uint64_t sent_bytes = 0, received_bytes = 0;
    std::uint64_t dropped = 0;    // unsent: the peer is unknown or its queue is full
    std::uint64_t malformed = 0;  // received and thrown away
  };

  // Where others connect to us, with the real port; empty when nowhere.
  virtual const std::string& endpoint() const = 0;
  // Waits until something arrives, wake() or `timeout`; hands each message that is there to
  // `deliver`, at most kTurnMessagesMax. Returns how many it took. A malformed one is dropped and
  // counted, never fatal. `deliver` may send and connect.
  virtual std::size_t poll(Duration timeout, const Deliver& deliver) = 0;
  virtual void wake() = 0;  // any thread
  virtual Counts counts() const = 0;
};

}  // namespace meander::net
