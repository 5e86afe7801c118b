// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/deaths/cluster.h"

#include <algorithm>
#include <utility>

#include "checkpoint/generation.h"
#include "common/rng.h"
#include "models/model.h"
#include "net/awake_clock.h"
#include "worker/dense_blocks.h"

namespace meander::sim {
namespace {

constexpr std::uint64_t kCluster = 4711;
constexpr std::uint32_t kDenseBlock = 8;
constexpr std::uint64_t kKeys[] = {40, 7};  // by table
constexpr std::uint32_t kSlice = 1000;      // streams from here on are slices of the held-out part

std::uint32_t batches_of(const Scenario& scenario, std::uint32_t stream) {
  if (stream >= kSlice) return 2;
  // One in a while has none at all.
  const std::uint64_t drawn = hash64(scenario.seed, stream, 1) % (scenario.batches + 1);
  return stream == 0 ? scenario.batches : static_cast<std::uint32_t>(drawn);
}
std::uint32_t samples_of(std::uint32_t stream, std::uint64_t seq) {
  return 2 + static_cast<std::uint32_t>(hash64(stream, seq) % 5);
}
std::uint64_t key_of(std::uint32_t table, std::uint32_t stream, std::uint64_t seq,
                     std::uint32_t sample) {
  const std::uint64_t random = hash64(hash64(stream, seq), table, sample);
  return mix64(1 + table) + random % kKeys[table];
}

// Histories of one behaviour that is the sample itself.
class Source final : public worker::BatchSource {
 public:
  Source(std::uint32_t stream, std::uint64_t batches) : stream_(stream), batches_(batches) {}

  std::uint64_t batches() const override { return batches_; }
  Status build(std::uint64_t seq, const PartitionMap& lanes, data::Batch& batch) override {
    batch.stream = stream_;
    batch.seq = seq;
    batch.samples = samples_of(stream_, seq);
    batch.longest = 1;
    batch.progress = static_cast<double>(seq + 1) / static_cast<double>(batches_);
    batch.keys.assign(2, {});
    batch.parts.resize(2);
    for (std::uint32_t table : {0u, 1u}) collect_keys(table, lanes, batch);
    const std::uint32_t half = batch.samples / 2;
    fill(batch, batch.parts[0], 0, half);
    fill(batch, batch.parts[1], half, batch.samples);
    return {};
  }

 private:
  void collect_keys(std::uint32_t table, const PartitionMap& lanes, data::Batch& batch) const {
    std::vector<std::uint64_t>& keys = batch.keys[table];
    for (std::uint32_t i = 0; i < batch.samples; ++i) {
      keys.push_back(key_of(table, stream_, batch.seq, i));
    }
    std::ranges::sort(keys);
    keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
    std::ranges::stable_sort(keys, {}, [&](std::uint64_t key) { return lanes.lane_of(key); });
  }
  void fill(const data::Batch& batch, data::Part& part, std::uint32_t begin,
            std::uint32_t end) const {
    const auto groups = static_cast<std::int32_t>(end - begin);
    part.groups = groups;
    part.lengths.assign(groups, 1);
    part.step_rows.assign(groups > 0 ? 1 : 0, groups);
    part.step_offset.assign(groups > 0 ? 1 : 0, 0);
    part.target.assign(2, {});
    part.label.clear();
    for (std::uint32_t i = begin; i < end; ++i) {
      for (std::uint32_t table : {0u, 1u}) {
        const std::vector<std::uint64_t>& keys = batch.keys[table];
        const auto at = std::ranges::find(keys, key_of(table, stream_, batch.seq, i));
        part.target[table].push_back(static_cast<std::uint32_t>(at - keys.begin()));
      }
      part.label.push_back(i % 2 == 0 ? 1.0f : 0.0f);
    }
    part.history = part.target;
  }

