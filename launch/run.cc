// SPDX-License-Identifier: Apache-2.0
#include "launch/run.h"

#include <poll.h>

#include "launch/signals.h"

namespace meander::launch {
namespace {

constexpr int kTickMs = 50;

Snapshot take(const scheduler::Scheduler& scheduler) {
  Snapshot snapshot;
  snapshot.progress = scheduler.progress();
  const Accumulator& training = scheduler.training();
  if (training.batches > 0) {
    snapshot.loss = training.loss_sum / static_cast<double>(training.batches);
    ScoreSums all = training.head;
    all.merge(training.tail);
    snapshot.auc = all.auc();
  }
  return snapshot;
}

// Sleeps for a tick, or until there is an interrupt that has not been passed on.
void wait_tick(bool is_stopping) {
  pollfd descriptor{is_stopping ? -1 : interrupt_descriptor(), POLLIN, 0};
  poll(&descriptor, 1, kTickMs);
}

}  // namespace

void TimedScheduler::on_message(TimePoint now, const net::Message& message) {
  scheduler_.on_message(now, message);
  look(now);
}

void TimedScheduler::on_timer(TimePoint now) {
  scheduler_.on_timer(now);
  look(now);
}

void TimedScheduler::look(TimePoint now) {
  const scheduler::Progress::Phase phase = scheduler_.progress().phase;
  const bool was_training = is_training_;
  is_training_ = phase == scheduler::Progress::kTraining || phase == scheduler::Progress::kCutting;
  if (is_training_ && first_batch_ == TimePoint{}) first_batch_ = last_batch_ = now;
  if (was_training) last_batch_ = now;
}

SchedulerThread::SchedulerThread(Process& process, std::unique_ptr<net::ZmqTransport> transport,
                                 scheduler::SchedulerOptions options)
    : clock_(process.clock),
      transport_(std::move(transport)),
      runner_(*transport_, process.clock, process.pool),
      scheduler_(std::move(options), *transport_, process.storage, process.clock) {
  thread_ = std::thread([this] {
    runner_.run(timed_);
    has_returned_ = true;
  });
}

Result<std::unique_ptr<SchedulerThread>> SchedulerThread::start(
    Process& process, const std::string& bind, scheduler::SchedulerOptions options) {
  ASSIGN_OR_RETURN(auto transport,
                   net::ZmqTransport::create(process.zmq, net::kSchedulerName, bind));
  return std::unique_ptr<SchedulerThread>(
      new SchedulerThread(process, std::move(transport), std::move(options)));
}

SchedulerThread::~SchedulerThread() {
  runner_.stop();
  thread_.join();
}

void SchedulerThread::request_stop() {
  runner_.post([this] { scheduler_.request_stop(runner_.now()); });
}

void SchedulerThread::peer_died(const std::string& peer) {
  runner_.post([this, peer] { scheduler_.peer_died(runner_.now(), peer); });
}

// The last one taken; asks for the next.
Snapshot SchedulerThread::snapshot() {
  runner_.post([this] {
    const Snapshot now = take(scheduler_);
    const std::lock_guard lock(mutex_);
    snapshot_ = now;
  });
  const std::lock_guard lock(mutex_);
  return snapshot_;
}

Outcome SchedulerThread::follow(const Context& context, const std::function<void()>& tick) {
  ProgressLine line(context);
  bool is_stopping = false;
  while (!has_returned_) {
    wait_tick(is_stopping);
    if (interrupted() && !is_stopping) {
      is_stopping = true;
      line.clear();
      context.note("stopping: writing a checkpoint first; once more to stop at once");
      request_stop();
    }
    const Snapshot now = snapshot();
    line.show(clock_.now(), now);
    if (tick) tick();
  }
  Outcome outcome;
  outcome.status = scheduler_.status();
  outcome.last = take(scheduler_);
  outcome.training = scheduler_.training();
  outcome.held_out = scheduler_.held_out();
  outcome.seconds = seconds(timed_.training()) + outcome.last.progress.predecessors_s;
  outcome.generation_dir = scheduler_.generation_dir();
  outcome.manifest = scheduler_.manifest();
  return outcome;
}

std::string Meeting::of(const std::string& name) const {
  const bool is_inproc = transport == job::Cluster::auto_ || transport == job::Cluster::inproc;
  return is_inproc ? "inproc://" + std::to_string(cluster) + "/" + name : "tcp://127.0.0.1:*";
}

Result<Outcome> run_in_process(const Context& context, const Plan& plan,
                               scheduler::SchedulerOptions options) {
  catch_interrupts();
  options.replicas = 0;  // one process dies as a whole
  const std::uint64_t cluster = options.cluster;
  const job::Cluster& described = plan.job.spec.cluster();
  const Meeting meeting{described.transport(), cluster};
  Process process(context.clock, *context.storage, described.threads(),
                  described.transport() == job::Cluster::shm);
  ASSIGN_OR_RETURN(auto scheduler,
                   SchedulerThread::start(process, meeting.scheduler(), std::move(options)));
  std::vector<std::unique_ptr<RoleThread>> roles;
  for (std::uint32_t i = 0; i < plan.lanes(); ++i) {
    ASSIGN_OR_RETURN(roles.emplace_back(), start_lane(process, net::lane_name(i), i, cluster,
                                                      meeting.lane(i), "", scheduler->endpoint()));
  }
  for (std::uint32_t i = 0; i < plan.workers(); ++i) {
    ASSIGN_OR_RETURN(roles.emplace_back(),
                     start_worker(process, plan, i, cluster, scheduler->endpoint()));
  }
  return scheduler->follow(context, {});
}

}  // namespace meander::launch
