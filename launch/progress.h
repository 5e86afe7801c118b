// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "common/clock.h"
#include "launch/cli.h"
#include "scheduler/scheduler.h"

namespace meander::launch {

// What is shown of a run while it goes on.
struct Snapshot {
  scheduler::Progress progress;
  double loss = 0;  // mean of the batches so far
  double auc = 0;   // of every sample, scored before it was learned from
};

// Shows how a run goes on: a bar that is redrawn on a terminal, a plain line every few seconds in a
// log. Silent with --quiet.
class ProgressLine {
 public:
  explicit ProgressLine(const Context& context);
  ~ProgressLine();  // leaves the cursor on a line of its own
  void show(TimePoint now, const Snapshot& snapshot);
  // Ends the bar's line, before other text is written.
  void clear();

 private:
  static constexpr Duration kRedraw = std::chrono::milliseconds(200);
  static constexpr Duration kLine = std::chrono::seconds(5);

  bool quiet_, terminal_;
  bool drawn_ = false;
  TimePoint next_{};
  // For the rate: the first snapshot in training, and the last one shown.
  TimePoint started_{}, last_time_{};
  double started_done_ = 0;
  std::uint64_t last_samples_ = 0;
  bool training_ = false;
};

// "43.2 %  21,340 samples/s  loss 0.5312  auc 0.7712  eta 0:42"; alone so that it can be tested.
std::string progress_text(const Snapshot& snapshot, double samples_per_s, double eta_s);

}  // namespace meander::launch