  const std::uint32_t stream_;
  const std::uint64_t batches_;
};

scheduler::SchedulerOptions scheduler_options(const Scenario& scenario, const nn::Graph& graph,
                                              const wire::Optimizer& optimizer) {
  scheduler::SchedulerOptions options;
  options.cluster = kCluster;
  options.lanes = scenario.lanes;
  options.replicas = scenario.replicas;
  options.workers = options.streams = scenario.workers;
  options.staleness = scenario.staleness;
  options.evaluate = scenario.evaluate;
  options.model = "sim";
  options.checkpoint_dir = "ckpt";
  options.journal = scenario.journal;
  options.restore = scenario.resume ? "ckpt" : "";
  options.checkpoint_every_s = scenario.checkpoint_every_s;
  options.heartbeat = std::chrono::milliseconds(10);
  options.lease = std::chrono::milliseconds(60);
  options.retry = std::chrono::milliseconds(4);
  options.join = std::chrono::seconds(10);
  const auto add_table = [&](const std::string& name, std::uint32_t width) {
    wire::TableSpec& table = options.tables.emplace_back();
    table.set_name(name);
    table.set_width(width);
    table.set_init_range(scenario.init_range);
    table.set_seed(3);
    *table.mutable_optimizer() = optimizer;
  };
  for (std::int32_t t = 0; t < graph.tables(); ++t) {
    add_table("table" + std::to_string(t), graph.table_width(t));
  }
  const std::vector<float> dense = graph.initial_dense(1);
  for (const worker::DenseBlocks& blocks : worker::dense_tables(graph, kDenseBlock)) {
    std::vector<float> rows(blocks.blocks() * kDenseBlock);
    blocks.scatter(dense, rows);
    options.presets.push_back({.table = static_cast<std::uint32_t>(options.tables.size()),
                               .keys = blocks.keys(),
                               .rows = std::move(rows)});
    add_table("dense", kDenseBlock);
    if (blocks.first() == 0) continue;
    wire::Optimizer& sgd = *options.tables.back().mutable_optimizer();
    sgd = {};
    sgd.set_kind(wire::Optimizer::SGD);
    sgd.set_rate(0.01f);
  }
  return options;
}

}  // namespace

nn::Graph graph_of(const std::string& kind) {
  models::ModelSpec spec;
  spec.kind = kind;
  spec.slots = {{.name = "item", .table = 0, .width = 1, .in_history = true},
                {.name = "category", .table = 1, .width = 2, .in_history = true}};
  if (kind == "din") {
    spec.attention = {4, 3};
    spec.head = {4, 3};
    spec.dice = "moving";
  }
  Result<nn::Graph> graph = models::build_model(spec);
  CHECK(graph.ok()) << graph.status().message();
  return std::move(graph).value();
}

wire::Optimizer optimizer_of(wire::Optimizer::Kind kind, float rate) {
  wire::Optimizer optimizer;
  optimizer.set_kind(kind);
  optimizer.set_rate(rate);
  optimizer.set_beta1(0.9f);
  optimizer.set_beta2(0.999f);
  optimizer.set_epsilon(1e-8f);
  return optimizer;
}

struct Cluster::SimClock final : Clock {
  explicit SimClock(const net::SimNetwork& n) : network(n) {}
  TimePoint now() const override { return network.now(); }
  std::int64_t wall_ms() const override { return now().time_since_epoch().count() / 1'000'000; }
  const net::SimNetwork& network;
};

// A process that can be stopped in its tracks: what arrives meanwhile waits in its sockets. Like
// NodeRunner it looks at the clock every second, and hands its node time without pauses.
class Cluster::Sleeper final : public net::Node {
 public:
  explicit Sleeper(net::Node& node) : node_(node) {}
  explicit Sleeper(std::unique_ptr<net::Node> node) : node_(*node), owned_(std::move(node)) {}

  void on_message(TimePoint now, const net::Message& message) override {
    if (is_asleep_) {
      waiting_.push_back(message);
    } else {
      node_.on_message(clock_.look(now), message);
    }
  }
  void on_timer(TimePoint now) override {
    if (is_asleep_) return;
    const TimePoint awake = clock_.look(now);
    if (!is_started_ || node_.next_timer() <= awake) node_.on_timer(awake);
    is_started_ = true;
    next_look_ = now + std::chrono::seconds(1);
  }
  TimePoint next_timer() const override {
    if (is_asleep_) return kNever;
    return is_started_ ? std::min(clock_.seen_at(node_.next_timer()), next_look_) : TimePoint{};
  }
  bool finished() const override { return node_.finished(); }
  TimePoint now() const { return clock_.now(); }

  void sleep() { is_asleep_ = true; }
  void wake(TimePoint now) {
    is_asleep_ = false;
    const TimePoint awake = clock_.look(now);
    for (const net::Message& message : std::exchange(waiting_, {})) {
      node_.on_message(awake, message);
    }
  }

