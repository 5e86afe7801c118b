// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "scheduler/members.h"
#include "scheduler/post.h"

namespace meander::scheduler {

// Who trains which stream: fences a stream at every lane, then leases it to a live worker
// (docs/protocol.md, "Leases").
class Leases {
 public:
  struct Lease {
    enum State {
      kUnclaimed,  // a predecessor may have granted it: its holder's heartbeat will show it
      kClaimed,    // it has; the lanes are asked whether they know of a later one
      kFree,       // nobody's; a new epoch is due
      kFencing,    // the lanes are being told of the epoch
      kReady,      // fenced; waits for a worker
      kGranted,    // sent; the worker's heartbeat has not shown it yet
      kHeld,
      kEnded,  // all of the stream is applied at every lane
    };
    State state = kFree;
    std::uint64_t epoch = 0;
    std::uint64_t next = 0;     // where the holder begins: all lanes have applied what is below
    std::uint64_t reached = 0;  // some lane has applied what is below
    std::uint32_t worker = 0;   // the holder, when kGranted or kHeld
    double progress = 0;

    bool has_holder() const { return state == kGranted || state == kHeld || state == kClaimed; }

   private:
    friend class Leases;
    std::vector<std::optional<wire::Fenced>> fenced;  // by lane
    std::vector<TimePoint> next_fence;
    TimePoint next_lease{};
  };

  Leases(std::uint32_t streams, std::uint32_t lanes) : leases_(streams), lanes_(lanes) {}

  // Epochs are above `epoch` from now on.
  void count_from(std::uint64_t epoch) { last_epoch_ = epoch; }
  // Who trains goes on: streams that somebody says it holds are left to it. The others are free
  // after `patience`, or once every worker has spoken.
  void await_claims(Duration patience);
  // After a set-up: nobody holds anything. Returns the epoch that lanes begin with.
  std::uint64_t reset();
  // The same for a set-up that goes on where the one before was, with so many lanes.
  std::uint64_t move_to(std::uint32_t lanes);
  // One round. `cut`: the one that is going on, 0 for none.
  void drive(Post& post, const std::vector<WorkerMember>& workers, std::uint64_t setup,
             std::uint64_t cut);
  void on_fenced(std::uint32_t lane, const wire::Fenced& fenced);
  void on_progress(std::uint32_t worker, const wire::StreamProgress& progress);
  // Takes away all that a worker holds.
  void revoke_all(std::uint32_t worker);

  const std::vector<Lease>& all() const { return leases_; }
  bool all_ended() const;
  bool all_held() const;  // or ended
  double done() const;    // share of all streams

 private:
  void settle_claims(Post& post, const std::vector<WorkerMember>& workers, std::uint64_t setup);
  void claim(Lease& lease, std::uint32_t worker, std::uint64_t epoch) const;
  void ask_lanes(Lease& lease) const;
  void fence(Post& post, std::uint32_t stream);
  void settle_fence(Lease& lease);
  void grant(const std::vector<WorkerMember>& workers, std::uint64_t setup, std::uint32_t stream);
  void send(Post& post, const std::vector<WorkerMember>& workers, std::uint64_t setup,
            std::uint64_t cut, std::uint32_t stream);
  void rebalance(const std::vector<WorkerMember>& workers, std::uint64_t setup);
  std::vector<std::uint32_t> load(std::size_t workers) const;

  std::vector<Lease> leases_;
  std::uint32_t lanes_;
  std::uint64_t last_epoch_ = 0;
  std::optional<Duration> patience_;  // with claims, until it is known when it ends
  TimePoint claims_end_ = kNever;
};

}  // namespace meander::scheduler
