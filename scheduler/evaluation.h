// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "common/metrics.h"
#include "scheduler/members.h"
#include "scheduler/post.h"

namespace meander::scheduler {

// Scores the held-out part: one slice for each worker that is live at the start; a slice whose
// worker dies goes to another.
class Evaluation {
 public:
  void reset();
  void drive(Post& post, const std::vector<WorkerMember>& workers, std::uint64_t setup);
  void on_evaluated(const wire::Evaluated& evaluated, const Accumulator& scores);
  // It was done by a predecessor, with these scores.
  void adopt(Accumulator held_out) { held_out_ = std::move(held_out); }
  bool is_done() const;
  const Accumulator& held_out() const { return held_out_; }

 private:
  struct Slice {
    std::optional<std::uint32_t> worker;
    bool is_done = false;
    TimePoint next_ask{};
  };
  bool is_busy(std::uint32_t worker) const;
  void assign(Slice& slice, const std::vector<WorkerMember>& workers, std::uint64_t setup);

  std::vector<Slice> slices_;
  Accumulator held_out_;
};

}  // namespace meander::scheduler
