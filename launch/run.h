// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "launch/plan.h"
#include "launch/progress.h"
#include "launch/roles.h"

namespace meander::launch {

// How a run ended, and what came of it.
struct Outcome {
  Status status;
  Snapshot last;
  std::uint64_t samples = 0;         // trained, in the whole pass
  std::uint64_t samples_before = 0;  // of them by the runs that this one went on from
  Accumulator training, held_out;
  double seconds = 0;          // from the first batch to the last, checkpoints included
  std::string generation_dir;  // the last checkpoint; empty: none
  manifest::Manifest manifest;
};

// Hands all on to the scheduler, and sees on its thread when the first batch may start and when the
// last one is done: a look at the progress now and then would not know to better than its interval.
class TimedScheduler final : public net::Node {
 public:
  explicit TimedScheduler(scheduler::Scheduler& scheduler) : scheduler_(scheduler) {}
  void on_message(TimePoint now, const net::Message& message) override;
  void on_timer(TimePoint now) override;
  TimePoint next_timer() const override { return scheduler_.next_timer(); }
  bool finished() const override { return scheduler_.finished(); }
  // Checkpoints included.
  Duration training() const { return last_batch_ - first_batch_; }

 private:
  void look(TimePoint now);
  scheduler::Scheduler& scheduler_;
  bool is_training_ = false;
  TimePoint first_batch_{}, last_batch_{};
};

// The scheduler of a run, on a thread of its own.
class SchedulerThread {
 public:
  // kInvalid: the address is taken. `bind`: where lanes and workers connect to.
  static Result<std::unique_ptr<SchedulerThread>> start(Process& process, const std::string& bind,
                                                        scheduler::SchedulerOptions options);
  ~SchedulerThread();
  const std::string& endpoint() const { return transport_->endpoint(); }
  // Any thread.
  void request_stop();
  void peer_died(const std::string& peer);
  // The run cannot go on: follow() returns soon, without a checkpoint.
  void abandon() { runner_.stop(); }

  // Follows the run until it has ended: shows progress, passes an interrupt on, and calls `tick`
  // (may be empty) some times a second.
  Outcome follow(const Context& context, const std::function<void()>& tick);
  // Of a moment ago; asks for the next.
  Snapshot snapshot();

 private:
  SchedulerThread(Process& process, std::unique_ptr<net::ZmqTransport> transport,
                  scheduler::SchedulerOptions options);

  const Clock& clock_;
  std::unique_ptr<net::ZmqTransport> transport_;
  net::NodeRunner runner_;
  scheduler::Scheduler scheduler_;
  TimedScheduler timed_{scheduler_};
  std::atomic<bool> has_returned_{false};
  std::mutex mutex_;
  Snapshot snapshot_;  // under the mutex; written on the scheduler's thread
  std::thread thread_;
};

// Where the roles of one process meet, by cluster.transport.
struct Meeting {
  job::Cluster::Transport transport;
  std::uint64_t cluster;
  std::string scheduler() const { return of("scheduler"); }
  std::string lane(std::uint32_t index) const { return of("lane-" + std::to_string(index)); }
  std::string of(const std::string& name) const;
};

// Runs the whole cluster in this process.
Result<Outcome> run_in_process(const Context& context, const Plan& plan,
                               scheduler::SchedulerOptions options);

}  // namespace meander::launch
