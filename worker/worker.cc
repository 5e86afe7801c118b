// SPDX-License-Identifier: Apache-2.0
#include "worker/worker.h"

#include <algorithm>
#include <map>
#include <utility>

#include "common/check.h"
#include "worker/pipeline.h"

namespace meander::worker {

// The conversation with the scheduler (docs/protocol.md); the work itself is the pipeline's.
struct Worker::Impl {
  Impl(WorkerOptions worker_options, const nn::Graph& graph, OpenStream open_stream,
       OpenSlice open_slice, net::Transport& net, Executor& executor, Collective* collective)
      : options(std::move(worker_options)),
        transport(net),
        cluster(options.cluster),
        pipeline(options, graph, std::move(open_stream), std::move(open_slice), net, executor,
                 collective) {}

  void on_scheduler(TimePoint now, const wire::Header& header);
  void on_set_up(TimePoint now, const wire::WorkerSetup& body);
  void on_lane_endpoints(TimePoint now, const wire::LaneEndpoints& body);
  void on_lease(const wire::Lease& lease);
  void on_heartbeat_ack(TimePoint now, std::uint64_t number);
  void on_pause(std::uint64_t number);
  void on_run_to(const wire::RunTo& body);
  void on_resume(std::uint64_t number);
  void on_evaluate(const wire::Evaluate& body);
  bool enter_cut(std::uint64_t number);

  // Moves the work on and says what has come of it.
  void settle(TimePoint now);
  void say_hello(TimePoint now);
  void send_heartbeat(TimePoint now);
  void send_drained();
  void send_evaluated();
  void finish(Status why);
  void send(wire::Header header, std::vector<Buffer> frames = {});

  const WorkerOptions options;
  net::Transport& transport;
  std::uint64_t cluster;
  std::uint64_t term = 0;  // the scheduler's
  Pipeline pipeline;

  std::uint64_t setup = 0;          // 0: not set up yet
  std::uint64_t lanes_version = 0;  // of LaneEndpoints in this set-up
  Duration heartbeat_every{};
  TimePoint next_hello{}, next_heartbeat{};
  TimePoint scheduler_heard = kNever;             // set by the first call
  std::map<std::uint32_t, std::uint64_t> epochs;  // highest seen, by stream
  bool finished = false;
  Status status;

  // The heartbeat that waits for its acknowledgement, with the metrics it carries.
  std::uint64_t number = 0;
  bool is_acknowledged = true;
  std::vector<Buffer> metrics_frames;

  std::uint64_t cut = 0;  // the last one heard of
  bool paused = false;    // for `cut`
  bool running_to = false, drained_said = false;

