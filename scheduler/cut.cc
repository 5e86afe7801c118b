// SPDX-License-Identifier: Apache-2.0
#include "scheduler/cut.h"

#include <algorithm>
#include <set>

#include "common/check.h"
#include "common/planted_bug.h"

namespace meander::scheduler {

void Cut::set_lanes(std::uint32_t lanes) {
  CHECK(phase_ == kNone || phase_ == kDrained);
  flipped_.assign(lanes, 0);
  saved_.assign(lanes, std::nullopt);
  next_save_.assign(lanes, TimePoint{});
}

void Cut::start(std::size_t streams) {
  CHECK_EQ(phase_, kNone);
  phase_ = kPausing;
  ++number_;
  started_.assign(streams, {});
  drained_.assign(streams, {});
  until_.assign(streams, 0);
  std::ranges::fill(next_word_, TimePoint{});
}

void Cut::drive(Post& post, const Leases& leases, const std::vector<WorkerMember>& workers) {
  if (phase_ == kPausing) pause(post, leases, workers);
  if (phase_ == kDraining) drain(post, leases, workers);
  if (phase_ == kFlipping || phase_ == kWriting) ask_to_save(post);
}

void Cut::pause(Post& post, const Leases& leases, const std::vector<WorkerMember>& workers) {
  bool all_reported = true;
  std::set<std::uint32_t> to_ask;
  for (std::size_t stream = 0; stream < started_.size(); ++stream) {
    const Leases::Lease& lease = leases.all()[stream];
    if (lease.state == Leases::Lease::kEnded) continue;
    if (lease.has_holder() && started_[stream].epoch == lease.epoch) continue;
    all_reported = false;
    if (lease.has_holder()) to_ask.insert(lease.worker);
  }
  for (std::uint32_t worker : to_ask) {
    if (!post.due(next_word_[worker])) continue;
    wire::Header header;
    header.mutable_pause()->set_cut(number_);
    post.send(workers[worker].name, std::move(header));
  }
  if (all_reported) set_bounds(leases);
}

void Cut::on_paused(const wire::Paused& paused) {
  if (phase_ != kPausing || paused.cut() != number_) return;
  for (const wire::StreamProgress& stream : paused.streams()) {
    if (stream.stream() >= started_.size()) continue;
    Report& report = started_[stream.stream()];
    if (stream.epoch() > report.epoch) report = {stream.epoch(), stream.started(), false};
  }
}

void Cut::set_bounds(const Leases& leases) {
  std::uint64_t furthest = 0;
  for (std::size_t stream = 0; stream < started_.size(); ++stream) {
    const Leases::Lease& lease = leases.all()[stream];
    if (lease.state == Leases::Lease::kEnded) continue;
    // A former holder may have pushed to some lanes what this one has not started yet.
    until_[stream] = std::max(started_[stream].seq, lease.reached);
    furthest = std::max(furthest, until_[stream]);
  }
  if (is_common_) std::ranges::fill(until_, furthest);
  std::ranges::fill(next_word_, TimePoint{});
  phase_ = kDraining;
}

void Cut::drain(Post& post, const Leases& leases, const std::vector<WorkerMember>& workers) {
  bool all_drained = true;
  std::set<std::uint32_t> to_ask;
  for (std::size_t stream = 0; stream < drained_.size(); ++stream) {
    const Leases::Lease& lease = leases.all()[stream];
    const Report& report = drained_[stream];
    if (lease.state == Leases::Lease::kEnded) continue;
    const bool is_there = report.has_ended || report.seq >= until_[stream];
    if (lease.has_holder() && report.epoch == lease.epoch && is_there) continue;
    all_drained = false;
    if (lease.has_holder()) to_ask.insert(lease.worker);
  }
  for (std::uint32_t worker : to_ask) {
    if (!post.due(next_word_[worker])) continue;
    wire::Header header;
    header.mutable_run_to()->set_cut(number_);
    for (std::size_t stream = 0; stream < until_.size(); ++stream) {
      wire::StreamBound& bound = *header.mutable_run_to()->add_bounds();
      bound.set_stream(stream);
      bound.set_until(until_[stream]);
    }
    post.send(workers[worker].name, std::move(header));
  }
  if (all_drained || is_planted(PlantedBug::kFlipBeforeDrained)) phase_ = kDrained;
}

void Cut::on_drained(const wire::Drained& drained) {
  if (phase_ != kDraining || drained.cut() != number_) return;
  for (const wire::StreamProgress& stream : drained.streams()) {
    if (stream.stream() >= drained_.size()) continue;
    Report& report = drained_[stream.stream()];
    if (stream.epoch() < report.epoch) continue;
    if (stream.epoch() > report.epoch) report = {stream.epoch(), 0, false};
    report.seq = std::max(report.seq, stream.acked());
    report.has_ended |= stream.ended();
  }
}

void Cut::save(wire::Save order) {
  CHECK(phase_ == kNone || phase_ == kDrained);
  phase_ = kFlipping;
  order_ = std::move(order);
  failure_ = {};
  std::ranges::fill(flipped_, 0);
  std::ranges::fill(saved_, std::nullopt);
  std::ranges::fill(next_save_, TimePoint{});
}

void Cut::ask_to_save(Post& post) {
  for (std::size_t lane = 0; lane < saved_.size(); ++lane) {
    if (saved_[lane] || !post.due(next_save_[lane])) continue;
    wire::Header header;
    *header.mutable_save() = order_;
    post.send(net::lane_name(lane), std::move(header));
  }
}

void Cut::on_flipped(std::uint32_t lane, const wire::Flipped& flipped) {
  if (phase_ != kFlipping || flipped.generation() != order_.generation()) return;
  flipped_[lane] = 1;
  const bool all = std::ranges::all_of(flipped_, [](char f) { return f != 0; });
  if (all || is_planted(PlantedBug::kReleaseBeforeAllFlipped)) phase_ = kWriting;
}

void Cut::on_saved(std::uint32_t lane, const wire::Saved& saved) {
  if (saved.generation() != order_.generation()) return;
  if (phase_ != kFlipping && phase_ != kWriting) return;
  if (saved.error() != 0) {
    phase_ = kFailed;
    failure_ = {static_cast<Code>(saved.error()), net::lane_name(lane) + ": " + saved.message()};
    return;
  }
  wire::Flipped flipped;
  flipped.set_generation(saved.generation());
  on_flipped(lane, flipped);
  saved_[lane] = saved;
  const bool all = std::ranges::all_of(saved_, [](const auto& s) { return s.has_value(); });
  if (all && phase_ == kWriting) phase_ = kSaved;
}

Status Cut::collect(manifest::Manifest& manifest, std::uint64_t& record_sum) const {
  CHECK_EQ(phase_, kSaved);
  record_sum = 0;
  const wire::Saved& first = *saved_.front();
  for (std::size_t lane = 0; lane < saved_.size(); ++lane) {
    const wire::Saved& saved = *saved_[lane];
    record_sum += saved.digest();
    const auto same_position = [](const wire::StreamApplied& a, const wire::StreamApplied& b) {
      return a.stream() == b.stream() && a.next() == b.next() && a.ended() == b.ended();
    };
    if (!std::ranges::equal(saved.applied(), first.applied(), same_position) ||
        !std::ranges::equal(saved.table_steps(), first.table_steps())) {
      return failed(net::lane_name(lane) + " is not where lane/0 is in generation " +
                    std::to_string(order_.generation()) + ": this is a bug; the cut is not used");
    }
    for (const manifest::File& from : saved.files()) {
      if (from.table() >= static_cast<std::uint32_t>(manifest.tables_size())) {
        return failed(net::lane_name(lane) + " saved a table that the job does not have");
      }
      *manifest.add_files() = from;
      manifest::Table& table = *manifest.mutable_tables(from.table());
      table.set_rows(table.rows() + from.rows());
    }
  }
  for (int t = 0; t < std::min(manifest.tables_size(), first.table_steps_size()); ++t) {
    manifest.mutable_tables(t)->set_step(first.table_steps(t));
  }
  for (const wire::StreamApplied& applied : first.applied()) {
    manifest::Stream& stream = *manifest.add_streams();
    stream.set_stream(applied.stream());
    stream.set_next(applied.next());
    stream.set_ended(applied.ended());
  }
  return {};
}

}  // namespace meander::scheduler
