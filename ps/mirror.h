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
  std::size_t open() const { return open_.size(); }
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

// Hands out all records of a lane while these change: first all of them, then in rounds what was
// touched meanwhile, until a round is small; the last round is taken while nothing is pushed. Uses
// the tables' cut, so a generation on its way to storage is waited for, and one that begins ends a
// round, which is then taken again.
class Copying {
 public:
  static constexpr std::size_t kLastRoundBytes = std::size_t{2} << 20;
  static constexpr int kRoundsMax = 20;       // then it is near, however large they are
  static constexpr std::size_t kOpenMax = 8;  // pieces on their way: pushes come between

  // When is_near(), the last round follows at once, or when it is ordered.
  enum class Last { kAtOnce, kOnOrder };
  Copying(Tables& tables, Last last) : tables_(tables), last_(last) {}

  // A round was small.
  bool is_near() const { return is_near_; }
  // The last round: no push may be applied until it is over.
  bool is_last() const { return is_last_; }
  // All records are handed out, and nothing has changed since.
  bool is_over() const { return is_over_; }
  // One more round, if it is near and waits for its order.
  void again() { is_resting_ = false; }
  // From now on nothing is pushed: what is under way, then the last round.
  void order_last() {
    is_ordered_ = true;
    is_resting_ = false;
  }
  // The next piece, which may be empty. False: for now there is none. Not while somebody else uses
  // the tables' cut.
  bool next(CutReader::Piece& piece);
  // Somebody else takes the tables' cut.
  void interrupt() {
    reader_.reset();
    is_last_ = is_resting_ = is_near_ = false;
  }

 private:
  void begin_round();
  void end_round();

  Tables& tables_;
  const Last last_;
  std::unique_ptr<CutReader> reader_;      // of the round under way
  std::vector<std::uint64_t> from_, now_;  // by table: steps after which, and up to which it goes
  std::size_t round_bytes_ = 0;
  int rounds_ = 0;
  bool is_near_ = false, is_resting_ = false, is_ordered_ = false;
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
