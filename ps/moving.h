// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/partition.h"
#include "net/transport.h"
#include "ps/mirror.h"
#include "ps/shard.h"

namespace meander::ps {

// A lane's part in a change of the number of lanes (docs/protocol.md, "Other lanes"). It sends its
// records to those who will own them, also to itself, while it goes on serving; and if it is one of
// the lanes to come, it gathers in a shard of its own what will be its. Knows no scheduler.
class Moving {
 public:
  // `here`: the shard that serves; null: the lane joins and has nothing to send. Outlives this.
  // CHECKs check_setup(order.next) when the lane is one of those to come.
  Moving(net::Transport& transport, const wire::Move& order, std::uint64_t cluster,
         std::uint32_t lane, Shard* here);
  // kInvalid: endpoints that cannot be. Call it once, first.
  Status connect(const wire::Move& order);

  std::uint64_t number() const { return number_; }
  wire::MoveStage stage() const;
  // One more round; the last one, when the order says `finish`.
  void on_order(const wire::Move& order);
  // A turn of sending. Not while somebody else uses the tables' cut.
  void send_some(TimePoint now);
  void interrupt() {
    if (copying_) copying_->interrupt();
  }

  // Rows or Mirror of another lane for this move; the answer goes back. False: not for this move.
  bool receive(const net::Message& message, wire::Header& answer);
  // Replicated of another lane. False: not for this move.
  bool on_taken(TimePoint now, const std::string& peer, const wire::Replicated& body);

  // All that the next set-up needs is here.
  bool is_whole() const;
  // What has been gathered.
  std::unique_ptr<Shard> take() { return std::move(next_); }

  void on_timer(TimePoint now);
  TimePoint next_timer() const;

 private:
  struct Source {
    MirrorReceiver receiver;
    bool is_done = false;
  };
  bool has_room() const;
  void send_piece(TimePoint now, CutReader::Piece& piece);
  void send_positions(TimePoint now);
  void take(std::uint32_t source, const net::Message& message);
  Status take_positions(std::uint32_t source, const wire::Mirror& mirror);

  net::Transport& transport_;
  const std::uint64_t cluster_, setup_, number_;
  const std::uint32_t lane_, lanes_after_;
  Shard* const here_;
  std::unique_ptr<Shard> next_;  // null: the lane is not one of those to come
  std::unique_ptr<Copying> copying_;
  std::map<std::uint32_t, std::unique_ptr<MirrorSender>> senders_;  // by lane to come; not itself
  std::map<std::uint32_t, Source> sources_;  // by lane that sends to this one; also itself
  wire::Mirror positions_;                   // of the first source that was done
  bool has_positions_ = false, is_broken_ = false, are_positions_sent_ = false;
  bool goes_on_ = false;  // there is more to send, and room for it
  PartitionMap after_;
  std::vector<PackedRecords> parts_;
};

}  // namespace meander::ps
