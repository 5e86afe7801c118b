// SPDX-License-Identifier: Apache-2.0
#include "scheduler/scheduler.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "checkpoint/generation.h"
#include "common/check.h"
#include "common/partition.h"
#include "common/planted_bug.h"
#include "scheduler/backups.h"
#include "scheduler/cut.h"
#include "scheduler/describe.h"
#include "scheduler/evaluation.h"
#include "scheduler/generations.h"
#include "scheduler/journal.h"
#include "scheduler/leases.h"
#include "scheduler/members.h"
#include "scheduler/post.h"
#include "scheduler/scaling.h"

namespace meander::scheduler {
namespace {

constexpr std::uint32_t kRollbacksMax = 8;  // without a new generation
constexpr Duration kLaneCheckEvery = std::chrono::seconds(2);
constexpr Duration kStopWait = std::chrono::seconds(3);
constexpr std::uint32_t kSaveFailuresMax = 3;  // in a row; the run trains on after fewer
constexpr Duration kSaveAgain = std::chrono::seconds(1);
constexpr Duration kCommitEvery = std::chrono::milliseconds(5);
constexpr int kTermShift = 32;  // epochs and numbers of cuts: the term's in the upper half
constexpr char kJournalDir[] = "journal";

std::string tenths(Duration d) {
  return std::to_string(std::lround(10 * seconds(d)) / 10) + "." +
         std::to_string(std::lround(10 * seconds(d)) % 10) + " s";
}

std::string whole_seconds(Duration d) { return std::to_string(std::lround(seconds(d))) + " s"; }

// The run, as far as what is in the journal depends on it.
std::string identity(const SchedulerOptions& options) {
  return options.model + "\n" + std::to_string(options.workers) + " workers, " +
         std::to_string(options.streams) + " streams\n" + options.job;
}

std::string encode(const Accumulator& sums) {
  const Buffer bytes = sums.encode();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

std::string journal_dir(const std::string& checkpoint_dir) {
  return join_path(checkpoint_dir, kJournalDir);
}

struct Scheduler::Impl {
  Impl(SchedulerOptions scheduler_options, net::Transport& transport, Storage& storage,
       const Clock& run_clock);

  Status take_up(Storage& storage);
  Status go_on(Storage& storage, const JournalContents& from);
  Status open_generations();

  // Effects that a successor must know of are noted before they happen.
  journal::Record everything() const;
  void note(bool with_sums = false);
  void commit(bool rewrite = false);
  void on_journal(Status status);
  void give_way();
  void acknowledge(std::uint32_t worker, std::uint64_t number);

  void on_message(TimePoint now, const net::Message& message);
  void on_scale(TimePoint now, const net::Message& message);
  Status scale(std::uint32_t wanted);
  void on_failure(const std::string& peer, const wire::Failure& failure);
  void on_lane(TimePoint now, std::uint32_t index, const net::Message& message);
  void on_lane_hello(TimePoint now, std::uint32_t index, const wire::Hello& hello);
  void on_worker(TimePoint now, std::uint32_t index, const net::Message& message);
  void on_worker_hello(TimePoint now, std::uint32_t index, const wire::Hello& hello);
  void on_heartbeat(TimePoint now, std::uint32_t index, const net::Message& message);
  void count(std::uint32_t index, const wire::Heartbeat& heartbeat,
             const std::vector<Buffer>& frames);
  void on_evaluated(const wire::Evaluated& evaluated, const std::vector<Buffer>& frames);

  // One round: sends all that is due, moves on where it can.
  void drive(TimePoint now);
  void check_deadlines(TimePoint now);
  void check_lane(TimePoint now, std::uint32_t index);
  TimePoint last_join() const;
  bool is_overdue(TimePoint since);  // longer ago than options.join
  void drive_lanes();
  void drive_workers();
  void drive_training(TimePoint now);
  void drive_cut(TimePoint now);
  void begin_cut(TimePoint now);
  void drive_scaling(TimePoint now);
  void drive_change(TimePoint now);
  void change_over();
  void set_lane_count(std::uint32_t count);
  void close_pause(TimePoint now);
  void drive_evaluation();
  void drive_stop();

  bool fail_over(TimePoint now, std::uint32_t index);
  void drive_backups();
  void roll_back();
  void lose_worker(TimePoint now, std::uint32_t index);
  void begin_save();
  void release_workers();
  void complete_generation(TimePoint now);
  void on_save_failed(TimePoint now, Status why);
  void stop(Status why);
  wire::LaneSetup lane_setup() const;
  void send_lane_setup(std::uint32_t index);
  void look_for(const LaneMember& lane);
  void send_worker_setup(const WorkerMember& worker);
  bool is_stopping() const { return phase >= Progress::kStopping; }
  bool is_set_up() const {
    return std::ranges::all_of(lanes, [](const LaneMember& lane) { return lane.is_ready; });
  }
  bool all_trained() const { return !options.train || (leases.all_ended() && is_saved()); }
  bool is_saved() const { return !generations.is_writing() || generations.is_final(); }

  SchedulerOptions options;  // `lanes` as many as there are now
  const Clock& clock;
  Post post;
  std::vector<LaneMember> lanes;
  std::vector<WorkerMember> workers;
  Backups backups;
  std::map<std::string, std::uint32_t> lane_index, backup_index, worker_index;  // by peer name
  Generations generations;
  Leases leases;
  Cut cut;
  Scaling scaling;
  Evaluation evaluation;
  Accumulator training;

  std::unique_ptr<Journal> journal;  // null: the run ends with this process
  bool is_successor = false;         // of a process that died
  std::int64_t began_ms = 0;         // wall clock, once has_begun
  double predecessors_s = 0;
  std::uint64_t samples_before = 0;
  // Heartbeats whose metrics are not durable yet: worker and number.
  std::vector<std::pair<std::uint32_t, std::uint64_t>> to_acknowledge;
  TimePoint next_commit{};

  Progress::Phase phase = Progress::kJoining;
  Status status;
  std::uint64_t setup = 1, first_epoch = 0;
  std::uint32_t rollbacks = 0, rollbacks_in_row = 0;  // in all; since the last generation
  std::uint64_t lanes_version = 0;                    // how often a backup took over
  bool has_workers_setup = false;                     // WorkerSetup of this set-up has gone out
  bool has_been_set_up = false;                       // all lanes have done the present set-up
  bool has_begun = false;                             // all roles were there once
  bool stop_requested = false;
  std::uint64_t counted_from = 1;  // set-ups whose metrics count: this and later ones
  std::uint64_t move = 0;          // the set-up's rows are those of this one; 0: they are not
  std::uint32_t scalings = 0;
  bool is_cut_for_lanes = false;  // the present one is not for a generation,
  std::uint64_t cut_move = 0;     // but for this move
  // Of the last change of lanes: when it was asked for, and when nobody trained any more.
  TimePoint asked_at{}, pause_began = kNever;
  double copy_s = 0, pause_s = 0, pause_batches = 0, batches_per_s = 0;
  // Since when all streams have been trained, and batches until then.
  TimePoint rate_since = kNever;
  std::uint64_t batches_before = 0;
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
      post(transport, options.retry),
      lanes(options.lanes),
      workers(options.workers),
      backups(options.lanes, options.replicas),
      generations(storage, options.checkpoint_dir, options.keep, options.pinned),
      leases(options.streams, options.lanes),
      cut(options.lanes, options.workers, options.staleness >= 0),
      scaling(options.join, options.lease) {
  CHECK(options.lanes > 0 && options.workers > 0 && options.streams > 0);
  set_lane_count(options.lanes);
  for (std::uint32_t i = 0; i < lanes.size() && backups.are_wanted(); ++i) {
    backup_index[backups.member(i).name] = i;
  }
  for (std::uint32_t i = 0; i < workers.size(); ++i) {
    workers[i].name = net::worker_name(i);
    worker_index[workers[i].name] = i;
  }
  post.introduce(options.cluster, 1);
  first_epoch = leases.reset();
  status = take_up(storage);
  if (!status.ok()) phase = Progress::kDone;
}

// Opens the journal, and goes on where a predecessor was.
Status Scheduler::Impl::take_up(Storage& storage) {
  if (!generations.is_writing()) return open_generations();
  const std::string dir = journal_dir(options.checkpoint_dir);
  if (!options.journal) {
    RETURN_IF_ERROR(storage.remove(dir));  // of a run that is not gone on with
    return open_generations();
  }
  journal = std::make_unique<Journal>(storage, dir, options.nonce);
  Result<JournalContents> taken = journal->take_over();
  if (!taken.ok() && taken.status().code() == Code::kInvalid) {
    LOG(WARNING) << taken.status().message()
                 << ": no journal is kept; if the scheduler dies, start all roles again and they "
                    "go on from the newest checkpoint";
    journal.reset();
    return open_generations();
  }
  RETURN_IF_ERROR(taken.status());
  const std::uint64_t base = (journal->term() - 1) << kTermShift;
  post.introduce(options.cluster, journal->term());
  cut.count_from(base);
  leases.count_from(base);
  backups.count_from(base);
  scaling.count_from(base);
  lanes_version = base;
  first_epoch = leases.reset();
  is_successor = !taken.value().is_empty && taken.value().state.identity() == identity(options);
  RETURN_IF_ERROR(is_successor ? go_on(storage, taken.value()) : open_generations());
  commit(true);
  return status;
}

Status Scheduler::Impl::open_generations() {
  if (!options.restore.empty()) {
    RETURN_IF_ERROR(generations.restore(options.restore, options.model, options.streams,
                                        options.restore_positions, options.streams_go_on));
  }
  RETURN_IF_ERROR(generations.find_next());
  training = generations.metrics();
  samples_before = training.samples;
  return {};
}

Status Scheduler::Impl::go_on(Storage& storage, const JournalContents& from) {
  const journal::State& state = from.state;
  post.introduce(state.cluster(), journal->term());
  const Result<std::string> newest = checkpoint::newest_generation(storage, options.checkpoint_dir);
  if (newest.ok()) {
    RETURN_IF_ERROR(generations.restore(newest.value(), options.model, options.streams, true));
    RETURN_IF_ERROR(generations.find_next());
  } else {
    RETURN_IF_ERROR(open_generations());
  }
  generations.abandon_begun(state.generation());
  training = from.training;
  setup = state.setup();
  counted_from = std::max<std::uint64_t>(1, state.counted_from());
  move = state.move();
  if (state.lanes() != 0) {
    lanes.resize(state.lanes());
    set_lane_count(state.lanes());
    first_epoch = leases.move_to(state.lanes());
  }
  if (state.wanted_lanes() != 0) scaling.want(state.wanted_lanes());
  has_been_set_up = state.is_set_up();
  has_begun = state.has_begun();
  rollbacks = state.rollbacks();
  rollbacks_in_row = state.rollbacks_in_row();
  lost_workers = state.lost_workers();
  backups.go_on(state, post);
  began_ms = state.began_ms();
  samples_before = state.samples_before();
  if (has_begun) predecessors_s = std::max(0.0, 1e-3 * double(clock.wall_ms() - began_ms));
  for (const journal::Counted& counted : state.counted()) {
    if (counted.worker() >= workers.size()) continue;
    workers[counted.worker()].counted[counted.incarnation()] = counted.number();
  }
  if (has_been_set_up) leases.await_claims(options.lease);
  LOG(WARNING) << "scheduler " << journal->term() << " of this run goes on where the last one was";
  if (!state.is_over()) return {};
  ASSIGN_OR_RETURN(Accumulator held_out, Accumulator::decode(Buffer::copy_of(
                                             state.held_out().data(), state.held_out().size())));
  evaluation.adopt(std::move(held_out));
  phase = Progress::kStopping;
  // Who has not stopped yet cannot be told from who has.
  for (LaneMember& lane : lanes) lane.is_known = lane.is_live = true;
  for (const auto& [name, lane] : backup_index) backups.member(lane).is_known = true;
  for (WorkerMember& worker : workers) worker.is_known = worker.is_live = true;
  return {};
}

journal::Record Scheduler::Impl::everything() const {
  journal::Record record;
  journal::State& state = *record.mutable_state();
  state.set_identity(identity(options));
  state.set_cluster(post.cluster());
  state.set_setup(setup);
  state.set_is_set_up(has_been_set_up);
  state.set_has_begun(has_begun);
  state.set_generation(generations.begun());
  state.set_rollbacks(rollbacks);
  state.set_rollbacks_in_row(rollbacks_in_row);
  state.set_lost_workers(lost_workers);
  backups.note(state);
  state.set_began_ms(began_ms);
  state.set_samples_before(samples_before);
  state.set_lanes(options.lanes);
  state.set_wanted_lanes(scaling.target());
  state.set_move(move);
  state.set_counted_from(counted_from);
  for (std::uint32_t w = 0; w < workers.size(); ++w) {
    for (const auto& [incarnation, number] : workers[w].counted) {
      journal::Counted& counted = *state.add_counted();
      counted.set_worker(w);
      counted.set_incarnation(incarnation);
      counted.set_number(number);
    }
  }
  if (is_stopping()) {
    state.set_is_over(true);
    state.set_held_out(encode(evaluation.held_out()));
  }
  record.set_training(encode(training));
  return record;
}

// Durable when it returns, unless the journal is lost.
void Scheduler::Impl::note(bool with_sums) {
  if (!journal) return;
  journal::Record record = everything();
  if (!with_sums) record.clear_training();
  journal->append(record);
  commit();
}

void Scheduler::Impl::commit(bool rewrite) {
  if (journal) {
    rewrite |= journal->is_long();
    on_journal(rewrite ? journal->rewrite(everything()) : journal->sync());
  }
  next_commit = post.now() + kCommitEvery;
  for (const auto& [worker, number] : to_acknowledge) acknowledge(worker, number);
  to_acknowledge.clear();
}

void Scheduler::Impl::on_journal(Status written) {
  if (written.ok()) return;
  if (written.code() == Code::kUnavailable) return give_way();
  LOG(ERROR) << "the journal is given up: " << written.message()
             << "; should the scheduler die, start all roles again and they go on from the newest "
                "checkpoint";
  const Status removed = journal->remove();
  journal.reset();
  if (!removed.ok()) stop(removed);  // somebody would go on with what is not true any more
}

// Another scheduler runs this run. Whatever this one still says or writes could only do harm.
void Scheduler::Impl::give_way() {
  LOG(WARNING) << "another scheduler has taken this run over: this one (" << post.term()
               << " of the run) ends";
  post.fall_silent();
  journal.reset();
  status = unavailable("another scheduler has taken this run over");
  phase = Progress::kDone;
}

void Scheduler::Impl::acknowledge(std::uint32_t worker, std::uint64_t number) {
  wire::Header ack;
  ack.mutable_heartbeat_ack()->set_number(number);
  post.send(workers[worker].name, std::move(ack));
}

void Scheduler::Impl::on_message(TimePoint now, const net::Message& message) {
  const wire::Header& header = message.header;
  const bool is_first_word = (header.has_hello() || header.has_scale()) && header.cluster() == 0;
  if (header.cluster() != post.cluster() && !is_first_word) return;
  if (header.term() > post.term()) return give_way();
  if (header.has_scale()) return on_scale(now, message);
  const std::string& peer = post.process(message.peer);
  const bool is_member =
      lane_index.contains(peer) || backup_index.contains(peer) || worker_index.contains(peer);
  if (!is_member) {
    scaling.on_stranger(post, peer, header);
  } else if (header.has_failure()) {
    on_failure(message.peer, header.failure());
  } else if (const auto lane = lane_index.find(peer); lane != lane_index.end()) {
    on_lane(now, lane->second, message);
  } else if (const auto backup = backup_index.find(peer); backup != backup_index.end()) {
    backups.on_message(now, backup->second, header, setup);
  } else if (const auto worker = worker_index.find(peer); worker != worker_index.end()) {
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
  LOG_IF(WARNING, lane.is_missed) << lane.name << " answers again after "
                                  << tenths(now - lane.heard);
  lane.is_missed = false;
  lane.heard = now;
  if (header.has_lane_ready() && header.lane_ready().setup() == setup) {
    if (backups.is_taking_over(index)) {
      backups.on_ready(index, header.lane_ready());
    } else if (header.lane_ready().turn() == backups.turn(index)) {
      lane.is_ready = lane.is_live = true;
    }
  }
  if (header.has_fenced() && backups.is_taking_over(index)) {
    backups.on_fenced(index, header.fenced());
  }
  if (header.has_fenced()) leases.on_fenced(index, header.fenced());
  if (header.has_in_step() && backups.are_wanted()) {
    backups.on_in_step(index, header.in_step(), setup);
  }
  if (header.has_forgotten() && header.forgotten().setup() == setup && !is_stopping()) {
    LOG(WARNING) << lane.name << " does not have rows that it should";
    roll_back();
  }
  if (header.has_flipped() && header.flipped().setup() == setup) {
    cut.on_flipped(index, header.flipped());
  }
  if (header.has_saved()) cut.on_saved(index, header.saved());
  if (header.has_moved()) scaling.on_moved(lane.name, header.moved());
}

void Scheduler::Impl::on_lane_hello(TimePoint now, std::uint32_t index, const wire::Hello& hello) {
  LaneMember& lane = lanes[index];
  const bool was_known = lane.is_known;
  const Duration silence = now - lane.heard;
  const Member::Standing standing = lane.hear(now, hello.incarnation());
  // Until it has done its set-up, a late word of a dead incarnation may still be taken for it.
  lane.is_live = standing != Member::kNew && lane.is_ready;
  if (standing == Member::kStranger) return;
  if (!lane.is_ready) lane.next_ask = {};
  if (standing == Member::kCurrent) return;
  lane.is_missed = false;
  if (was_known && !is_stopping()) {
    detection_s = seconds(silence);
    LOG(WARNING) << lane.name << " (" << lane.where << ") is lost: another process has taken its "
                 << "place, " << tenths(silence) << " after its last word";
  }
  lane.endpoint = hello.endpoint();
  lane.where = hello.host() + ", pid " + std::to_string(hello.pid());
  lane.is_ready = false;
  lane.has_stopped = false;
  lane.next_ask = {};
  if (is_stopping()) return;
  // It has lived on while there was no scheduler.
  const bool holds_rows = !was_known && hello.setup() == setup;
  if (holds_rows) {
    lane.is_ready = lane.is_live = true;
  } else if (!was_known && move != 0) {
    // It may not have taken over yet what it holds; else it says Forgotten.
  } else if ((was_known || has_been_set_up) && !fail_over(now, index)) {
    roll_back();
  }
}

// A lane is lost. False: nobody stands by for it.
bool Scheduler::Impl::fail_over(TimePoint now, std::uint32_t index) {
  if (!backups.is_in_step(index)) return false;
  LaneMember& lane = lanes[index];
  LOG(WARNING) << lane.name << ": " << backups.member(index).where << " takes over";
  backups.take_over(index, lane, post);
  lane.is_missed = false;
  lane.heard = now;
  note();
  if (cut.phase() >= Cut::kFlipping) {  // what the lost one had to write
    generations.abandon();
    cut.finish();
    save_again = now + kSaveAgain;
  }
  return true;
}

void Scheduler::Impl::drive_backups() {
  if (!backups.are_wanted()) return;
  if (!backups.drive(post, lanes, leases, lane_setup(), is_successor)) return;
  ++lanes_version;
  for (WorkerMember& worker : workers) worker.next_ask = {};
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
    if (was_live && !is_stopping()) {
      ++lost_workers;
      detection_s = seconds(silence);
      LOG(WARNING) << worker.name << " (" << worker.where << ") is lost: another process has taken "
                   << "its place, " << tenths(silence) << " after its last word";
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
  count(index, heartbeat, message.frames);
  const Member::Standing standing = worker.hear(now, heartbeat.incarnation());
  if (standing == Member::kStranger) return;
  if (standing == Member::kNew) leases.revoke_all(index);
  worker.setup = heartbeat.setup();
  worker.paused = heartbeat.paused();
  worker.lanes_version = heartbeat.lanes_version();
  if (journal && !journal->is_durable()) {
    to_acknowledge.emplace_back(index, heartbeat.number());
  } else {
    acknowledge(index, heartbeat.number());
  }
  if (heartbeat.setup() != setup) return;
  for (const wire::StreamProgress& stream : heartbeat.streams()) leases.on_progress(index, stream);
}

// Each heartbeat's metrics once; those of a set-up that was rolled back, never.
void Scheduler::Impl::count(std::uint32_t index, const wire::Heartbeat& heartbeat,
                            const std::vector<Buffer>& frames) {
  WorkerMember& worker = workers[index];
  std::uint64_t& counted = worker.counted[heartbeat.incarnation()];
  const bool is_new = heartbeat.number() > counted;
  if (!is_new && !is_planted(PlantedBug::kHeartbeatCountedTwice)) return;
  counted = heartbeat.number();
  if (heartbeat.setup() < counted_from || frames.empty()) return;
  const Result<Accumulator> metrics = Accumulator::decode(frames[0]);
  if (!metrics.ok()) return stop(Status(metrics.status()).context(worker.name + ": metrics"));
  training.merge(metrics.value());
  if (!journal) return;
  journal::Record record;
  journal::Counted& noted = *record.mutable_metrics()->mutable_counted();
  noted.set_worker(index);
  noted.set_incarnation(heartbeat.incarnation());
  noted.set_number(counted);
  record.mutable_metrics()->set_sums(frames[0].data(), frames[0].size());
  journal->append(record);
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
  if (journal && !journal->is_durable()) {
    // A cut waits for workers whose metrics are to be durable.
    if (next_commit <= now || cut.phase() == Cut::kDraining) commit();
    if (journal && !journal->is_durable()) post.wake_at(next_commit);
  }
  if (!is_stopping()) check_deadlines(now);
  if (!is_stopping()) drive_lanes();
  if (!is_stopping()) drive_backups();
  if (!is_stopping() && is_set_up()) {
    if (!std::exchange(has_been_set_up, true)) note();
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
  for (std::uint32_t i = 0; i < lanes.size(); ++i) {
    LaneMember& lane = lanes[i];
    if (has_begun && !lane.is_known && is_overdue(started)) {
      return stop(unavailable(waited + lane.name +
                              " to be there again: start it, or go on later with --resume"));
    }
    if (!lane.is_known) continue;
    check_lane(now, i);
    if (is_overdue(lane.heard)) {
      return stop(unavailable(waited + lane.name + " (" + lane.where +
                              ") to answer: start it again, or go on later with --resume"));
    }
  }
  if (has_begun && is_overdue(last_live_worker)) {
    stop(unavailable(waited + "a worker to come back: none is alive; go on later with --resume"));
  }
}

// A silent lane cannot be done without: it answers again, or a new process takes its place.
void Scheduler::Impl::check_lane(TimePoint now, std::uint32_t index) {
  LaneMember& lane = lanes[index];
  if (backups.is_in_step(index) && lane.is_ready) {
    if (post.silence(lane.heard) < Backups::kSilence)
      return post.wake_at(now + Backups::kCheckEvery);
    detection_s = seconds(now - lane.heard);
    LOG(WARNING) << lane.name << " (" << lane.where << ") has been silent for "
                 << tenths(now - lane.heard);
    fail_over(now, index);
    return;
  }
  if (lane.is_missed) return;
  if (now - lane.heard < options.lease) return post.wake_at(lane.heard + options.lease);
  lane.is_missed = true;
  detection_s = seconds(now - lane.heard);
  LOG(WARNING) << lane.name << " (" << lane.where << ") has been silent for "
               << tenths(now - lane.heard) << ": waiting for it, or for a new process in its place";
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
    if (!lanes[i].is_known) {
      if (is_successor && post.due(lanes[i].next_ask)) look_for(lanes[i]);
      continue;
    }
    // A lane that is set up is asked again now and then, to see that it is alive.
    if (backups.is_taking_over(i)) continue;
    const Duration check_every = backups.are_wanted()
                                     ? Backups::kCheckEvery
                                     : std::min<Duration>(kLaneCheckEvery, options.lease / 3);
    const bool is_due =
        lanes[i].is_ready ? post.due(lanes[i].next_ask, check_every) : post.due(lanes[i].next_ask);
    if (is_due) send_lane_setup(i);
  }
}

// Whoever it is answers with Hello.
void Scheduler::Impl::look_for(const LaneMember& lane) {
  wire::Header header;
  header.mutable_lane_setup()->set_setup(setup);
  post.send(lane.name, std::move(header));
}

wire::LaneSetup Scheduler::Impl::lane_setup() const {
  wire::LaneSetup body = describe_to_lanes(options);
  body.set_setup(setup);
  body.set_first_epoch(first_epoch);
  body.set_move(move);
  return body;
}

void Scheduler::Impl::send_lane_setup(std::uint32_t index) {
  wire::Header header;
  wire::LaneSetup& body = *header.mutable_lane_setup();
  body = lane_setup();
  body.set_turn(backups.turn(index));
  body.set_incarnation(lanes[index].incarnation);
  if (move == 0) body.set_restore_dir(generations.dir());
  body.set_restore_positions(generations.has_positions());
  body.set_streams_go_on(options.streams_go_on && generations.dir() == options.restore);
  std::vector<Buffer> frames;
  if (move == 0 && generations.dir().empty() && !lanes[index].is_ready) {
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
    } else if (worker.lanes_version < lanes_version && post.due(worker.next_move)) {
      wire::Header header;
      wire::LaneEndpoints& body = *header.mutable_lane_endpoints();
      body.set_setup(setup);
      body.set_version(lanes_version);
      for (const LaneMember& lane : lanes) body.add_endpoints(lane.endpoint);
      post.send(worker.name, std::move(header));
    }
  }
  if (has_begun) return;
  has_begun = std::ranges::all_of(
      workers, [this](const WorkerMember& worker) { return worker.is_ready(setup); });
  if (!has_begun) return;
  began_ms = clock.wall_ms();
  note();
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
  body.set_counted_from(counted_from);
  post.send(worker.name, std::move(header));
}

void Scheduler::Impl::drive_training(TimePoint now) {
  if (!has_begun) return;
  if (!all_trained()) {
    phase = cut.number() == 0 ? Progress::kTraining : Progress::kCutting;
    leases.drive(post, workers, setup, cut.number());
    drive_scaling(now);
    drive_cut(now);
    close_pause(now);
  }
  if (scaling.target() != 0 && all_trained()) {
    scaling.give_up(post, lanes, "training is over");
  }
  if (!is_stopping() && all_trained()) drive_evaluation();
}

void Scheduler::Impl::drive_cut(TimePoint now) {
  if (cut.phase() == Cut::kNone) begin_cut(now);
  cut.drive(post, leases, workers);
  if (is_cut_for_lanes) return drive_change(now);
  if (cut.phase() == Cut::kDrained) {
    begin_save();
    cut.drive(post, leases, workers);
  }
  if (cut.phase() >= Cut::kWriting) release_workers();
  if (cut.phase() == Cut::kSaved) complete_generation(now);
  if (cut.phase() == Cut::kFailed) on_save_failed(now, cut.failure());
}

// If it is time for one.
void Scheduler::Impl::begin_cut(TimePoint now) {
  is_cut_for_lanes = scaling.is_near(lanes) && !stop_requested && !leases.all_ended();
  if (is_cut_for_lanes) {
    cut_move = scaling.move();
    copy_s = seconds(now - asked_at);
    const double trained_s = seconds(now - rate_since);
    if (trained_s > 0 && training.batches > batches_before) {
      batches_per_s = double(training.batches - batches_before) / trained_s;
    }
    return cut.start(options.streams);
  }
  if (!generations.is_writing()) return;
  if (last_generation == kNever) last_generation = now;
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

// Every batch so far is in the generation, and no other.
void Scheduler::Impl::begin_save() {
  if (Status begun = generations.begin(); !begun.ok()) return cut.give_up(std::move(begun));
  note();
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

Status Scheduler::Impl::scale(std::uint32_t wanted) {
  if (wanted == 0 || wanted > kPartitions) {
    return invalid(std::to_string(wanted) + " lanes: there may be 1 ... " +
                   std::to_string(kPartitions));
  }
  const std::uint32_t coming = scaling.target() != 0 ? scaling.target() : options.lanes;
  if (wanted == coming) {
    if (scaling.target() == 0) scaling.want(0);  // nothing is given up any more
    return {};
  }
  if (backups.are_wanted()) {
    return invalid(
        "lanes with backups (cluster.replicas: 1) cannot be changed while training goes on");
  }
  if (is_stopping() || all_trained() || leases.all_ended()) return invalid("training is over");
  if (scaling.target() != 0) scaling.restart(post, lanes);
  scaling.send_away(post, std::max(wanted, options.lanes));
  scaling.want(wanted == options.lanes ? 0 : wanted);
  asked_at = post.now();
  note();
  return {};
}

void Scheduler::Impl::on_scale(TimePoint now, const net::Message& message) {
  const std::uint32_t wanted = message.header.scale().lanes();
  Status taken;
  if (wanted != 0) taken = scale(wanted);
  wire::Header header;
  header.set_request(message.header.request());
  wire::Scaled& body = *header.mutable_scaled();
  body.set_lanes(options.lanes);
  body.set_wanted(scaling.target());
  body.set_message(taken.ok() ? scaling.message(lanes) : taken.message());
  body.set_is_refused(!taken.ok() || scaling.was_given_up());
  const bool is_pausing = pause_began != kNever;
  if (is_pausing && scaling.target() == 0) body.set_wanted(options.lanes);  // not over yet
  body.set_pause_s(pause_s);
  body.set_pause_batches(pause_batches);
  body.set_copy_s(copy_s);
  post.send(message.peer, std::move(header));
}

// How far other lanes are that are wanted.
void Scheduler::Impl::drive_scaling(TimePoint now) {
  if (const std::uint32_t target = scaling.target(); target != 0) {
    wire::LaneSetup next = lane_setup();
    next.set_lanes(target);
    next.set_setup(setup + 1);
    next.clear_move();
    if (scaling.is_overdue(now)) scaling.restart(post, lanes);
    scaling.drive(post, lanes, next);
    if (scaling.target() == 0) note();  // given up
  }
  // Workers do not wait for a move that is not the cut's any more.
  if (!is_cut_for_lanes || (scaling.is_moving() && scaling.move() == cut_move)) return;
  cut.finish();
  is_cut_for_lanes = false;
  pause_began = kNever;
  release_workers();
}

// All streams stand still: the lanes send what is left, and those to come take over.
void Scheduler::Impl::drive_change(TimePoint now) {
  const bool is_still =
      cut.phase() == Cut::kDrained ||
      (is_planted(PlantedBug::kMovedBeforeDrained) && cut.phase() == Cut::kDraining);
  if (!is_still) return;
  if (!scaling.is_finishing()) {
    pause_began = now;
    scaling.finish(now);
    drive_scaling(now);
  }
  post.wake_at(now + options.lease);
  if (scaling.is_complete(lanes)) change_over();
}

// From here on there is no way back but a roll-back, under the new number of lanes.
void Scheduler::Impl::change_over() {
  const std::size_t before = lanes.size();
  move = scaling.move();
  rate_since = kNever;
  scaling.take_over(post, lanes);
  ++setup;
  ++scalings;
  cut.finish();
  is_cut_for_lanes = false;
  set_lane_count(static_cast<std::uint32_t>(lanes.size()));
  first_epoch = leases.move_to(options.lanes);
  note();
  if (phase == Progress::kDone) return;
  LOG(INFO) << options.lanes << " lanes from now on, there were " << before;
  for (LaneMember& lane : lanes) {
    lane.is_ready = false;
    lane.next_ask = {};
  }
  for (WorkerMember& worker : workers) worker.next_ask = {};
  drive_lanes();
}

// `lanes` are so many.
void Scheduler::Impl::set_lane_count(std::uint32_t count) {
  options.lanes = count;
  lane_index.clear();
  for (std::uint32_t i = 0; i < count; ++i) {
    lanes[i].name = net::lane_name(i);
    lane_index[lanes[i].name] = i;
  }
  cut.set_lanes(count);
}

void Scheduler::Impl::close_pause(TimePoint now) {
  if (is_cut_for_lanes || !leases.all_held()) return;
  if (rate_since == kNever) {
    rate_since = now;
    batches_before = training.batches;
  }
  if (pause_began == kNever) return;
  pause_s = seconds(now - pause_began);
  pause_batches = pause_s * batches_per_s / options.streams;
  pause_began = kNever;
  LOG(INFO) << "all streams are trained again, " << pause_s << " s after the last batch before";
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
  if (journal) on_journal(journal->check_still_mine());
  if (phase == Progress::kDone) return;
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
  // The interval begins with the next round: on a slow store this one began long ago, and a run
  // would do nothing but write checkpoints.
  last_generation = kNever;
  post.wake_at(now);
  commit(true);
  if (stop_requested && is_last_save) {
    return stop({Code::kInterrupted,
                 "stopped as asked, " + generations.dir() + " is complete: go on with --resume"});
  }
}

// The disk is full, say. What there is stays; the run trains on and tries again.
void Scheduler::Impl::on_save_failed(TimePoint now, Status why) {
  // Another run writes here, and what lies there is its.
  if (why.code() == Code::kInvalid) return stop(std::move(why).context("checkpoint"));
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
  counted_from = ++setup;
  move = 0;
  first_epoch = leases.reset();
  cut.finish();
  is_cut_for_lanes = false;
  pause_began = rate_since = kNever;
  scaling.restart(post, lanes);
  evaluation.reset();
  if (!is_planted(PlantedBug::kMetricsSurviveRollBack)) training = generations.metrics();
  has_workers_setup = has_been_set_up = false;
  phase = Progress::kJoining;
  note(true);
  for (LaneMember& lane : lanes) {
    lane.is_ready = false;
    lane.next_ask = {};
  }
  for (WorkerMember& worker : workers) worker.next_ask = {};
  backups.reset();
}

void Scheduler::Impl::lose_worker(TimePoint now, std::uint32_t index) {
  WorkerMember& worker = workers[index];
  worker.is_live = false;
  detection_s = seconds(now - worker.heard);
  LOG(WARNING) << worker.name << " (" << worker.where << ") is lost: noticed "
               << tenths(now - worker.heard) << " after its last word";
  ++lost_workers;
  leases.revoke_all(index);
}

void Scheduler::Impl::stop(Status why) {
  if (is_stopping()) return;
  status = std::move(why);
  phase = Progress::kStopping;
  if (status.ok()) {
    note();
  } else if (journal) {
    const Status removed = journal->remove();
    LOG_IF(WARNING, !removed.ok()) << removed.message();
    journal.reset();
  }
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
  for (const auto& [name, lane] : backup_index) ask(backups.member(lane));
  for (auto& [index, lane] : scaling.spares()) ask(lane);
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

Status Scheduler::scale(TimePoint now, std::uint32_t lanes) {
  Status taken = impl_->scale(lanes);
  impl_->drive(now);
  return taken;
}

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

void Scheduler::peer_died(TimePoint now, const std::string& process) {
  Impl& impl = *impl_;
  const std::string& peer = impl.post.process(process);
  if (const auto worker = impl.worker_index.find(peer); worker != impl.worker_index.end()) {
    WorkerMember& member = impl.workers[worker->second];
    if (member.is_live) impl.lose_worker(now, worker->second);
    member.bury();
  } else if (const auto lane = impl.lane_index.find(peer); lane != impl.lane_index.end()) {
    impl.lanes[lane->second].bury();
    if (!impl.is_stopping() && impl.lanes[lane->second].is_ready) {
      impl.fail_over(now, lane->second);
    }
  } else if (const auto backup = impl.backup_index.find(peer); backup != impl.backup_index.end()) {
    impl.backups.member(backup->second).bury();
    impl.backups.lose(backup->second);
  } else {
    impl.scaling.bury(peer);
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
  progress.lanes = impl.options.lanes;
  progress.lanes_wanted = impl.scaling.target() != 0 ? impl.scaling.target() : impl.options.lanes;
  progress.scalings = impl.scalings;
  progress.done = impl.leases.done();
  progress.samples = impl.training.samples;
  progress.batches = impl.training.batches;
  progress.generation = impl.generations.manifest().generation();
  progress.lost_workers = impl.lost_workers;
  progress.rollbacks = impl.rollbacks;
  progress.backups = impl.backups.in_step();
  progress.failovers = impl.backups.failovers();
  progress.detection_s = impl.detection_s;
  progress.predecessors_s = impl.predecessors_s;
  progress.samples_before = impl.samples_before;
  progress.is_successor = impl.is_successor;
  return progress;
}

const Accumulator& Scheduler::training() const { return impl_->training; }
const Accumulator& Scheduler::held_out() const { return impl_->evaluation.held_out(); }
const std::string& Scheduler::generation_dir() const { return impl_->generations.dir(); }
const manifest::Manifest& Scheduler::manifest() const { return impl_->generations.manifest(); }

}  // namespace meander::scheduler
