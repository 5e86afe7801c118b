// SPDX-License-Identifier: Apache-2.0
#include "scheduler/backups.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "net/transport.h"

namespace meander::scheduler {

Backups::Backups(std::uint32_t lanes, std::uint32_t replicas) : pairs_(replicas == 0 ? 0 : lanes) {
  for (std::uint32_t i = 0; i < pairs_.size(); ++i) pairs_[i].member.name = net::backup_name(i);
}

void Backups::count_from(std::uint64_t base) {
  for (Pair& pair : pairs_) pair.copy = base;
}

std::uint32_t Backups::in_step() const {
  return std::ranges::count_if(pairs_, [](const Pair& pair) { return pair.is_in_step; });
}

void Backups::on_hello(TimePoint now, std::uint32_t lane, const wire::Hello& hello) {
  Pair& pair = pairs_[lane];
  const Member::Standing standing = pair.member.hear(now, hello.incarnation());
  if (standing != Member::kNew) return;
  if (pair.copy != 0) lose(lane);
  pair.member.endpoint = hello.endpoint();
  pair.member.where = hello.host() + ", pid " + std::to_string(hello.pid());
  pair.member.has_stopped = false;
  pair.member.next_ask = {};
}

void Backups::on_message(TimePoint now, std::uint32_t lane, const wire::Header& header,
                         std::uint64_t setup) {
  Pair& pair = pairs_[lane];
  if (header.has_hello()) return on_hello(now, lane, header.hello());
  if (header.has_stopped()) pair.member.has_stopped = true;
  if (!pair.member.is_known) return;
  pair.member.heard = now;
  pair.member.is_live = true;
  if (!header.has_lane_ready()) return;
  const wire::LaneReady& ready = header.lane_ready();
  if (ready.setup() != setup || ready.turn() != pair.turn || pair.member.is_ready) return;
  pair.member.is_ready = true;
  ++pair.copy;
  pair.next_word = {};
}

void Backups::on_ready(std::uint32_t lane, const wire::LaneReady& ready) {
  Pair& pair = pairs_[lane];
  if (pair.state != Pair::kPromoting || ready.turn() != pair.turn) return;
  pair.state = Pair::kFencing;
  pair.next_word = {};
}

void Backups::on_fenced(std::uint32_t lane, const wire::Fenced& fenced) {
  Pair& pair = pairs_[lane];
  if (pair.state != Pair::kFencing || fenced.stream() >= pair.fenced.size()) return;
  pair.fenced[fenced.stream()] = fenced.ended() ? ~std::uint64_t{0} : fenced.epoch();
}

void Backups::on_in_step(std::uint32_t lane, const wire::InStep& in_step, std::uint64_t setup) {
  Pair& pair = pairs_[lane];
  if (in_step.setup() != setup || in_step.copy() != pair.copy || !pair.member.is_ready) return;
  LOG_IF(INFO, !pair.is_in_step) << pair.member.name << " (" << pair.member.where
                                 << ") is in step with the lane that serves";
  pair.is_in_step = true;
}

void Backups::take_over(std::uint32_t lane, LaneMember& serving, Post& post) {
  Pair& pair = pairs_[lane];
  CHECK(pair.is_in_step);
  std::swap(serving, pair.member);
  std::swap(serving.name, pair.member.name);
  post.swap(serving.name, pair.member.name);
  pair.is_swapped = !pair.is_swapped;
  pair.is_in_step = pair.member.is_ready = serving.is_ready = false;
  pair.member.next_ask = {};
  ++pair.turn;
  ++pair.copy;
  pair.state = Pair::kPromoting;
  pair.fenced.clear();
  pair.next_word = {};
  ++failovers_;
}

void Backups::lose(std::uint32_t lane) {
  Pair& pair = pairs_[lane];
  LOG_IF(WARNING, pair.is_in_step)
      << pair.member.name << " (" << pair.member.where << ") is lost: the lane serves without";
  pair.is_in_step = pair.member.is_ready = false;
  ++pair.copy;
  pair.next_word = {};
}

void Backups::reset() {
  for (Pair& pair : pairs_) {
    pair.is_in_step = pair.member.is_ready = false;
    pair.member.next_ask = {};
    pair.state = Pair::kServing;
    ++pair.copy;
  }
}

bool Backups::is_fenced(const Pair& pair, const Leases& leases) {
  for (std::size_t stream = 0; stream < leases.all().size(); ++stream) {
    if (pair.fenced[stream] < leases.all()[stream].epoch) return false;
  }
  return true;
}

bool Backups::drive(Post& post, std::vector<LaneMember>& lanes, const Leases& leases,
                    const wire::LaneSetup& setup, bool is_successor) {
  bool has_taken_over = false;
  for (std::uint32_t i = 0; i < pairs_.size(); ++i) {
    Pair& pair = pairs_[i];
    pair.fenced.resize(leases.all().size());
    if (pair.state == Pair::kFencing && is_fenced(pair, leases)) {
      pair.state = Pair::kServing;
      lanes[i].is_ready = lanes[i].is_live = true;
      has_taken_over = true;
      LOG(WARNING) << lanes[i].name << " is served by " << lanes[i].where << " from now on";
    }
    stand_by(post, i, setup, is_successor);
    advise(post, i, lanes[i], leases, setup.setup());
  }
  return has_taken_over;
}

// To the backup: what it stands by for; and is it alive?
void Backups::stand_by(Post& post, std::uint32_t lane, const wire::LaneSetup& setup,
                       bool is_successor) {
  Pair& pair = pairs_[lane];
  LaneMember& member = pair.member;
  if (!member.is_live && !(is_successor && !member.is_known)) return;
  if (member.is_ready && post.silence(member.heard) >= kSilence) return lose(lane);
  const bool is_due =
      member.is_ready ? post.due(member.next_ask, kCheckEvery) : post.due(member.next_ask);
  if (!is_due) return;
  wire::Header header;
  wire::LaneSetup& body = *header.mutable_lane_setup();
  body = setup;
  body.set_incarnation(member.incarnation);
  body.set_turn(pair.turn);
  body.set_backup(true);
  post.send(member.name, std::move(header));
}

// To the lane that serves, or is to serve.
void Backups::advise(Post& post, std::uint32_t lane, const LaneMember& serving,
                     const Leases& leases, std::uint64_t setup) {
  Pair& pair = pairs_[lane];
  if (!serving.is_known || (pair.state == Pair::kServing && !serving.is_ready)) return;
  const bool is_settled = pair.state == Pair::kServing && (pair.is_in_step || pair.copy == 0);
  if (is_settled || !post.due(pair.next_word)) return;
  wire::Header header;
  if (pair.state == Pair::kPromoting) {
    header.mutable_promote()->set_setup(setup);
    header.mutable_promote()->set_turn(pair.turn);
    return post.send(serving.name, std::move(header));
  }
  if (pair.state == Pair::kFencing) {
    for (std::uint32_t stream = 0; stream < leases.all().size(); ++stream) {
      if (pair.fenced[stream] >= leases.all()[stream].epoch) continue;
      wire::Header fence;
      fence.mutable_fence()->set_stream(stream);
      fence.mutable_fence()->set_epoch(leases.all()[stream].epoch);
      post.send(serving.name, std::move(fence));
    }
    return;
  }
  wire::Back& back = *header.mutable_back();
  back.set_setup(setup);
  back.set_copy(pair.copy);
  if (pair.member.is_ready) {
    back.set_peer(post.process(pair.member.name));
    back.set_endpoint(pair.member.endpoint);
  }
  post.send(serving.name, std::move(header));
}

void Backups::note(journal::State& state) const {
  state.set_failovers(failovers_);
  for (const Pair& pair : pairs_) {
    journal::Pair& noted = *state.add_pairs();
    noted.set_is_swapped(pair.is_swapped);
    noted.set_turn(pair.turn);
  }
}

void Backups::go_on(const journal::State& state, Post& post) {
  failovers_ = state.failovers();
  for (std::uint32_t i = 0; i < pairs_.size() && static_cast<int>(i) < state.pairs_size(); ++i) {
    pairs_[i].turn = state.pairs(i).turn();
    pairs_[i].is_swapped = state.pairs(i).is_swapped();
    if (pairs_[i].is_swapped) post.swap(net::lane_name(i), pairs_[i].member.name);
  }
}

}  // namespace meander::scheduler
