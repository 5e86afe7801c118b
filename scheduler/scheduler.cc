// SPDX-License-Identifier: Apache-2.0
#include "scheduler/scheduler.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "checkpoint/generation.h"
#include "common/check.h"
#include "common/planted_bug.h"
#include "scheduler/cut.h"
#include "scheduler/describe.h"
#include "scheduler/evaluation.h"
#include "scheduler/generations.h"
#include "scheduler/leases.h"
#include "scheduler/members.h"
#include "scheduler/post.h"

namespace meander::scheduler {
namespace {

constexpr std::uint32_t kRollbacksMax = 8;  // without a new generation
constexpr Duration kLaneCheckEvery = std::chrono::seconds(2);
constexpr Duration kStopWait = std::chrono::seconds(3);
constexpr std::uint32_t kSaveFailuresMax = 3;  // in a row; the run trains on after fewer
constexpr Duration kSaveAgain = std::chrono::seconds(1);

std::string whole_seconds(Duration d) { return std::to_string(std::lround(seconds(d))) + " s"; }

}  // namespace

struct Scheduler::Impl {
  Impl(SchedulerOptions scheduler_options, net::Transport& transport, Storage& storage,
       const Clock& run_clock);

  void on_message(TimePoint now, const net::Message& message);
  void on_failure(const std::string& peer, const wire::Failure& failure);
  void on_lane(TimePoint now, std::uint32_t index, const net::Message& message);
  void on_lane_hello(TimePoint now, std::uint32_t index, const wire::Hello& hello);
  void on_worker(TimePoint now, std::uint32_t index, const net::Message& message);
  void on_worker_hello(TimePoint now, std::uint32_t index, const wire::Hello& hello);
  void on_heartbeat(TimePoint now, std::uint32_t index, const net::Message& message);
  void count(WorkerMember& worker, const wire::Heartbeat& heartbeat,
             const std::vector<Buffer>& frames);
  void on_evaluated(const wire::Evaluated& evaluated, const std::vector<Buffer>& frames);

  // One round: sends all that is due, moves on where it can.
  void drive(TimePoint now);
  void check_deadlines(TimePoint now);
  TimePoint last_join() const;
  bool is_overdue(TimePoint since);  // longer ago than options.join
  void drive_lanes();
  void drive_workers();
  void drive_training(TimePoint now);
  void drive_cut(TimePoint now);
  void drive_evaluation();
  void drive_stop();

  void roll_back();
  void lose_worker(TimePoint now, std::uint32_t index);
  void begin_save();
  void release_workers();
  void complete_generation(TimePoint now);
  void on_save_failed(TimePoint now, Status why);
  void stop(Status why);
  void send_lane_setup(std::uint32_t index);
  void send_worker_setup(const WorkerMember& worker);
  bool is_stopping() const { return phase >= Progress::kStopping; }
  bool is_set_up() const {
    return std::ranges::all_of(lanes, [](const LaneMember& lane) { return lane.is_ready; });
  }
  bool all_trained() const { return !options.train || (leases.all_ended() && is_saved()); }
  bool is_saved() const { return !generations.is_writing() || generations.is_final(); }

  const SchedulerOptions options;
  const Clock& clock;
  Post post;
  std::vector<LaneMember> lanes;
  std::vector<WorkerMember> workers;
  std::map<std::string, std::uint32_t> lane_index, worker_index;  // by peer name
  Generations generations;
  Leases leases;
  Cut cut;
  Evaluation evaluation;
  Accumulator training;

