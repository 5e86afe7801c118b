// SPDX-License-Identifier: Apache-2.0
#include "launch/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "launch/text.h"

namespace meander::launch {
namespace {

constexpr int kBarWidth = 24;

const char* phase_name(scheduler::Progress::Phase phase) {
  switch (phase) {
    case scheduler::Progress::kJoining:
      return "waiting for roles";
    case scheduler::Progress::kTraining:
      return "training";
    case scheduler::Progress::kCutting:
      return "writing a checkpoint";
    case scheduler::Progress::kEvaluating:
      return "scoring the held-out part";
    case scheduler::Progress::kStopping:
      return "stopping";
    case scheduler::Progress::kDone:
      return "done";
  }
  return "";
}

std::string bar(double done) {
  const int full = static_cast<int>(std::lround(done * kBarWidth));
  std::string text(kBarWidth, ' ');
  std::fill_n(text.begin(), full, '=');
  return '[' + text + "] ";
}

}  // namespace

std::string progress_text(const Snapshot& snapshot, double samples_per_s, double eta_s) {
  const scheduler::Progress& progress = snapshot.progress;
  std::string text = percent(progress.done);
  if (progress.phase != scheduler::Progress::kTraining) {
    text += "  " + std::string(phase_name(progress.phase));
    if (progress.phase == scheduler::Progress::kJoining) return text.substr(text.find("  ") + 2);
  }
  text += "  " + fixed(samples_per_s, 0) + " samples/s";
  if (progress.batches > 0) {
    text += "  loss " + fixed(snapshot.loss, 4) + "  auc " + fixed(snapshot.auc, 4);
  }
  if (progress.generation > 0) text += "  generation " + std::to_string(progress.generation);
  if (progress.lost_workers > 0) {
    text += "  workers lost " + std::to_string(progress.lost_workers);
  }
  if (progress.phase == scheduler::Progress::kTraining) text += "  eta " + duration_text(eta_s);
  return text;
}

ProgressLine::ProgressLine(const Context& context)
    : quiet_(context.quiet),
      terminal_(isatty(STDERR_FILENO) != 0 && std::getenv("NO_COLOR") == nullptr) {}

ProgressLine::~ProgressLine() { clear(); }

void ProgressLine::clear() {
  if (drawn_) std::fputs("\n", stderr);
  drawn_ = false;
}

void ProgressLine::show(TimePoint now, const Snapshot& snapshot) {
  const scheduler::Progress& progress = snapshot.progress;
  if (!training_ && progress.phase >= scheduler::Progress::kTraining) {
    training_ = true;
    started_ = last_time_ = now;
    started_done_ = progress.done;
    last_samples_ = progress.samples;
    next_ = now + (terminal_ ? kRedraw : kLine);
    return;
  }
  if (quiet_ || !training_ || now < next_) return;
  next_ = now + (terminal_ ? kRedraw : kLine);
  const double passed = seconds(now - last_time_);
  const double rate =
      passed > 0 ? static_cast<double>(progress.samples - last_samples_) / passed : 0;
  const double gained = progress.done - started_done_;
  const double eta = gained > 0 ? seconds(now - started_) / gained * (1 - progress.done)
                                : std::numeric_limits<double>::quiet_NaN();
  const std::string text = progress_text(snapshot, rate, eta);
  if (terminal_) {
    std::fprintf(stderr, "\r\x1b[K%s%s", bar(progress.done).c_str(), text.c_str());
    drawn_ = true;
  } else {
    std::fprintf(stderr, "%s\n", text.c_str());
  }
  // The bar's rate is over some seconds, or it would jump.
  if (!terminal_ || passed > 2) {
    last_time_ = now;
    last_samples_ = progress.samples;
  }
}

}  // namespace meander::launch
