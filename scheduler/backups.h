// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "proto/journal.pb.h"
#include "scheduler/leases.h"
#include "scheduler/members.h"
#include "scheduler/post.h"

namespace meander::scheduler {

// The second process of each lane: it stands by, the lane that serves keeps it in step, and it
// takes over when that one is lost (docs/protocol.md, "A lane and its backup"). "lane/3" is whoever
// serves lane 3 and "backup/3" the other one: Post knows which process that is.
class Backups {
 public:
  // A lane that is silent for so long is taken for lost when its backup is in step. Taken wrongly
  // it only costs that it has to be copied again.
  static constexpr Duration kSilence = std::chrono::seconds(1);
  static constexpr Duration kCheckEvery = std::chrono::milliseconds(250);

  // replicas: 0 or 1 for each lane.
  Backups(std::uint32_t lanes, std::uint32_t replicas);
  bool are_wanted() const { return !pairs_.empty(); }
  // Copies that this scheduler orders are above all of its predecessors'.
  void count_from(std::uint64_t base);

  LaneMember& member(std::uint32_t lane) { return pairs_[lane].member; }
  std::uint64_t turn(std::uint32_t lane) const { return are_wanted() ? pairs_[lane].turn : 0; }
  bool is_in_step(std::uint32_t lane) const { return are_wanted() && pairs_[lane].is_in_step; }
  std::uint32_t in_step() const;  // how many are
  std::uint32_t failovers() const { return failovers_; }

  void on_hello(TimePoint now, std::uint32_t lane, const wire::Hello& hello);
  // Any other word of the backup.
  void on_message(TimePoint now, std::uint32_t lane, const wire::Header& header,
                  std::uint64_t setup);
  // Words of the lane that serves.
  void on_ready(std::uint32_t lane, const wire::LaneReady& ready);
  void on_fenced(std::uint32_t lane, const wire::Fenced& fenced);
  void on_in_step(std::uint32_t lane, const wire::InStep& in_step, std::uint64_t setup);

  // The lane that served is lost, and its backup is in step: they change places. `serving` is not
  // ready until drive() says so.
  void take_over(std::uint32_t lane, LaneMember& serving, Post& post);
  bool is_taking_over(std::uint32_t lane) const {
    return are_wanted() && pairs_[lane].state != Pair::kServing;
  }
  // The backup is lost: the lane serves without.
  void lose(std::uint32_t lane);
  // The cluster rolls back: all is copied again.
  void reset();

  // Sends what is due. `setup`: of backups, complete but for the incarnation. `is_successor`: those
  // that were never heard of may be there. True: a lane has just been taken over, and workers must
  // be told.
  bool drive(Post& post, std::vector<LaneMember>& lanes, const Leases& leases,
             const wire::LaneSetup& setup, bool is_successor);

  // Who serves, for the journal.
  void note(journal::State& state) const;
  void go_on(const journal::State& state, Post& post);

 private:
  struct Pair {
    LaneMember member;  // the one that stands by
    std::uint64_t turn = 0, copy = 0;
    bool is_in_step = false;
    bool is_swapped = false;  // the process that was started as the backup serves
    enum State { kServing, kPromoting, kFencing } state = kServing;
    std::vector<std::uint64_t> fenced;  // by stream: epoch that the new one refuses all below of
    TimePoint next_word{};              // to the lane that serves
  };
  void stand_by(Post& post, std::uint32_t lane, const wire::LaneSetup& setup, bool is_successor);
  void advise(Post& post, std::uint32_t lane, const LaneMember& serving, const Leases& leases,
              std::uint64_t setup);
  static bool is_fenced(const Pair& pair, const Leases& leases);

  std::vector<Pair> pairs_;  // by lane; empty: there are no backups
  std::uint32_t failovers_ = 0;
};

}  // namespace meander::scheduler
