// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/clock.h"
#include "net/transport.h"
#include "ps/snapshot.h"

namespace meander::ps {

// What a lane sends its backup: numbered messages, sent again until they are taken, in order.
class MirrorSender {
 public:
  static constexpr std::size_t kOpenMax = 64;  // messages that were not taken yet
  static constexpr Duration kRetry = std::chrono::milliseconds(200);

  MirrorSender(net::Transport& transport, std::string peer, std::uint64_t cluster,
               std::uint64_t setup, std::uint64_t copy)
      : transport_(transport),
        peer_(std::move(peer)),
        cluster_(cluster),
        setup_(setup),
        copy_(copy) {}

  std::uint64_t copy() const { return copy_; }
  const std::string& peer() const { return peer_; }
  bool is_full() const { return open_.size() >= kOpenMax; }
  bool is_empty() const { return open_.empty(); }
  // Sends Rows, Mirror or Replicate: `body` is the header's, which gets set-up, copy and number.
  // `taken` is called when the backup has it (may be empty).
  template <class Body>
  void send(TimePoint now, wire::Header header, Body& body, std::vector<Buffer> frames,
            std::function<void()> taken = {}) {
    body.set_setup(setup_);
    body.set_copy(copy_);
    body.set_number(++last_);
    header.set_cluster(cluster_);
    if (open_.empty()) due_ = now + kRetry;
    transport_.send(peer_, header, frames);
    open_.push_back({std::move(header), std::move(frames), std::move(taken)});
  }
  void on_taken(TimePoint now, std::uint64_t number);
  // The backup is gone: all that is open counts as taken.
  void settle() { on_taken({}, last_); }
  void on_timer(TimePoint now);
  TimePoint next_timer() const { return open_.empty() ? kNever : due_; }

 private:
  struct Open {
    wire::Header header;
    std::vector<Buffer> frames;
    std::function<void()> taken;
  };
  net::Transport& transport_;
  const std::string peer_;
  const std::uint64_t cluster_, setup_, copy_;
  std::uint64_t last_ = 0;  // numbers last_ - open_.size() + 1 ... last_ are open
  std::deque<Open> open_;
  TimePoint due_ = kNever;
};

// Sends a backup all rows of a lane while these change: first all of them, then in rounds what was
// touched meanwhile, until a round is small; the last round is taken while pushes wait. Uses the
// tables' cut, so a generation on its way to storage is waited for, and one that begins ends a
// round, which is then taken again.
class Copying {
 public:
  static constexpr std::size_t kLastRoundBytes = std::size_t{2} << 20;
  static constexpr int kRoundsMax = 20;  // then the next one is the last, however large

  explicit Copying(Tables& tables) : tables_(tables) {}
  // The last round: no push may be applied until it is over.
  bool holds_pushes() const { return is_last_; }
  // All rows are sent, and nothing has changed since.
  bool is_over() const { return is_over_; }
  // Sends what fits. Not while somebody else uses the tables' cut.
  void send_some(TimePoint now, MirrorSender& sender);
  // Somebody else takes the tables' cut.
  void interrupt() {
    reader_.reset();
    is_last_ = false;
  }

 private:
  void begin_round();
  void end_round();

  Tables& tables_;
  std::unique_ptr<CutReader> reader_;      // of the round under way
  std::vector<std::uint64_t> from_, now_;  // by table: steps after which, and up to which it goes
  std::size_t round_bytes_ = 0;
  int rounds_ = 0;
  bool is_last_ = false, is_over_ = false;
};

// The backup's end: puts messages into order.
class MirrorReceiver {
 public:
  static constexpr std::size_t kEarlyMax = MirrorSender::kOpenMax;

  // Messages that can be taken now, in order; the last number that was taken goes back in
  // Replicated. A higher copy than before starts over.
  void receive(std::uint64_t copy, std::uint64_t number, const net::Message& message,
               const std::function<void(const net::Message&)>& take);
  std::uint64_t copy() const { return copy_; }
  std::uint64_t taken() const { return taken_; }

 private:
  std::uint64_t copy_ = 0, taken_ = 0;
  std::map<std::uint64_t, net::Message> early_;
};

}  // namespace meander::ps
