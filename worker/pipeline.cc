// SPDX-License-Identifier: Apache-2.0
#include "worker/pipeline.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "common/check.h"

namespace meander::worker {
namespace {

// The name under which the batches of a slice are pulled: no stream is called so.
constexpr std::uint32_t kSliceStream = ~0u;

}  // namespace

// A stream under lease, or a slice being scored.
struct Pipeline::Run {
  std::uint32_t stream = 0;
  std::uint64_t epoch = 0;
  bool read_only = false;
  std::uint32_t slice = 0, slices = 0;
  std::unique_ptr<BatchSource> source;  // null until it is opened
  std::shared_ptr<const PartitionMap> lanes;
  std::uint64_t next_build = 0;  // seq
  std::uint64_t started = 0;     // first seq whose pull was not sent
  std::uint64_t acked = 0;       // first seq not acknowledged
  std::uint64_t end = 0;         // one past the last seq; known once opened
  std::uint64_t until = 0;       // while paused: seqs below may start
  StepPtr building;              // null: none
  bool dropped = false, ended = false;
  bool end_taken = false, end_arrived = false;  // with the metrics
  double progress = 0;
  std::vector<StepPtr> steps;  // seqs acked, acked + 1, ...
  Accumulator scores;          // of a slice

  bool complete() const { return source != nullptr && acked == end; }
};

Pipeline::Pipeline(const WorkerOptions& options, const nn::Graph& graph, OpenStream open_stream,
                   OpenSlice open_slice, net::Transport& transport, Executor& executor,
                   Collective* collective)
    : options_(options),
      open_stream_(std::move(open_stream)),
      open_slice_(std::move(open_slice)),
      transport_(transport),
      executor_(executor),
      trainer_(graph, options.dense_block, options.clip_norm, collective, options.precision,
               options.frozen) {
  CHECK_GT(options.depth, 0u);
}

Pipeline::~Pipeline() = default;

Status Pipeline::set_up(std::uint64_t cluster, const std::vector<std::string>& lane_endpoints) {
  for (const auto& [stream, run] : streams_) {
    run->dropped = true;
    former_[stream] = run;
  }
  streams_.clear();
  if (slice_) slice_->dropped = true;
  slice_ = nullptr;
  fenced_.clear();
  paused_ = false;
  client_ = std::make_unique<ps::Client>(
      transport_,
      ps::ClientOptions{.widths = trainer_.widths(),
                        .format = {options_.wire_precision, trainer_.graph_tables()},
                        .retry = options_.retry,
                        .retry_max = 8 * options_.retry,
                        .cluster = cluster},
      ps::Client::Events{
          .pulled = [this](TimePoint, ps::BatchId id,
                           std::vector<Buffer>& rows) { pulled(id, rows); },
          .pushed = [this](TimePoint, ps::BatchId id) { pushed(id); },
          .fenced = [this](TimePoint, std::uint32_t stream) { fenced_.push_back(stream); }});
  RETURN_IF_ERROR(client_->set_lanes(lane_endpoints));
  if (partitions_ == nullptr || partitions_->lanes() != lane_endpoints.size()) {
    partitions_ = std::make_shared<const PartitionMap>(client_->partitions());
    is_regrouped_ = false;
  }
  lane_endpoints_ = lane_endpoints;
  return {};
}

Status Pipeline::relocate(TimePoint now, const std::vector<std::string>& lane_endpoints) {
  if (lane_endpoints_.size() != lane_endpoints.size()) return invalid("other lanes than before");
  for (std::uint32_t lane = 0; lane < lane_endpoints.size(); ++lane) {
    if (lane_endpoints[lane] == lane_endpoints_[lane]) continue;
    RETURN_IF_ERROR(client_->relocate(now, lane, lane_endpoints[lane]));
    lane_endpoints_[lane] = lane_endpoints[lane];
  }
  return {};
}

void Pipeline::lease(std::uint32_t stream, std::uint64_t epoch, std::uint64_t next) {
  const auto held = streams_.find(stream);
  if (held != streams_.end()) drop(RunPtr(held->second));
  auto run = std::make_shared<Run>();
  run->stream = stream;
  run->epoch = epoch;
  run->next_build = run->started = run->acked = next;
  run->lanes = partitions_;
  streams_[stream] = run;
}

void Pipeline::drop(const RunPtr& run) {
  run->dropped = true;
  client_->drop(run->stream);
  streams_.erase(run->stream);
}

void Pipeline::pause() {
  paused_ = true;
  for (const auto& [stream, run] : streams_) run->until = 0;
}

void Pipeline::run_to(std::uint32_t stream, std::uint64_t until) {
  const auto run = streams_.find(stream);
  if (run != streams_.end()) run->second->until = until;
}

void Pipeline::resume() { paused_ = false; }

bool Pipeline::drained() const {
  return std::ranges::all_of(streams_, [](const auto& entry) {
    const Run& run = *entry.second;
    return run.ended || (run.acked == run.started && run.acked >= run.until);
  });
}

std::vector<wire::StreamProgress> Pipeline::progress() const {
  std::vector<wire::StreamProgress> all;
  for (const auto& [stream, run] : streams_) {
    wire::StreamProgress& progress = all.emplace_back();
    progress.set_stream(stream);
    progress.set_epoch(run->epoch);
    progress.set_started(run->started);
    progress.set_acked(run->acked);
    progress.set_ended(run->end_arrived);
    progress.set_progress(run->progress);
  }
  return all;
}

Accumulator Pipeline::take_metrics() {
  for (const auto& [stream, run] : streams_) run->end_taken = run->ended;
  return std::exchange(metrics_, {});
}

bool Pipeline::metrics_arrived() {
  bool has_news = false;
  for (const auto& [stream, run] : streams_) {
    has_news |= run->end_taken && !run->end_arrived;
    run->end_arrived = run->end_taken;
  }
  return has_news;
}

bool Pipeline::has_end() const {
  return std::ranges::any_of(
      streams_, [](const auto& entry) { return entry.second->ended && !entry.second->end_taken; });
}

void Pipeline::evaluate(std::uint32_t slice, std::uint32_t slices) {
  if (slice_ && slice_->slice == slice && slice_->slices == slices) return;
  if (slice_) {
    slice_->dropped = true;
    client_->drop(kSliceStream);
  }
  slice_ = std::make_shared<Run>();
  slice_->stream = kSliceStream;
  slice_->epoch = ++slices_opened_;
  slice_->read_only = true;
  slice_->slice = slice;
  slice_->slices = slices;
  slice_->lanes = partitions_;
}

const Accumulator* Pipeline::evaluation() const {
  return slice_ && slice_->complete() ? &slice_->scores : nullptr;
}

bool Pipeline::on_message(TimePoint now, const net::Message& message) {
  return client_ && client_->on_message(now, message);
}

TimePoint Pipeline::next_timer() const {
  if (work_done_) return TimePoint::min();
  return client_ ? client_->next_timer() : kNever;
}

void Pipeline::advance(TimePoint now) {
  if (!client_) return;
  if (client_->next_timer() <= now) client_->on_timer(now);
  drop_fenced();
  if (!has_lanes()) return;
  // With an executor that works at once, each round may finish work for the next.
  do {
    work_done_ = false;
    list_in_turn();
    for (const RunPtr& run : in_turn_) {
      if (!status_.ok() || run->dropped) continue;
      open(run);
      build(run);
      send_pulls(now, *run);
      compute(*run);
      for (std::size_t i = 0; i < run->steps.size(); ++i) send_push(now, *run, run->steps[i]);
      finish_steps(*run);
    }
  } while (work_done_);
  in_turn_.clear();
}

// False: a step of other lanes is still being computed.
bool Pipeline::has_lanes() {
  if (is_regrouped_) return true;
  work_done_ = false;
  if (computing_) return false;
  trainer_.set_partitions(*partitions_);
  is_regrouped_ = true;
  return true;
}

// Every run, beginning behind the one that was computed last.
void Pipeline::list_in_turn() {
  in_turn_.clear();
  const auto first = streams_.upper_bound(last_computed_);
  for (auto it = first; it != streams_.end(); ++it) in_turn_.push_back(it->second);
  for (auto it = streams_.begin(); it != first; ++it) in_turn_.push_back(it->second);
  if (slice_) in_turn_.push_back(slice_);
}

Pipeline::StepPtr Pipeline::new_step() {
  for (const StepPtr& step : steps_) {
    if (step.use_count() > 1) continue;
    std::atomic_thread_fence(std::memory_order_acquire);  // whoever held it has read it
    return step;
  }
  return steps_.emplace_back(std::make_shared<Step>());
}

Pipeline::Run* Pipeline::find(const ps::BatchId& id) {
  RunPtr run;
  if (id.stream == kSliceStream) {
    run = slice_;
  } else if (const auto it = streams_.find(id.stream); it != streams_.end()) {
    run = it->second;
  }
  return run && run->epoch == id.epoch ? run.get() : nullptr;
}

bool Pipeline::may_start(const Run& run, std::uint64_t seq) const {
  return run.read_only || !paused_ || seq < run.until;
}

void Pipeline::open(const RunPtr& run) {
  if (run->source || opening_) return;
  if (const auto former = former_.find(run->stream); former != former_.end() && !run->read_only) {
    if (former->second->building) return;  // soon
    Run& before = *former->second;
    if (before.source) opened(*run, std::move(before.source));
    former_.erase(former);
    if (run->source) return;
  }
  opening_ = true;
  using Opened = Result<std::unique_ptr<BatchSource>>;
  auto source = std::make_shared<Opened>(nullptr);
  executor_.submit(
      [this, run, source] {
        *source = run->read_only ? open_slice_(run->slice, run->slices) : open_stream_(run->stream);
      },
      [this, run, source] {
        opening_ = false;
        work_done_ = true;
        if (!run->dropped) opened(*run, std::move(*source));
      });
}

void Pipeline::opened(Run& run, Result<std::unique_ptr<BatchSource>> source) {
  if (!source.ok()) {
    status_ = std::move(source).status();
    return;
  }
  run.source = std::move(source).value();
  run.end = run.source->batches();
  // A stream without further batches still has to tell the lanes that it has ended.
  if (!run.read_only && run.end <= run.acked) run.end = run.acked + 1;
}

void Pipeline::build(const RunPtr& run) {
  if (!run->source || run->building || run->next_build == run->end) return;
  if (run->steps.size() > options_.depth) return;
  const StepPtr step = new_step();
  const std::uint64_t seq = run->next_build++;
  step->state = Step::kBuilding;
  step->id = {.stream = run->stream, .epoch = run->epoch, .seq = seq};
  step->last = seq + 1 == run->end;
  step->read_only = run->read_only;
  run->steps.push_back(step);
  run->building = step;
  building_.push_back(run);
  executor_.submit([run = run.get()] { fill(*run, *run->building); },
                   [this, run = run.get()] { built(*run); });
}

// In the executor.
void Pipeline::fill(Run& run, Step& step) {
  step.status = {};
  if (step.id.seq < run.source->batches()) {
    step.status = run.source->build(step.id.seq, *run.lanes, step.batch);
  } else {
    step.batch.samples = 0;
    step.batch.progress = 1;
  }
}

void Pipeline::built(Run& run) {
  work_done_ = true;
  const StepPtr step = std::move(run.building);
  step->state = Step::kBuilt;
  if (!step->status.ok() && status_.ok() && !run.dropped) status_ = step->status;
  std::erase_if(building_, [&](const RunPtr& other) { return other.get() == &run; });
}

void Pipeline::send_pulls(TimePoint now, Run& run) {
  while (run.started - run.acked < options_.depth && run.started - run.acked < run.steps.size()) {
    const StepPtr& step = run.steps[run.started - run.acked];
    if (step->state != Step::kBuilt || !may_start(run, run.started)) return;
    step->state = Step::kPulling;
    trainer_.keys(step, buffers_);
    client_->pull(now, step->id, buffers_, run.read_only);
    buffers_.clear();  // they hold the step
    ++run.started;
  }
}

void Pipeline::pulled(ps::BatchId id, std::vector<Buffer>& rows) {
  Run* run = find(id);
  if (run == nullptr || id.seq < run->acked || id.seq >= run->started) return;
  Step& step = *run->steps[id.seq - run->acked];
  if (step.state != Step::kPulling) return;
  step.rows.swap(rows);
  step.state = trainer_.has_work(step) ? Step::kPulled : Step::kComputed;
}

// The first batch that is not computed yet, if its rows are there.
void Pipeline::compute(Run& run) {
  if (computing_) return;
  const auto next = std::ranges::find_if(
      run.steps, [](const StepPtr& step) { return step->state < Step::kComputed; });
  if (next == run.steps.end() || (*next)->state != Step::kPulled) return;
  computing_ = *next;
  computing_->state = Step::kComputing;
  if (!run.read_only) last_computed_ = run.stream;
  executor_.submit([this] { work_on(*computing_); }, [this] { computed(); });
}

// In the executor.
void Pipeline::work_on(Step& step) {
  step.status = {};
  if (step.read_only) {
    trainer_.infer(step, executor_);
  } else {
    step.status = trainer_.train(step, executor_);
  }
}

void Pipeline::computed() {
  work_done_ = true;
  const StepPtr step = std::move(computing_);
  step->state = Step::kComputed;
  if (!step->status.ok() && status_.ok()) status_ = step->status;
}

void Pipeline::send_push(TimePoint now, Run& run, const StepPtr& step) {
  if (step->state != Step::kComputed) return;
  if (run.read_only) {
    client_->release(step->id);
    step->state = Step::kAcked;
  } else {
    step->state = Step::kPushing;
    trainer_.gradients(step, buffers_);
    client_->push(now, step->id, buffers_, step->last);
    buffers_.clear();  // they hold the step
  }
}

void Pipeline::pushed(ps::BatchId id) {
  Run* run = find(id);
  if (run == nullptr || id.seq < run->acked || id.seq >= run->started) return;
  Step& step = *run->steps[id.seq - run->acked];
  if (step.state == Step::kPushing) step.state = Step::kAcked;
}

void Pipeline::finish_steps(Run& run) {
  while (!run.steps.empty() && run.steps.front()->state == Step::kAcked) {
    Step& step = *run.steps.front();
    Accumulator& sums = run.read_only ? run.scores : metrics_;
    if (!step.empty()) {
      sums.samples += step.batch.samples;
      sums.batches += 1;
      const bool is_tail = !run.read_only && step.batch.progress > Accumulator::kTailFrom;
      add_scores(step, is_tail ? sums.tail : sums.head);
      add_second_scores(step, is_tail ? sums.second_tail : sums.second_head);
      if (run.read_only) {
        add_ranks(step, sums);
      } else {
        sums.loss_sum += step.loss;
        add_curve(step, sums);
      }
    }
    run.progress = step.batch.progress;
    run.ended = step.last;
    step.rows.clear();
    run.steps.erase(run.steps.begin());
    ++run.acked;
    work_done_ = true;  // the next one may start
  }
}

// The client is in the middle of a message: its words on this stream can be taken away only later.
void Pipeline::drop_fenced() {
  for (std::uint32_t stream : std::exchange(fenced_, {})) {
    const auto run = streams_.find(stream);
    if (run != streams_.end()) drop(RunPtr(run->second));
  }
}

}  // namespace meander::worker
