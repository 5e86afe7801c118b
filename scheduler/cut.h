// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/status.h"
#include "proto/manifest.pb.h"
#include "scheduler/leases.h"
#include "scheduler/members.h"
#include "scheduler/post.h"

namespace meander::scheduler {

// One consistent cut of the cluster at a time: pauses the streams, lets them run to a common place,
// has the lanes take it; then training goes on while the lanes write (docs/protocol.md, "A cut").
class Cut {
 public:
  enum Phase { kNone, kPausing, kDraining, kDrained, kFlipping, kWriting, kSaved, kFailed };

  // is_common: all streams run to one seq (BSP, SSP), else each to its own (ASP).
  Cut(std::uint32_t lanes, std::uint32_t workers, bool is_common)
      : is_common_(is_common),
        flipped_(lanes),
        saved_(lanes),
        next_save_(lanes),
        next_word_(workers) {}

  // There are so many lanes now. Not while a generation is under way.
  void set_lanes(std::uint32_t lanes);

  Phase phase() const { return phase_; }
  // While workers are held up for it; 0: they are not.
  std::uint64_t number() const { return phase_ > kNone && phase_ < kWriting ? number_ : 0; }
  // The last one that was begun.
  std::uint64_t last() const { return number_; }

  // Numbers are above `number` from now on.
  void count_from(std::uint64_t number) { number_ = number; }
  void start(std::size_t streams);
  // From kNone (nobody is training) or kDrained.
  void save(wire::Save order);
  // The generation cannot even be begun.
  void give_up(Status why) {
    phase_ = kFailed;
    failure_ = std::move(why);
  }
  // Over: done, failed, or given up because the cluster rolls back.
  void finish() { phase_ = kNone; }

  void drive(Post& post, const Leases& leases, const std::vector<WorkerMember>& workers);
  void on_paused(const wire::Paused& paused);
  void on_drained(const wire::Drained& drained);
  void on_flipped(std::uint32_t lane, const wire::Flipped& flipped);
  void on_saved(std::uint32_t lane, const wire::Saved& saved);
  // When kFailed: why, such as what a lane said that could not write.
  const Status& failure() const { return failure_; }

  // What the lanes saved, when kSaved: streams, files, steps and rows of `tables`, and the digest's
  // sum. kFailed: lanes disagree on positions or steps.
  Status collect(manifest::Manifest& manifest, std::uint64_t& record_sum) const;

 private:
  struct Report {
    std::uint64_t epoch = 0;  // under which it was given; of another epoch it says nothing
    std::uint64_t seq = 0;
    bool has_ended = false;
  };
  void pause(Post& post, const Leases& leases, const std::vector<WorkerMember>& workers);
  void drain(Post& post, const Leases& leases, const std::vector<WorkerMember>& workers);
  void ask_to_save(Post& post);
  void set_bounds(const Leases& leases);

  const bool is_common_;
  Phase phase_ = kNone;
  std::uint64_t number_ = 0;
  std::vector<Report> started_, drained_;  // by stream
  std::vector<std::uint64_t> until_;       // by stream
  wire::Save order_;
  Status failure_;
  std::vector<char> flipped_;                      // by lane
  std::vector<std::optional<wire::Saved>> saved_;  // by lane
  std::vector<TimePoint> next_save_;               // by lane
  std::vector<TimePoint> next_word_;               // by worker
};

}  // namespace meander::scheduler
