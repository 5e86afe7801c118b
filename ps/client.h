// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/partition.h"
#include "net/transport.h"
#include "ps/precision.h"

namespace meander::ps {

// Names a batch: exactly one holder of `epoch` trains seq of stream.
struct BatchId {
  std::uint32_t stream = 0;
  std::uint64_t epoch = 0;
  std::uint64_t seq = 0;
};

struct ClientOptions {
  std::vector<std::uint32_t> widths;  // by table: floats of a row
  WireFormat format;                  // how rows and gradients cross the wire
  Duration retry =
      std::chrono::milliseconds(500);  // unanswered: ask again, twice as late each time
  Duration retry_max = std::chrono::seconds(4);
  std::uint64_t cluster = 0;
};

// The worker's face of the parameter server: splits requests by lane, asks again until answered,
// joins the answers. Pulls are repeatable and lanes apply a push once, so repeats are harmless.
// Used by one thread, its node's.
class Client {
 public:
  struct Events {
    // Rows of every table are there: rows[table] is (keys, width) in the order of the pull's keys.
    // They may be taken; what is left is let go.
    std::function<void(TimePoint, BatchId, std::vector<Buffer>& rows)> pulled;
    // Every lane has applied the push, now or before.
    std::function<void(TimePoint, BatchId)> pushed;
    // A lane says that a newer epoch holds this stream: stop training it.
    std::function<void(TimePoint, std::uint32_t stream)> fenced;
  };

  Client(net::Transport& transport, ClientOptions options, Events events);
  ~Client();
  // Lanes by index; connects to each.
  Status set_lanes(const std::vector<std::string>& endpoints);
  const PartitionMap& partitions() const;
  // Somebody else serves a lane now: asks there for all that is owed.
  Status relocate(TimePoint now, std::uint32_t lane, const std::string& endpoint);

  // Starts a pull. keys[table] must be grouped by lane, in rising lane order. The client holds the
  // buffers until the batch is pushed and acknowledged (or dropped). `read_only`: for evaluation.
  void pull(TimePoint now, BatchId batch, const std::vector<Buffer>& keys, bool read_only);
  // Pushes gradients[table], (keys, width) in the order of the pull's keys. Every lane gets a push,
  // also an empty one: a push is what moves a stream's clock. The client holds the buffers as those
  // of the pull, but those of tables that cross the wire narrowed only until this returns.
  void push(TimePoint now, BatchId batch, const std::vector<Buffer>& gradients, bool last);
  // Forgets all of a stream (its lease is gone).
  void drop(std::uint32_t stream);
  // A read-only pull that has been used.
  void release(BatchId batch);

  // True if the message was for the client.
  bool on_message(TimePoint now, const net::Message& message);
  void on_timer(TimePoint now);
  TimePoint next_timer() const;
  std::size_t in_flight() const;
  std::uint64_t retries() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace meander::ps
