// SPDX-License-Identifier: Apache-2.0
#include "scheduler/leases.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/planted_bug.h"

namespace meander::scheduler {

std::uint64_t Leases::reset() {
  std::ranges::fill(leases_, Lease{});
  patience_.reset();
  if (is_planted(PlantedBug::kEpochsStartAgain)) last_epoch_ = 0;
  return ++last_epoch_;
}

std::uint64_t Leases::move_to(std::uint32_t lanes) {
  lanes_ = lanes;
  std::vector<Lease> before = std::exchange(leases_, std::vector<Lease>(leases_.size()));
  for (std::size_t i = 0; i < leases_.size(); ++i) leases_[i].progress = before[i].progress;
  patience_.reset();
  return ++last_epoch_;
}

void Leases::await_claims(Duration patience) {
  for (Lease& lease : leases_) lease.state = Lease::kUnclaimed;
  patience_ = patience;
}

void Leases::settle_claims(Post& post, const std::vector<WorkerMember>& workers,
                           std::uint64_t setup) {
  if (!patience_) return;
  if (claims_end_ == kNever) claims_end_ = post.now() + *patience_;
  const bool all_spoke = std::ranges::all_of(
      workers, [&](const WorkerMember& worker) { return worker.is_ready(setup); });
  if (!all_spoke && post.now() < claims_end_) return post.wake_at(claims_end_);
  patience_.reset();
  for (Lease& lease : leases_) {
    if (lease.state == Lease::kUnclaimed) lease.state = Lease::kFree;
  }
}

void Leases::claim(Lease& lease, std::uint32_t worker, std::uint64_t epoch) const {
  lease.state = Lease::kClaimed;
  lease.worker = worker;
  lease.epoch = epoch;
  ask_lanes(lease);
}

void Leases::ask_lanes(Lease& lease) const {
  lease.fenced.assign(lanes_, std::nullopt);
  lease.next_fence.assign(lanes_, TimePoint{});
}

void Leases::drive(Post& post, const std::vector<WorkerMember>& workers, std::uint64_t setup,
                   std::uint64_t cut) {
  settle_claims(post, workers, setup);
  if (cut == 0) rebalance(workers, setup);
  for (std::uint32_t stream = 0; stream < leases_.size(); ++stream) {
    Lease& lease = leases_[stream];
    if (lease.state == Lease::kFree) {
      lease.state = Lease::kFencing;
      lease.epoch = ++last_epoch_;
      ask_lanes(lease);
    }
    if (lease.state == Lease::kFencing || lease.state == Lease::kClaimed) fence(post, stream);
    if (lease.state == Lease::kReady) grant(workers, setup, stream);
    if (lease.state == Lease::kGranted) send(post, workers, setup, cut, stream);
  }
}

void Leases::fence(Post& post, std::uint32_t stream) {
  Lease& lease = leases_[stream];
  for (std::uint32_t lane = 0; lane < lanes_; ++lane) {
    if (lease.fenced[lane] || !post.due(lease.next_fence[lane])) continue;
    wire::Header header;
    header.mutable_fence()->set_stream(stream);
    header.mutable_fence()->set_epoch(lease.epoch);
    post.send(net::lane_name(lane), std::move(header));
  }
}

void Leases::on_fenced(std::uint32_t lane, const wire::Fenced& fenced) {
  if (fenced.stream() >= leases_.size()) return;
  Lease& lease = leases_[fenced.stream()];
  const bool is_claim = lease.state == Lease::kClaimed;
  if (!is_claim && lease.state != Lease::kFencing) return;
  // The claim is of a lease that the predecessor was about to take away.
  if (is_claim && fenced.epoch() > lease.epoch) lease.state = Lease::kFree;
  if (fenced.epoch() != lease.epoch) return;
  lease.fenced[lane] = fenced;
  settle_fence(lease);
}

void Leases::settle_fence(Lease& lease) {
  bool has_ended = true;
  std::uint64_t next = ~0ull, reached = 0;
  for (const auto& fenced : lease.fenced) {
    if (!fenced) return;
    has_ended &= fenced->ended();
    next = std::min(next, fenced->next());
    reached = std::max(reached, fenced->next());
  }
  if (lease.state == Lease::kClaimed) {
    lease.state = Lease::kHeld;  // also at the end: its holder has metrics to tell
  } else {
    lease.state = has_ended ? Lease::kEnded : Lease::kReady;
  }
  lease.next = next;
  lease.reached = reached;
}

std::vector<std::uint32_t> Leases::load(std::size_t workers) const {
  std::vector<std::uint32_t> held(workers);
  for (const Lease& lease : leases_) held[lease.worker] += lease.has_holder();
  return held;
}

// To the live worker that holds the fewest; among those to the one of the stream's own number, so
// that an undisturbed run is the same every time.
void Leases::grant(const std::vector<WorkerMember>& workers, std::uint64_t setup,
                   std::uint32_t stream) {
  // Who is about to be set up is waited for: a stream that moves once more trains batches twice.
  for (const WorkerMember& worker : workers) {
    if (worker.is_live && !worker.is_ready(setup)) return;
  }
  const std::vector<std::uint32_t> held = load(workers.size());
  const std::uint32_t home = stream % workers.size();
  std::optional<std::uint32_t> best;
  for (std::uint32_t worker = 0; worker < workers.size(); ++worker) {
    if (!workers[worker].is_ready(setup)) continue;
    const bool is_better =
        !best || held[worker] < held[*best] || (held[worker] == held[*best] && worker == home);
    if (is_better) best = worker;
  }
  if (!best) return;
  Lease& lease = leases_[stream];
  lease.state = Lease::kGranted;
  lease.worker = *best;
  lease.next_lease = {};
}

void Leases::send(Post& post, const std::vector<WorkerMember>& workers, std::uint64_t setup,
                  std::uint64_t cut, std::uint32_t stream) {
  Lease& lease = leases_[stream];
  if (!post.due(lease.next_lease)) return;
  wire::Header header;
  wire::Lease& body = *header.mutable_lease();
  body.set_stream(stream);
  body.set_epoch(lease.epoch);
  body.set_next(lease.next);
  body.set_cut(cut);
  body.set_setup(setup);
  post.send(workers[lease.worker].name, std::move(header));
}

void Leases::on_progress(std::uint32_t worker, const wire::StreamProgress& progress) {
  if (progress.stream() >= leases_.size()) return;
  Lease& lease = leases_[progress.stream()];
  const bool is_later = lease.state == Lease::kClaimed && progress.epoch() > lease.epoch;
  if (lease.state == Lease::kUnclaimed || is_later) {
    return claim(lease, worker, progress.epoch());
  }
  if (lease.state == Lease::kClaimed) return;
  if (!lease.has_holder() || lease.worker != worker || lease.epoch != progress.epoch()) return;
  lease.state = progress.ended() ? Lease::kEnded : Lease::kHeld;
  lease.progress = std::max(lease.progress, progress.progress());
}

void Leases::revoke_all(std::uint32_t worker) {
  for (Lease& lease : leases_) {
    if (lease.has_holder() && lease.worker == worker) lease.state = Lease::kFree;
  }
}

// A worker that came back without a stream gets one from a worker that holds several.
void Leases::rebalance(const std::vector<WorkerMember>& workers, std::uint64_t setup) {
  if (!all_held()) return;
  const std::vector<std::uint32_t> held = load(workers.size());
  for (std::uint32_t idle = 0; idle < workers.size(); ++idle) {
    if (held[idle] > 0 || !workers[idle].is_ready(setup)) continue;
    Lease* chosen = nullptr;
    for (std::uint32_t stream = 0; stream < leases_.size(); ++stream) {
      Lease& lease = leases_[stream];
      if (!lease.has_holder() || held[lease.worker] < 2) continue;
      if (chosen == nullptr || stream % workers.size() == idle) chosen = &lease;
    }
    if (chosen != nullptr) chosen->state = Lease::kFree;
    return;
  }
}

bool Leases::all_held() const {
  return std::ranges::all_of(leases_, [](const Lease& lease) {
    return lease.state == Lease::kHeld || lease.state == Lease::kEnded;
  });
}

bool Leases::all_ended() const {
  return std::ranges::all_of(leases_,
                             [](const Lease& lease) { return lease.state == Lease::kEnded; });
}

double Leases::done() const {
  double sum = 0;
  for (const Lease& lease : leases_) sum += lease.state == Lease::kEnded ? 1 : lease.progress;
  return sum / static_cast<double>(leases_.size());
}

}  // namespace meander::scheduler