 private:
  net::Node& node_;
  std::unique_ptr<net::Node> owned_;
  net::AwakeClock clock_;
  bool is_started_ = false, is_asleep_ = false;
  TimePoint next_look_{};
  std::vector<net::Message> waiting_;
};

Cluster::Cluster(Scenario scenario, const nn::Graph& graph, wire::Optimizer optimizer,
                 Storage& storage)
    : scenario_(std::move(scenario)),
      graph_(graph),
      optimizer_(std::move(optimizer)),
      storage_(storage),
      network_(scenario_.fault_seed, scenario_.faults),
      clock_(std::make_unique<SimClock>(network_)),
      lanes_(scenario_.lanes * (1 + scenario_.replicas)),
      workers_(scenario_.workers) {
  start_scheduler();
  for (std::uint32_t i = 0; i < lanes_.size(); ++i) start_lane(i);
  for (std::uint32_t i = 0; i < workers_.size(); ++i) start_worker(i);
  for (const Scenario::Event& event : scenario_.events) schedule(event);
}

Cluster::~Cluster() = default;

void Cluster::start_scheduler() {
  scheduler::SchedulerOptions options = scheduler_options(scenario_, graph_, optimizer_);
  options.nonce = ++schedulers_;
  network_.attach(net::kSchedulerName, nullptr);
  scheduler_ = std::make_unique<scheduler::Scheduler>(
      std::move(options), network_.transport(net::kSchedulerName), storage_, *clock_);
  scheduler_process_ = std::make_unique<Sleeper>(*scheduler_);
  network_.attach(net::kSchedulerName, scheduler_process_.get());
}

std::string Cluster::lane_process(std::uint32_t index) const {
  return scenario_.replicas == 0 || index < scenario_.lanes
             ? net::lane_name(index)
             : net::backup_name(index - scenario_.lanes);
}

void Cluster::start_lane(std::uint32_t index) {
  const std::string name = lane_process(index);
  ps::LaneOptions options;
  options.index = scenario_.replicas == 0 ? index : index % scenario_.lanes;
  options.name = name;
  options.incarnation = ++incarnations_;
  options.endpoint = name;
  options.hello_every = std::chrono::milliseconds(2);
  network_.attach(name, nullptr);
  lanes_[index] = std::make_unique<Sleeper>(
      std::make_unique<ps::Lane>(options, network_.transport(name), storage_, executor_));
  network_.attach(name, lanes_[index].get());
}

// Whoever starts processes sees that they are wanted.
void Cluster::start_lanes_below(std::uint32_t count) {
  if (lanes_.size() < count) lanes_.resize(count);
  for (std::uint32_t i = 0; i < count; ++i) {
    if (!lanes_[i] || lanes_[i]->finished()) start_lane(i);
  }
}

void Cluster::start_worker(std::uint32_t index) {
  const std::string name = net::worker_name(index);
  worker::WorkerOptions options;
  options.index = index;
  options.incarnation = ++incarnations_;
  options.depth = scenario_.depth;
  options.dense_block = kDenseBlock;
  options.hello_every = std::chrono::milliseconds(2);
  options.retry = std::chrono::milliseconds(4);
  using Opened = Result<std::unique_ptr<worker::BatchSource>>;
  const auto open = [this](std::uint32_t stream) -> Opened {
    return std::unique_ptr<worker::BatchSource>(
        std::make_unique<Source>(stream, batches_of(scenario_, stream)));
  };
  const auto open_slice = [open](std::uint32_t slice, std::uint32_t) {
    return open(kSlice + slice);
  };
  network_.attach(name, nullptr);
  workers_[index] = std::make_unique<Sleeper>(std::make_unique<worker::Worker>(
      options, graph_, open, open_slice, network_.transport(name), executor_));
  network_.attach(name, workers_[index].get());
}

void Cluster::schedule(const Scenario::Event& event) {
  using Event = Scenario::Event;
  const auto at = [this](Duration when, std::function<void()> fn) {
    network_.at(TimePoint(when), [this, fn = std::move(fn)] {
      if (!is_over()) fn();
    });
  };
  const std::uint32_t index = event.index;
  const Duration end = event.when + event.length;
  if (event.kind == Event::kCrashWorker || event.kind == Event::kCrashLane) {
    const bool is_worker = event.kind == Event::kCrashWorker;
    const std::string name = is_worker ? net::worker_name(index) : lane_process(index);
    at(event.when, [this, is_worker, index, name] {
      if (index >= (is_worker ? workers_ : lanes_).size()) return;
      network_.attach(name, nullptr);
      is_worker ? workers_[index].reset() : lanes_[index].reset();
    });
    if (event.is_reported) {
      at(event.when + event.length / 2, [this, is_worker, index, name] {
        if (index >= (is_worker ? workers_ : lanes_).size()) return;
        const bool is_down = is_worker ? !workers_[index] : !lanes_[index];
        if (is_down && scheduler_) scheduler_->peer_died(scheduler_process_->now(), name);
      });
    }
    at(end, [this, is_worker, index] {
      if (index >= (is_worker ? workers_ : lanes_).size()) return;
      is_worker ? start_worker(index) : start_lane(index);
    });
  } else if (event.kind == Event::kSleepWorker || event.kind == Event::kSleepLane) {
    auto& processes = event.kind == Event::kSleepWorker ? workers_ : lanes_;
    at(event.when, [&processes, index] {
      if (index < processes.size() && processes[index]) processes[index]->sleep();
    });
    at(end, [this, &processes, index] {
      if (index < processes.size() && processes[index]) processes[index]->wake(network_.now());
    });
  } else if (event.kind == Event::kPauseAll) {
    const auto each = [this](void (*what)(Sleeper&, TimePoint)) {
      for (auto* processes : {&lanes_, &workers_}) {
        for (const auto& process : *processes) {
          if (process) what(*process, network_.now());
        }
      }
      if (scheduler_) what(*scheduler_process_, network_.now());
    };
    at(event.when, [each] { each([](Sleeper& process, TimePoint) { process.sleep(); }); });
    at(end, [each] { each([](Sleeper& process, TimePoint now) { process.wake(now); }); });
  } else if (event.kind == Event::kCrashScheduler) {
    at(event.when, [this] {
      network_.attach(net::kSchedulerName, nullptr);
      scheduler_process_.reset();
      scheduler_.reset();
    });
    at(end, [this] {
      if (!scheduler_) start_scheduler();
    });
  } else if (event.kind == Event::kReplaceScheduler) {
    const auto number = std::make_shared<std::size_t>(~std::size_t{0});
    at(event.when, [this, number] {
      if (!scheduler_) return;
      *number = replaced_.size();
      scheduler_process_->sleep();
      replaced_.emplace_back(std::move(scheduler_), std::move(scheduler_process_));
      start_scheduler();
    });
    at(end, [this, number] {
      if (*number >= replaced_.size()) return;
      Sleeper& process = *replaced_[*number].second;
      process.wake(network_.now());
      if (!process.finished()) process.on_timer(network_.now());
    });
  } else if (event.kind == Event::kScale) {
    at(event.when, [this, index] {
      if (scheduler_ && scheduler_->scale(scheduler_process_->now(), index).ok()) ++scalings_;
    });
    at(end, [this, index] { start_lanes_below(index); });
  } else {
    at(event.when, [this] { scheduler_->request_stop(scheduler_process_->now()); });
  }
}

bool Cluster::run() {
  return network_.run_until([this] { return is_over(); }, TimePoint(std::chrono::hours(1)));
}

std::uint64_t Cluster::samples() const { return samples_between(0, scenario_.workers); }

std::uint64_t Cluster::held_out_samples(std::uint32_t slices) const {
  return samples_between(kSlice, kSlice + slices);
}

std::uint64_t Cluster::samples_between(std::uint32_t begin, std::uint32_t end) const {
  std::uint64_t sum = 0;
  for (std::uint32_t stream = begin; stream < end; ++stream) {
    for (std::uint32_t seq = 0; seq < batches_of(scenario_, stream); ++seq) {
      sum += samples_of(stream, seq);
    }
  }
  return sum;
}

Counts Cluster::counts() const {
  Counts counts;
  for (std::uint32_t stream = 0; stream < scenario_.workers; ++stream) {
    for (std::uint32_t seq = 0; seq < batches_of(scenario_, stream); ++seq) {
      for (std::uint32_t i = 0; i < samples_of(stream, seq); ++i) {
        for (std::uint32_t table : {0u, 1u}) ++counts[{table, key_of(table, stream, seq, i)}];
      }
    }
  }
  return counts;
}

std::map<std::pair<std::uint32_t, std::uint64_t>, float> read_generation(
    Storage& storage, const std::string& dir, const manifest::Manifest& manifest) {
  std::map<std::pair<std::uint32_t, std::uint64_t>, float> rows;
  for (const manifest::File& file : manifest.files()) {
    const Status read =
        checkpoint::read_rows(storage, join_path(dir, file.name()), file, 0, kPartitions - 1,
                              [&](const checkpoint::Record& record) {
                                rows[{file.table(), record.key}] = record.values[0];
                                return Status();
                              });
    CHECK(read.ok()) << read.message();
  }
  return rows;
}

}  // namespace meander::sim
