// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "scheduler/members.h"
#include "scheduler/post.h"

namespace meander::scheduler {

// The number of lanes changes while training goes on (docs/protocol.md, "Other lanes"). Lanes that
// join say Hello and wait; then all send their records to those who will own them and serve on;
// when little is left, a cut of the cluster stops the pushes, they send the rest, and the scheduler
// sets the lanes to come up with what these have. Until then nothing has changed, so whatever goes
// wrong costs only that it begins again.
class Scaling {
 public:
  static constexpr std::uint32_t kMovesMax = 8;  // tries

  // Timeouts: a lane that joins must be there within `join`, and is lost when silent for `lease`.
  Scaling(Duration join, Duration lease) : join_(join), lease_(lease) {}
  // Moves that this scheduler orders are above all of its predecessors'.
  void count_from(std::uint64_t base) { move_ = base; }

  // How many lanes there are to be; 0: as many as there are.
  std::uint32_t target() const { return target_; }
  void want(std::uint32_t target);
  // Begins again: what was sent so far is of no use.
  void restart(Post& post, const std::vector<LaneMember>& lanes);
  void give_up(Post& post, const std::vector<LaneMember>& lanes, const std::string& why);
  // What is waited for, or why it was given up.
  std::string message(const std::vector<LaneMember>& lanes) const;
  bool was_given_up() const { return target_ == 0 && !why_.empty(); }

  // Lanes from this one on need not wait any more.
  void send_away(Post& post, std::uint32_t first);
  // A lane beyond the present ones, or one that is no more. True: it was one.
  bool on_stranger(Post& post, const std::string& peer, const wire::Header& header);
  void bury(const std::string& peer);
  void on_moved(const std::string& peer, const wire::Moved& moved);

  // Sends what is due; moves on where it can. `next`: of the set-up to come, but for the
  // incarnation.
  void drive(Post& post, const std::vector<LaneMember>& lanes, const wire::LaneSetup& next);
  bool is_moving() const { return phase_ >= kMoving; }
  // Little is left to send: a cut may begin.
  bool is_near(const std::vector<LaneMember>& lanes) const;
  // Nobody pushes any more.
  void finish(TimePoint now);
  bool is_finishing() const { return phase_ == kFinishing; }
  // Since when; then a try that does not come to its end is given up.
  bool is_overdue(TimePoint now) const { return is_finishing() && now - since_ >= lease_; }
  // The lanes to come have everything.
  bool is_complete(const std::vector<LaneMember>& lanes) const;
  std::uint64_t move() const { return move_; }
  // They have taken over: `lanes` are those that there are now.
  void take_over(Post& post, std::vector<LaneMember>& lanes);

  // Lanes that wait, by index; the run may end before they are needed.
  std::map<std::uint32_t, LaneMember>& spares() { return spares_; }

 private:
  enum Phase { kIdle, kJoining, kMoving, kFinishing };
  LaneMember* find(const std::string& peer);
  std::string missing(std::size_t lanes) const;
  bool has_all(const std::vector<LaneMember>& lanes, wire::MoveStage stage) const;
  void join(Post& post, const std::vector<LaneMember>& lanes, const wire::LaneSetup& next);
  void order(Post& post, LaneMember member, const wire::Move& body);
  void dismiss(Post& post, const LaneMember& lane, const std::string& why) const;
  void call_off(Post& post, const std::vector<LaneMember>& lanes);
  bool has_lost_a_spare(Post& post, std::size_t lanes) const;

  const Duration join_, lease_;
  Phase phase_ = kIdle;
  std::uint32_t target_ = 0;
  std::uint64_t move_ = 0;
  std::uint32_t moves_ = 0;   // tries
  TimePoint since_ = kNever;  // of this phase
  bool is_stale_ = false;     // a lane that joins has forgotten what it was sent
  std::string why_;
  std::map<std::uint32_t, LaneMember> spares_;
  std::map<std::string, wire::MoveStage> stages_;  // of this move, by lane
  std::map<std::string, TimePoint> next_order_;
};

}  // namespace meander::scheduler