  // The slice asked for and not yet answered.
  bool is_evaluating = false, evaluated_said = false;
  wire::Evaluate slice;
};

void Worker::Impl::send(wire::Header header, std::vector<Buffer> frames) {
  header.set_cluster(cluster);
  header.set_term(term);
  transport.send(net::kSchedulerName, std::move(header), std::move(frames));
}

void Worker::Impl::finish(Status why) {
  finished = true;
  status = std::move(why);
}

void Worker::Impl::say_hello(TimePoint now) {
  wire::Header header;
  wire::Hello& hello = *header.mutable_hello();
  hello.set_role(wire::WORKER);
  hello.set_index(options.index);
  hello.set_incarnation(options.incarnation);
  hello.set_pid(options.pid);
  hello.set_host(options.host);
  send(std::move(header));
  next_hello = now + options.hello_every;
}

void Worker::Impl::on_scheduler(TimePoint now, const wire::Header& header) {
  if (cluster == 0) cluster = header.cluster();
  if (header.cluster() != cluster || header.term() < term) return;
  term = header.term();
  scheduler_heard = now;
  if (header.has_stop()) {
    wire::Header reply;
    reply.mutable_stopped();
    send(std::move(reply));
    return finish({});
  }
  if (header.has_worker_setup()) return on_set_up(now, header.worker_setup());
  if (header.has_heartbeat_ack()) return on_heartbeat_ack(now, header.heartbeat_ack().number());
  if (setup == 0) return;
  if (header.has_lane_endpoints()) return on_lane_endpoints(now, header.lane_endpoints());
  if (header.has_lease()) return on_lease(header.lease());
  if (header.has_pause()) return on_pause(header.pause().cut());
  if (header.has_run_to()) return on_run_to(header.run_to());
  if (header.has_resume()) return on_resume(header.resume().cut());
  if (header.has_evaluate()) return on_evaluate(header.evaluate());
}

void Worker::Impl::on_set_up(TimePoint now, const wire::WorkerSetup& body) {
  if (body.incarnation() != options.incarnation || body.setup() <= setup) return;
  const bool was_rolled_back = setup < body.counted_from();
  setup = body.setup();
  lanes_version = 0;
  heartbeat_every = std::chrono::milliseconds(std::max(1u, body.heartbeat_ms()));
  if (was_rolled_back) {
    metrics_frames.clear();
    is_acknowledged = true;
    pipeline.forget_metrics();
  }
  paused = running_to = is_evaluating = false;
  const Status connected =
      pipeline.set_up(cluster, {body.lane_endpoints().begin(), body.lane_endpoints().end()});
  if (!connected.ok()) return finish(connected);
  send_heartbeat(now);
}

void Worker::Impl::on_lane_endpoints(TimePoint now, const wire::LaneEndpoints& body) {
  if (body.setup() != setup || body.version() <= lanes_version) return;
  lanes_version = body.version();
  const Status found = pipeline.relocate(now, {body.endpoints().begin(), body.endpoints().end()});
  if (!found.ok()) return finish(found);
  next_heartbeat = {};  // the scheduler repeats it until it sees the version
}

void Worker::Impl::on_lease(const wire::Lease& lease) {
  std::uint64_t& seen = epochs[lease.stream()];
  if (lease.setup() != setup || lease.epoch() <= seen) return;
  seen = lease.epoch();
  if (lease.cut() > cut) {
    enter_cut(lease.cut());
  }
  pipeline.lease(lease.stream(), lease.epoch(), lease.next());
  drained_said = false;
  next_heartbeat = {};  // the scheduler repeats a lease until it sees it
}

void Worker::Impl::send_heartbeat(TimePoint now) {
  if (is_acknowledged) {
    ++number;
    is_acknowledged = false;
    metrics_frames.clear();
    const Accumulator metrics = pipeline.take_metrics();
    if (metrics.batches > 0) metrics_frames.push_back(metrics.encode());
  }
  wire::Header header;
  wire::Heartbeat& body = *header.mutable_heartbeat();
  body.set_incarnation(options.incarnation);
  body.set_number(number);
  body.set_setup(setup);
  body.set_paused(paused ? cut : 0);
  body.set_lanes_version(lanes_version);
  for (wire::StreamProgress& stream : pipeline.progress()) *body.add_streams() = std::move(stream);
  send(std::move(header), metrics_frames);
  if (!pipeline.status().ok()) {
    wire::Header failure;
    failure.mutable_failure()->set_code(static_cast<std::uint32_t>(pipeline.status().code()));
    failure.mutable_failure()->set_message(pipeline.status().message());
    send(std::move(failure));
  }
  next_heartbeat = now + heartbeat_every;
}

void Worker::Impl::on_heartbeat_ack(TimePoint now, std::uint64_t acknowledged) {
  if (is_acknowledged || acknowledged != number) return;
  is_acknowledged = true;
  metrics_frames.clear();
  if (pipeline.metrics_arrived()) next_heartbeat = now;  // a stream's end can be told
}

// A cut that is not over. False: this is old news.
bool Worker::Impl::enter_cut(std::uint64_t announced) {
  if (announced < cut || (announced == cut && !paused)) return false;
  if (announced > cut) {
    cut = announced;
    paused = true;
    running_to = drained_said = false;
    pipeline.pause();
  }
  return true;
}

void Worker::Impl::on_pause(std::uint64_t announced) {
  if (!enter_cut(announced)) return;
  wire::Header header;
  header.mutable_paused()->set_cut(cut);
  for (wire::StreamProgress& stream : pipeline.progress()) {
    *header.mutable_paused()->add_streams() = std::move(stream);
  }
  send(std::move(header));
}

void Worker::Impl::on_run_to(const wire::RunTo& body) {
  if (!enter_cut(body.cut())) return;
  running_to = true;
  drained_said = false;
  for (const wire::StreamBound& bound : body.bounds()) {
    pipeline.run_to(bound.stream(), bound.until());
  }
}

void Worker::Impl::on_resume(std::uint64_t announced) {
  if (announced < cut) return;
  cut = announced;
  paused = running_to = false;
  pipeline.resume();
}

void Worker::Impl::send_drained() {
  wire::Header header;
  header.mutable_drained()->set_cut(cut);
  for (wire::StreamProgress& stream : pipeline.progress()) {
    *header.mutable_drained()->add_streams() = std::move(stream);
  }
  send(std::move(header));
  drained_said = true;
}

void Worker::Impl::on_evaluate(const wire::Evaluate& body) {
  if (body.setup() != setup) return;
  slice = body;
  is_evaluating = true;
  evaluated_said = false;
  pipeline.evaluate(body.slice(), body.slices());
}

void Worker::Impl::send_evaluated() {
  wire::Header header;
  wire::Evaluated& body = *header.mutable_evaluated();
  body.set_slice(slice.slice());
  body.set_slices(slice.slices());
  body.set_setup(setup);
  send(std::move(header), {pipeline.evaluation()->encode()});
  evaluated_said = true;
}

void Worker::Impl::settle(TimePoint now) {
  if (finished) return;
  if (scheduler_heard == kNever) scheduler_heard = now;
  if (now - scheduler_heard >= options.scheduler_silence) {
    return finish(unavailable("the scheduler has not been heard of for " +
                              std::to_string(static_cast<int>(seconds(options.scheduler_silence))) +
                              " s: is it still running, and can it be reached?"));
  }
  if (setup == 0) {
    if (next_hello <= now) say_hello(now);
    return;
  }
  pipeline.advance(now);
  const bool is_drained = running_to && pipeline.drained();
  // What a cut or the end of a stream waits for is told at once.
  const bool is_urgent = pipeline.has_end() || (is_drained && pipeline.has_metrics());
  if (next_heartbeat <= now || (is_acknowledged && is_urgent)) send_heartbeat(now);
  const bool all_told = is_acknowledged || metrics_frames.empty();
  if (is_drained && !drained_said && all_told && !pipeline.has_metrics()) send_drained();
  if (is_evaluating && !evaluated_said && pipeline.evaluation() != nullptr) send_evaluated();
}

Worker::Worker(WorkerOptions options, const nn::Graph& graph, OpenStream open_stream,
               OpenSlice open_slice, net::Transport& transport, Executor& executor,
               Collective* collective)
    : impl_(std::make_unique<Impl>(std::move(options), graph, std::move(open_stream),
                                   std::move(open_slice), transport, executor, collective)) {}

Worker::~Worker() = default;

void Worker::on_message(TimePoint now, const net::Message& message) {
  if (impl_->finished) return;
  if (message.peer == net::kSchedulerName) {
    impl_->on_scheduler(now, message.header);
  } else {
    impl_->pipeline.on_message(now, message);
  }
  impl_->settle(now);
}

void Worker::on_timer(TimePoint now) { impl_->settle(now); }

TimePoint Worker::next_timer() const {
  const Impl& impl = *impl_;
  if (impl.finished) return kNever;
  if (impl.scheduler_heard == kNever) return {};
  const TimePoint silence = impl.scheduler_heard + impl.options.scheduler_silence;
  if (impl.setup == 0) return std::min(silence, impl.next_hello);
  return std::min({silence, impl.next_heartbeat, impl.pipeline.next_timer()});
}

bool Worker::finished() const { return impl_->finished; }

Status Worker::status() const { return impl_->status; }

std::size_t Worker::in_flight() const { return impl_->pipeline.in_flight(); }

}  // namespace meander::worker