  Progress::Phase phase = Progress::kJoining;
  Status status;
  std::uint64_t setup = 1, first_epoch = 0;
  std::uint32_t rollbacks = 0, rollbacks_in_row = 0;  // in all; since the last generation
  bool has_workers_setup = false;                     // WorkerSetup of this set-up has gone out
  bool has_begun = false;                             // all roles were there once
  bool stop_requested = false;
  // Of the generation that is being written.
  Accumulator saved_training;
  std::uint64_t base_generation = 0;  // 0: it is full
  bool is_last_save = false;
  std::uint64_t released_cut = 0;   // the last cut whose workers were let go on
  std::uint32_t save_failures = 0;  // in a row
  TimePoint save_again{};
  TimePoint started = kNever, last_generation{}, last_live_worker{}, stop_deadline = kNever;
  TimePoint wake{};
  std::uint32_t lost_workers = 0;
  double detection_s = 0;
};

Scheduler::Impl::Impl(SchedulerOptions scheduler_options, net::Transport& transport,
                      Storage& storage, const Clock& run_clock)
    : options(std::move(scheduler_options)),
      clock(run_clock),
      post(transport, options.cluster, options.retry),
      lanes(options.lanes),
      workers(options.workers),
      generations(storage, options.checkpoint_dir, options.keep),
      leases(options.streams, options.lanes),
      cut(options.lanes, options.workers, options.staleness >= 0) {
  CHECK(options.lanes > 0 && options.workers > 0 && options.streams > 0);
  for (std::uint32_t i = 0; i < lanes.size(); ++i) {
    lanes[i].name = net::lane_name(i);
    lane_index[lanes[i].name] = i;
  }
  for (std::uint32_t i = 0; i < workers.size(); ++i) {
    workers[i].name = net::worker_name(i);
    worker_index[workers[i].name] = i;
  }
  first_epoch = leases.reset();
  if (!options.restore.empty()) {
    status = generations.restore(options.restore, options.model, options.streams,
                                 options.restore_positions);
  }
  if (status.ok()) status = generations.find_next();
  if (!status.ok()) phase = Progress::kDone;
  training = generations.metrics();
}

void Scheduler::Impl::on_message(TimePoint now, const net::Message& message) {
  const wire::Header& header = message.header;
  const bool is_first_word = header.has_hello() && header.cluster() == 0;
  if (header.cluster() != options.cluster && !is_first_word) return;
  if (header.has_failure()) return on_failure(message.peer, header.failure());
  if (const auto lane = lane_index.find(message.peer); lane != lane_index.end()) {
    on_lane(now, lane->second, message);
  } else if (const auto worker = worker_index.find(message.peer); worker != worker_index.end()) {
    on_worker(now, worker->second, message);
  }
}

void Scheduler::Impl::on_failure(const std::string& peer, const wire::Failure& failure) {
  const bool is_known =
      failure.code() > 0 && failure.code() <= static_cast<std::uint32_t>(Code::kFailed);
  stop({is_known ? static_cast<Code>(failure.code()) : Code::kFailed,
        peer + ": " + failure.message()});
}

void Scheduler::Impl::on_lane(TimePoint now, std::uint32_t index, const net::Message& message) {
  const wire::Header& header = message.header;
  LaneMember& lane = lanes[index];
  if (header.has_hello()) return on_lane_hello(now, index, header.hello());
  if (header.has_stopped()) lane.has_stopped = true;
  if (!lane.is_known) return;
  lane.heard = now;
  if (header.has_lane_ready() && header.lane_ready().setup() == setup) {
    lane.is_ready = lane.is_live = true;
  }
  if (header.has_fenced()) leases.on_fenced(index, header.fenced());
  if (header.has_flipped() && header.flipped().setup() == setup) {
    cut.on_flipped(index, header.flipped());
  }
  if (header.has_saved()) cut.on_saved(index, header.saved());
}

void Scheduler::Impl::on_lane_hello(TimePoint now, std::uint32_t index, const wire::Hello& hello) {
  LaneMember& lane = lanes[index];
  const bool was_known = lane.is_known;
  const Member::Standing standing = lane.hear(now, hello.incarnation());
  // Until it has done its set-up, a late word of a dead incarnation may still be taken for it.
  lane.is_live = standing != Member::kNew && lane.is_ready;
  if (standing == Member::kStranger) return;
  if (!lane.is_ready) lane.next_ask = {};
  if (standing == Member::kCurrent) return;
  lane.endpoint = hello.endpoint();
  lane.where = hello.host() + ", pid " + std::to_string(hello.pid());
  lane.is_ready = false;
  lane.has_stopped = false;
  lane.next_ask = {};
  if (was_known && !is_stopping()) roll_back();
}

void Scheduler::Impl::on_worker(TimePoint now, std::uint32_t index, const net::Message& message) {
  const wire::Header& header = message.header;
  WorkerMember& worker = workers[index];
  if (header.has_hello()) on_worker_hello(now, index, header.hello());
  if (header.has_heartbeat()) on_heartbeat(now, index, message);
  if (header.has_stopped()) worker.has_stopped = true;
  if (header.has_paused()) cut.on_paused(header.paused());
  if (header.has_drained()) cut.on_drained(header.drained());
  if (header.has_evaluated() && header.evaluated().setup() == setup) {
    on_evaluated(header.evaluated(), message.frames);
  }
}

void Scheduler::Impl::on_worker_hello(TimePoint now, std::uint32_t index,
                                      const wire::Hello& hello) {
  WorkerMember& worker = workers[index];
  const bool was_live = worker.is_live;
  const Duration silence = now - worker.heard;
  const Member::Standing standing = worker.hear(now, hello.incarnation());
  if (standing == Member::kStranger) return;
  worker.next_ask = {};
  if (standing == Member::kNew) {
    if (was_live) {
      ++lost_workers;
      detection_s = seconds(silence);
    }
    leases.revoke_all(index);
    worker.where = hello.host() + ", pid " + std::to_string(hello.pid());
    worker.setup = worker.paused = 0;
    worker.has_stopped = false;
  }
  if (has_workers_setup) return;
  // Nothing to set up yet, but the worker shall know that it was heard.
  wire::Header header;
  header.mutable_heartbeat_ack();
  post.send(worker.name, std::move(header));
}

void Scheduler::Impl::on_heartbeat(TimePoint now, std::uint32_t index,
                                   const net::Message& message) {
  const wire::Heartbeat& heartbeat = message.header.heartbeat();
  WorkerMember& worker = workers[index];
  count(worker, heartbeat, message.frames);
  const Member::Standing standing = worker.hear(now, heartbeat.incarnation());
  if (standing == Member::kStranger) return;
  if (standing == Member::kNew) leases.revoke_all(index);
  worker.setup = heartbeat.setup();
  worker.paused = heartbeat.paused();
  wire::Header ack;
  ack.mutable_heartbeat_ack()->set_number(heartbeat.number());
  post.send(worker.name, std::move(ack));
  if (heartbeat.setup() != setup) return;
  for (const wire::StreamProgress& stream : heartbeat.streams()) leases.on_progress(index, stream);
}

// Each heartbeat's metrics once; those of a set-up that was rolled back, never.
void Scheduler::Impl::count(WorkerMember& worker, const wire::Heartbeat& heartbeat,
                            const std::vector<Buffer>& frames) {
  std::uint64_t& counted = worker.counted[heartbeat.incarnation()];
  const bool is_new = heartbeat.number() > counted;
  if (!is_new && !is_planted(PlantedBug::kHeartbeatCountedTwice)) return;
  counted = heartbeat.number();
  if (heartbeat.setup() != setup || frames.empty()) return;
  const Result<Accumulator> metrics = Accumulator::decode(frames[0]);
  if (!metrics.ok()) return stop(Status(metrics.status()).context(worker.name + ": metrics"));
  training.merge(metrics.value());
}

void Scheduler::Impl::on_evaluated(const wire::Evaluated& evaluated,
                                   const std::vector<Buffer>& frames) {
  if (frames.empty() || phase != Progress::kEvaluating) return;
  const Result<Accumulator> scores = Accumulator::decode(frames[0]);
  if (!scores.ok()) return stop(Status(scores.status()).context("evaluation"));
  evaluation.on_evaluated(evaluated, scores.value());
}

void Scheduler::Impl::drive(TimePoint now) {
  if (phase == Progress::kDone) return;
  if (started == kNever) started = last_generation = last_live_worker = now;
  post.begin_round(now);
  if (!is_stopping()) check_deadlines(now);
  if (!is_stopping()) drive_lanes();
  if (!is_stopping() && is_set_up()) {
    drive_workers();
    drive_training(now);
  }
  if (is_stopping()) drive_stop();
  wake = post.wake();
}

void Scheduler::Impl::check_deadlines(TimePoint now) {
  for (std::uint32_t w = 0; w < workers.size(); ++w) {
    if (!workers[w].is_live) continue;
    if (now - workers[w].heard >= options.lease) {
      lose_worker(now, w);
    } else {
      last_live_worker = now;
      post.wake_at(workers[w].heard + options.lease);
    }
  }
  const std::string waited = "waited " + whole_seconds(options.join) + " for ";
  if (!has_begun && is_overdue(last_join())) {
    return stop(unavailable(waited + absentees(lanes, workers)));
  }
  for (const LaneMember& lane : lanes) {
    if (lane.is_known && is_overdue(lane.heard)) {
      return stop(unavailable(waited + lane.name + " (" + lane.where +
                              ") to answer: start it again, or go on later with --resume"));
    }
  }
  if (has_begun && is_overdue(last_live_worker)) {
    stop(unavailable(waited + "a worker to come back: none is alive; go on later with --resume"));
  }
}

// When the last of those appeared that were there and are not any more; never, if all are there.
TimePoint Scheduler::Impl::last_join() const {
  TimePoint since = started;
  bool all_there = true;
  for (const LaneMember& lane : lanes) all_there &= lane.is_known;
  for (const WorkerMember& worker : workers) {
    all_there &= worker.is_live;
    if (!worker.is_live && worker.is_known) since = std::max(since, worker.heard);
  }
  return all_there ? kNever : since;
}

bool Scheduler::Impl::is_overdue(TimePoint since) {
  if (since == kNever) return false;
  post.wake_at(since + options.join);
  return post.now() - since >= options.join;
}

void Scheduler::Impl::drive_lanes() {
  for (std::uint32_t i = 0; i < lanes.size(); ++i) {
    if (!lanes[i].is_known) continue;
    // A lane that is set up is asked again now and then, to see that it is alive.
    const bool is_due = lanes[i].is_ready ? post.due(lanes[i].next_ask, kLaneCheckEvery)
                                          : post.due(lanes[i].next_ask);
    if (is_due) send_lane_setup(i);
  }
}

void Scheduler::Impl::send_lane_setup(std::uint32_t index) {
  wire::Header header;
  wire::LaneSetup& body = *header.mutable_lane_setup();
  body = describe_to_lanes(options);
  body.set_setup(setup);
  body.set_first_epoch(first_epoch);
  body.set_incarnation(lanes[index].incarnation);
  body.set_restore_dir(generations.dir());
  body.set_restore_positions(generations.has_positions());
  std::vector<Buffer> frames;
  if (generations.dir().empty() && !lanes[index].is_ready) {
    for (const SchedulerOptions::Preset& preset : options.presets) {
      body.add_preset_tables(preset.table);
    }
    frames = preset_frames(options, index);
  }
  post.send(lanes[index].name, std::move(header), std::move(frames));
}

void Scheduler::Impl::drive_workers() {
  has_workers_setup = true;
  for (WorkerMember& worker : workers) {
    if (!worker.is_live) continue;
    if (worker.setup != setup) {
      if (post.due(worker.next_ask)) send_worker_setup(worker);
    } else if (worker.paused != 0 && worker.paused != cut.number() && post.due(worker.next_ask)) {
      wire::Header header;
      header.mutable_resume()->set_cut(worker.paused);
      post.send(worker.name, std::move(header));
    }
  }
  if (has_begun) return;
  has_begun = std::ranges::all_of(
      workers, [this](const WorkerMember& worker) { return worker.is_ready(setup); });
}

void Scheduler::Impl::send_worker_setup(const WorkerMember& worker) {
  wire::Header header;
  wire::WorkerSetup& body = *header.mutable_worker_setup();
  for (const LaneMember& lane : lanes) body.add_lane_endpoints(lane.endpoint);
  body.set_streams(options.streams);
  body.set_staleness(options.staleness);
  body.set_heartbeat_ms(
      std::chrono::duration_cast<std::chrono::milliseconds>(options.heartbeat).count());
  body.set_setup(setup);
  body.set_incarnation(worker.incarnation);
  post.send(worker.name, std::move(header));
}

void Scheduler::Impl::drive_training(TimePoint now) {
  if (!has_begun) return;
  if (!all_trained()) {
    phase = cut.number() == 0 ? Progress::kTraining : Progress::kCutting;
    leases.drive(post, workers, setup, cut.number());
    drive_cut(now);
  }
  if (!is_stopping() && all_trained()) drive_evaluation();
}

void Scheduler::Impl::drive_cut(TimePoint now) {
  if (!generations.is_writing()) return;
  if (cut.phase() == Cut::kNone) {
    const bool is_wanted = stop_requested || options.checkpoint_every_s > 0;
    const TimePoint next = std::max(
        stop_requested ? TimePoint{} : last_generation + from_seconds(options.checkpoint_every_s),
        save_again);
    if (leases.all_ended()) {
      if (save_again <= now) begin_save();
    } else if (is_wanted && next <= now) {
      cut.start(options.streams);
    }
    if (leases.all_ended() || is_wanted) post.wake_at(std::max(next, save_again));
  }
  cut.drive(post, leases, workers);
  if (cut.phase() == Cut::kDrained) {
    begin_save();
    cut.drive(post, leases, workers);
  }
  if (cut.phase() >= Cut::kWriting) release_workers();
  if (cut.phase() == Cut::kSaved) complete_generation(now);
  if (cut.phase() == Cut::kFailed) on_save_failed(now, cut.failure());
}

// Every batch so far is in the generation, and no other.
void Scheduler::Impl::begin_save() {
  if (Status begun = generations.begin(); !begun.ok()) return cut.give_up(std::move(begun));
  saved_training = training;
  is_last_save = leases.all_ended() || stop_requested;
  const manifest::Manifest* base = is_last_save ? nullptr : generations.base(options.full_every);
  if (base && !checkpoint::may_stand_on(describe_in_manifest(options), *base)) base = nullptr;
  base_generation = base == nullptr ? 0 : base->generation();
  wire::Save order;
  order.set_generation(generations.begun());
  order.set_dir(generations.begun_dir());
  order.set_setup(setup);
  for (int t = 0; base != nullptr && t < base->tables_size(); ++t) {
    order.add_base_steps(base->tables(t).step() + is_planted(PlantedBug::kDeltaOffByOne));
  }
  cut.save(std::move(order));
}

// Lanes have taken the cut: training goes on.
void Scheduler::Impl::release_workers() {
  if (released_cut == cut.last()) return;
  released_cut = cut.last();
  for (WorkerMember& worker : workers) {
    if (worker.is_ready(setup)) worker.paused = cut.last();
    worker.next_ask = {};
  }
  drive_workers();
}

void Scheduler::Impl::complete_generation(TimePoint now) {
  manifest::Manifest manifest = describe_in_manifest(options);
  manifest.set_generation(generations.begun());
  manifest.set_written_ms(clock.wall_ms());
  manifest.set_base(base_generation);
  std::uint64_t record_sum = 0;
  if (Status same = cut.collect(manifest, record_sum); !same.ok()) {
    return stop(std::move(same).context("checkpoint"));
  }
  if (base_generation == 0) manifest.set_digest(checkpoint::final_digest(record_sum, manifest));
  if (Status done = generations.complete(std::move(manifest), saved_training); !done.ok()) {
    return on_save_failed(now, std::move(done));
  }
  cut.finish();
  rollbacks_in_row = save_failures = 0;
  last_generation = now;
  if (stop_requested && is_last_save) {
    return stop({Code::kInterrupted,
                 "stopped as asked, " + generations.dir() + " is complete: go on with --resume"});
  }
}

// The disk is full, say. What there is stays; the run trains on and tries again.
void Scheduler::Impl::on_save_failed(TimePoint now, Status why) {
  LOG(WARNING) << "generation " << generations.begun() << " is given up: " << why.message();
  generations.abandon();
  if (++save_failures >= kSaveFailuresMax) return stop(std::move(why).context("checkpoint"));
  cut.finish();
  last_generation = now;
  save_again = now + kSaveAgain;
}

void Scheduler::Impl::drive_evaluation() {
  if (options.evaluate) {
    phase = Progress::kEvaluating;
    evaluation.drive(post, workers, setup);
    if (!evaluation.is_done()) return;
  }
  stop({});
}

// A lane has lost its rows: everybody goes back to the last generation, or to the start.
void Scheduler::Impl::roll_back() {
  ++rollbacks;
  if (++rollbacks_in_row > kRollbacksMax) {
    return stop(failed("lanes were lost " + std::to_string(rollbacks_in_row) +
                       " times without a checkpoint in between: see why they end, or set "
                       "checkpoint.every_s lower"));
  }
  ++setup;
  first_epoch = leases.reset();
  cut.finish();
  evaluation.reset();
  if (!is_planted(PlantedBug::kMetricsSurviveRollBack)) training = generations.metrics();
  has_workers_setup = false;
  phase = Progress::kJoining;
  for (LaneMember& lane : lanes) {
    lane.is_ready = false;
    lane.next_ask = {};
  }
  for (WorkerMember& worker : workers) worker.next_ask = {};
}

void Scheduler::Impl::lose_worker(TimePoint now, std::uint32_t index) {
  WorkerMember& worker = workers[index];
  worker.is_live = false;
  detection_s = seconds(now - worker.heard);
  ++lost_workers;
  leases.revoke_all(index);
}

void Scheduler::Impl::stop(Status why) {
  if (is_stopping()) return;
  status = std::move(why);
  phase = Progress::kStopping;
  for (LaneMember& lane : lanes) lane.next_ask = {};
  for (WorkerMember& worker : workers) worker.next_ask = {};
}

void Scheduler::Impl::drive_stop() {
  if (stop_deadline == kNever) stop_deadline = post.now() + kStopWait;
  bool all_stopped = true;
  const auto ask = [&](Member& member) {
    if (!member.is_known || member.has_stopped) return;
    all_stopped &= !member.is_live;
    if (!post.due(member.next_ask)) return;
    wire::Header header;
    header.mutable_stop()->set_reason(status.message());
    post.send(member.name, std::move(header));
  };
  for (LaneMember& lane : lanes) ask(lane);
  for (WorkerMember& worker : workers) ask(worker);
  post.wake_at(stop_deadline);
  if (all_stopped || stop_deadline <= post.now()) phase = Progress::kDone;
}

Scheduler::Scheduler(SchedulerOptions options, net::Transport& transport, Storage& storage,
                     const Clock& clock)
    : impl_(std::make_unique<Impl>(std::move(options), transport, storage, clock)) {}

Scheduler::~Scheduler() = default;

void Scheduler::on_message(TimePoint now, const net::Message& message) {
  if (finished()) return;
  impl_->on_message(now, message);
  impl_->drive(now);
}

void Scheduler::on_timer(TimePoint now) { impl_->drive(now); }

TimePoint Scheduler::next_timer() const { return finished() ? kNever : impl_->wake; }

bool Scheduler::finished() const { return impl_->phase == Progress::kDone; }

void Scheduler::request_stop(TimePoint now) {
  Impl& impl = *impl_;
  if (impl.stop_requested || impl.is_stopping()) return;
  impl.stop_requested = true;
  const bool has_work = impl.has_begun && !impl.all_trained();
  if (!has_work || !impl.generations.is_writing()) {
    impl.stop({Code::kInterrupted, "stopped as asked"});
  }
  impl.drive(now);
}

void Scheduler::peer_died(TimePoint now, const std::string& peer) {
  Impl& impl = *impl_;
  if (const auto worker = impl.worker_index.find(peer); worker != impl.worker_index.end()) {
    WorkerMember& member = impl.workers[worker->second];
    if (member.is_live) impl.lose_worker(now, worker->second);
    member.bury();
  } else if (const auto lane = impl.lane_index.find(peer); lane != impl.lane_index.end()) {
    impl.lanes[lane->second].bury();
  }
  impl.drive(now);
}

Status Scheduler::status() const { return impl_->status; }

Progress Scheduler::progress() const {
  const Impl& impl = *impl_;
  Progress progress;
  progress.phase = impl.phase;
  progress.lanes_ready =
      std::ranges::count_if(impl.lanes, [](const LaneMember& lane) { return lane.is_ready; });
  progress.workers_live = std::ranges::count_if(
      impl.workers, [](const WorkerMember& worker) { return worker.is_live; });
  progress.done = impl.leases.done();
  progress.samples = impl.training.samples;
  progress.batches = impl.training.batches;
  progress.generation = impl.generations.manifest().generation();
  progress.lost_workers = impl.lost_workers;
  progress.rollbacks = impl.rollbacks;
  progress.detection_s = impl.detection_s;
  return progress;
}

const Accumulator& Scheduler::training() const { return impl_->training; }
const Accumulator& Scheduler::held_out() const { return impl_->evaluation.held_out(); }
const std::string& Scheduler::generation_dir() const { return impl_->generations.dir(); }
const manifest::Manifest& Scheduler::manifest() const { return impl_->generations.manifest(); }

}  // namespace meander::scheduler
