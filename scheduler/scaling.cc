// SPDX-License-Identifier: Apache-2.0
#include "scheduler/scaling.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/partition.h"

namespace meander::scheduler {

void Scaling::want(std::uint32_t target) {
  target_ = target;
  phase_ = target == 0 ? kIdle : kJoining;
  since_ = kNever;
  moves_ = 0;
  why_.clear();
}

// Lanes need no longer keep what they have for it; who does not hear it drops that with the next
// one.
void Scaling::call_off(Post& post, const std::vector<LaneMember>& lanes) {
  if (phase_ < kMoving) return;
  ++move_;
  wire::Move off;
  for (const LaneMember& lane : lanes) order(post, lane, off);
  for (const auto& [index, spare] : spares_) order(post, spare, off);
}

void Scaling::restart(Post& post, const std::vector<LaneMember>& lanes) {
  if (target_ == 0) return;
  call_off(post, lanes);
  phase_ = kJoining;
  since_ = kNever;
  is_stale_ = false;
}

void Scaling::give_up(Post& post, const std::vector<LaneMember>& lanes, const std::string& why) {
  if (target_ == 0) return;
  LOG(WARNING) << "the number of lanes stays " << lanes.size() << ": " << why;
  call_off(post, lanes);
  phase_ = kIdle;
  target_ = 0;
  why_ = why;
  send_away(post, static_cast<std::uint32_t>(lanes.size()));
}

// It may come late: to the next process of this name, or after the lane was taken on after all.
void Scaling::dismiss(Post& post, const LaneMember& lane, const std::string& why) const {
  wire::Header header;
  wire::Stop& stop = *header.mutable_stop();
  stop.set_reason(why);
  stop.set_incarnation(lane.incarnation);
  stop.set_move(move_);
  post.send(lane.name, std::move(header));
}

void Scaling::send_away(Post& post, std::uint32_t first) {
  for (auto spare = spares_.lower_bound(first); spare != spares_.end();) {
    dismiss(post, spare->second, "the lane is not needed");
    spare = spares_.erase(spare);
  }
}

std::string Scaling::missing(std::size_t lanes) const {
  std::string names;
  for (auto index = static_cast<std::uint32_t>(lanes); index < target_; ++index) {
    const auto spare = spares_.find(index);
    if (spare != spares_.end() && spare->second.is_live) continue;
    names += (names.empty() ? "" : ", ") + net::lane_name(index);
  }
  return names;
}

std::string Scaling::message(const std::vector<LaneMember>& lanes) const {
  if (target_ == 0) return why_;
  if (phase_ == kFinishing) return "the lanes change over";
  if (phase_ == kMoving) return "records are copied while training goes on";
  const std::string names = missing(lanes.size());
  return names.empty() ? "waiting until training goes on" : "waiting for " + names;
}

LaneMember* Scaling::find(const std::string& peer) {
  for (auto& [index, spare] : spares_) {
    if (spare.name == peer) return &spare;
  }
  return nullptr;
}

bool Scaling::on_stranger(Post& post, const std::string& peer, const wire::Header& header) {
  if (header.has_hello()) {
    const wire::Hello& hello = header.hello();
    if (hello.role() != wire::LANE || hello.index() >= kPartitions) return false;
    if (peer != net::lane_name(hello.index())) return false;
    wire::Header answer;
    if (hello.setup() != 0) {  // its partitions are another's now
      LaneMember former;
      former.name = peer;
      former.incarnation = hello.incarnation();
      dismiss(post, former, "the lane is needed no more");
      return true;
    }
    LaneMember& spare = spares_[hello.index()];
    spare.name = peer;
    const Member::Standing standing = spare.hear(post.now(), hello.incarnation());
    if (standing == Member::kStranger) return true;
    if (standing == Member::kNew) {
      is_stale_ |= hello.index() < target_;
      spare.endpoint = hello.endpoint();
      spare.where = hello.host() + ", pid " + std::to_string(hello.pid());
    }
    // Nothing for it to do yet, but it shall know that it was heard.
    wire::Move& nothing = *answer.mutable_move();
    nothing.mutable_next()->set_incarnation(spare.incarnation);
    post.send(peer, std::move(answer));
    return true;
  }
  LaneMember* const spare = find(peer);
  if (spare == nullptr) return false;
  if (header.has_stopped()) spare->has_stopped = true;
  if (header.has_moved()) on_moved(peer, header.moved());
  spare->heard = post.now();
  return true;
}

void Scaling::bury(const std::string& peer) {
  LaneMember* const spare = find(peer);
  if (spare == nullptr) return;
  spare->bury();
  is_stale_ = true;
}

void Scaling::on_moved(const std::string& peer, const wire::Moved& moved) {
  if (moved.move() == move_ && is_moving()) stages_[peer] = moved.stage();
}

void Scaling::join(Post& post, const std::vector<LaneMember>& lanes, const wire::LaneSetup& next) {
  if (since_ == kNever) since_ = post.now();
  const std::string names = missing(lanes.size());
  if (!names.empty()) {
    if (post.now() - since_ < join_) return post.wake_at(since_ + join_);
    return give_up(post, lanes,
                   "waited " + std::to_string(static_cast<int>(seconds(join_))) + " s for " +
                       names + ": start it, and ask again");
  }
  if (++moves_ > kMovesMax) {
    return give_up(post, lanes,
                   "lanes were lost " + std::to_string(kMovesMax) + " times meanwhile");
  }
  LOG(INFO) << "move " << (move_ + 1) << ": from " << lanes.size() << " to " << next.lanes()
            << " lanes";
  ++move_;
  phase_ = kMoving;
  since_ = post.now();
  is_stale_ = false;
  stages_.clear();
  next_order_.clear();
}

void Scaling::order(Post& post, LaneMember member, const wire::Move& body) {
  wire::Header header;
  wire::Move& move = *header.mutable_move();
  move = body;
  move.set_move(move_);
  move.mutable_next()->set_incarnation(member.incarnation);
  post.send(member.name, std::move(header));
}

bool Scaling::has_lost_a_spare(Post& post, std::size_t lanes) const {
  for (const auto& [index, spare] : spares_) {
    if (index < lanes || index >= target_) continue;
    const Duration silence = post.silence(spare.heard);
    if (!spare.is_live || silence >= lease_) return true;
    post.wake_at(post.now() + lease_ - silence);
  }
  return false;
}

void Scaling::drive(Post& post, const std::vector<LaneMember>& lanes, const wire::LaneSetup& next) {
  if (target_ == 0) return;
  for (auto& [index, spare] : spares_) {
    if (post.silence(spare.heard) >= lease_) spare.is_live = false;
  }
  if (is_moving() && (is_stale_ || has_lost_a_spare(post, lanes.size()))) restart(post, lanes);
  if (phase_ == kJoining) join(post, lanes, next);
  if (!is_moving()) return;
  wire::Move body;
  body.set_setup(next.setup() - 1);
  body.set_lanes(static_cast<std::uint32_t>(lanes.size()));
  *body.mutable_next() = next;
  for (std::uint32_t index = 0; index < target_; ++index) {
    body.add_endpoints(index < lanes.size() ? lanes[index].endpoint : spares_.at(index).endpoint);
  }
  body.set_finish(phase_ == kFinishing);
  const auto ask = [&](const LaneMember& lane) {
    const auto stage = stages_.find(lane.name);
    if (phase_ == kFinishing && stage != stages_.end() && stage->second == wire::ALL) return;
    if (post.due(next_order_[lane.name])) order(post, lane, body);
  };
  for (const LaneMember& lane : lanes) ask(lane);
  for (const auto& [index, spare] : spares_) {
    if (index >= lanes.size() && index < target_) ask(spare);
  }
}

bool Scaling::has_all(const std::vector<LaneMember>& lanes, wire::MoveStage stage) const {
  const auto is_there = [&](const std::string& name) {
    const auto said = stages_.find(name);
    return said != stages_.end() && said->second >= stage;
  };
  for (const LaneMember& lane : lanes) {
    if (!is_there(lane.name)) return false;
  }
  for (auto index = static_cast<std::uint32_t>(lanes.size()); index < target_; ++index) {
    if (!is_there(net::lane_name(index))) return false;
  }
  return true;
}

bool Scaling::is_near(const std::vector<LaneMember>& lanes) const {
  return phase_ == kMoving && has_all(lanes, wire::NEAR);
}

void Scaling::finish(TimePoint now) {
  CHECK_EQ(phase_, kMoving);
  phase_ = kFinishing;
  since_ = now;
  next_order_.clear();
}

bool Scaling::is_complete(const std::vector<LaneMember>& lanes) const {
  return phase_ == kFinishing && has_all(lanes, wire::ALL);
}

void Scaling::take_over(Post& post, std::vector<LaneMember>& lanes) {
  while (lanes.size() > target_) {
    dismiss(post, lanes.back(), "the lane is needed no more");
    lanes.pop_back();
  }
  while (lanes.size() < target_) {
    const auto index = static_cast<std::uint32_t>(lanes.size());
    lanes.push_back(std::move(spares_.at(index)));
    spares_.erase(index);
  }
  phase_ = kIdle;
  target_ = 0;
}

}  // namespace meander::scheduler
