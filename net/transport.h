// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "common/buffer.h"
#include "common/clock.h"
#include "common/status.h"
#include "proto/wire.pb.h"

namespace meander::net {

// A header and raw arrays. Frames arrive aligned for 8-byte values whatever the wire did to them;
// their lengths are a peer's word and must be checked before use.
struct Message {
  std::string peer;  // who sent it: "scheduler", "lane/3", "backup/3", "worker/0"
  wire::Header header;
  std::vector<Buffer> frames;
};

// Bounds of a message; one beyond them is dropped where it arrives, and is a bug where it is sent.
constexpr std::size_t kFramesMax = 1024;
constexpr std::size_t kHeaderBytesMax = std::size_t{1} << 20;
constexpr std::size_t kFrameBytesMax = std::size_t{1} << 30;

std::string lane_name(std::uint32_t index);    // "lane/3"
std::string backup_name(std::uint32_t index);  // "backup/3": its second process
std::string worker_name(std::uint32_t index);  // "worker/0"
inline const std::string kSchedulerName = "scheduler";

// How a role talks to its peers. A message may be lost, delayed, repeated or overtaken: whoever
// needs an answer asks again, by a deadline. Not thread safe: a role's own thread uses it.
class Transport {
 public:
  virtual ~Transport() = default;
  // Makes `peer` reachable at `endpoint`; a second call replaces the first. A peer that connected
  // to us is reachable without.
  virtual Status connect(const std::string& peer, const std::string& endpoint) = 0;
  // Never blocks. A message to an unknown or overfull peer is dropped and counted: to the sender
  // that is no different from one lost on the way. The frames' bytes may be read until the last
  // copy of their Buffers is gone, so nobody may write them any more.
  virtual void send(const std::string& peer, const wire::Header& header,
                    const std::vector<Buffer>& frames) = 0;
  void send(const std::string& peer, const wire::Header& header) { send(peer, header, {}); }
  // Memory for a frame that will be sent to `peer`: where there is a choice, what the wire can send
  // without a copy. Not initialised, at a 64-byte boundary.
  virtual Buffer allocate(const std::string& peer, std::size_t size) {
    return Buffer::allocate(size);
  }
};

// A role as a state machine: lane, worker or scheduler. It reads no clock, socket or disk but what
// it was given; whoever drives it (launch/ on threads, the simulator in one) calls these in turn.
class Node {
 public:
  virtual ~Node() = default;
  // The message ends with the call; copies of its Buffers keep their bytes.
  virtual void on_message(TimePoint now, const Message& message) = 0;
  // Called at or after next_timer(), and once at the start.
  virtual void on_timer(TimePoint now) = 0;
  virtual TimePoint next_timer() const = 0;  // kNever: only messages matter
  virtual bool finished() const = 0;         // the role has ended; nothing more will come
};

}  // namespace meander::net
