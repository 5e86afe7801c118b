// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world/cluster.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "common/rng.h"

namespace meander::sim {
namespace {

constexpr std::uint64_t kCluster = 4711;
constexpr std::int64_t kSlowDisk = 20;

scheduler::SchedulerOptions scheduler_options(const Scenario& scenario, const Tables& tables) {
  scheduler::SchedulerOptions options;
  options.cluster = kCluster;
  options.lanes = scenario.lanes;
  options.workers = options.streams = scenario.input.streams;
  options.staleness = scenario.staleness;
  options.evaluate = scenario.evaluate;
  options.model = "sim";
  options.checkpoint_dir = "ckpt";
  options.restore = scenario.resume ? "ckpt" : "";
  options.checkpoint_every_s = scenario.checkpoint_every_s;
  options.full_every = scenario.full_every;
  options.keep = scenario.keep;
  options.heartbeat = std::chrono::milliseconds(10);
  options.lease = std::chrono::milliseconds(60);
  options.retry = std::chrono::milliseconds(4);
  options.join = std::chrono::seconds(10);
  options.tables = tables.specs;
  options.presets = tables.presets;
  return options;
}

}  // namespace

const char* name_of(Scenario::Event::Kind kind) {
  constexpr const char* kNames[] = {"worker crashes", "lane crashes",      "scheduler crashes",
                                    "host crashes",   "deaths in writing", "hosts dead in writing",
                                    "process pauses", "pauses of all",     "partitions",
                                    "clock jumps",    "disk failing",      "disk full",
                                    "disk slow",      "interrupts",        "other lanes asked for"};
  static_assert(std::size(kNames) == Scenario::Event::kKinds);
  return kNames[kind];
}

// Goes back and forth, as wall clocks do.
struct Cluster::WallClock final : Clock {
  explicit WallClock(const net::SimNetwork& n) : network(n) {}
  TimePoint now() const override { return network.now(); }
  std::int64_t wall_ms() const override {
    return static_cast<std::int64_t>(mix64(now().time_since_epoch().count()) >> 24);
  }
  const net::SimNetwork& network;
};

Cluster::Cluster(const Scenario& scenario, const nn::Graph& graph, const Tables& tables,
                 SimDisk& disk)
    : scenario_(scenario),
      graph_(graph),
      tables_(tables),
      disk_(disk),
      network_(scenario.fault_seed, scenario.faults),
      clock_(std::make_unique<WallClock>(network_)),
      lanes_(scenario.lane_count()),
      workers_(scenario.input.streams) {
  for (std::uint32_t i = 0; i < scenario_.processes(); ++i) start(i);
  for (const Event& event : scenario_.events) schedule(event);
}

Cluster::~Cluster() = default;

Cluster::ProcessPtr& Cluster::process(std::uint32_t index) {
  if (index == 0) return scheduler_process_;
  return index <= lanes_.size() ? lanes_[index - 1] : workers_[index - 1 - lanes_.size()];
}

std::string Cluster::name_of_process(std::uint32_t index) const {
  if (index == 0) return net::kSchedulerName;
  const auto lanes = static_cast<std::uint32_t>(lanes_.size());
  return index <= lanes ? net::lane_name(index - 1) : net::worker_name(index - 1 - lanes);
}

void Cluster::start(std::uint32_t index) {
  const std::string name = name_of_process(index);
  network_.attach(name, nullptr);
  const bool is_worker = index > lanes_.size();
  ProcessPtr& slot = process(index);
  slot = std::make_unique<Process>(network_, disk_, name, host_of(index),
                                   hash64(scenario_.fault_seed, ++incarnations_),
                                   is_worker ? scenario_.worker_times : scenario_.lane_times);
  if (index == 0) {
    slot->set_node(new_scheduler(*slot));
  } else if (is_worker) {
    slot->set_node(new_worker(*slot, index - 1 - static_cast<std::uint32_t>(lanes_.size())));
  } else {
    slot->set_node(new_lane(*slot, index - 1));
  }
  network_.attach(name, slot.get());
  if (room_stopped_ > 0) slot->sleep(Process::kRoomStopped);
}

std::unique_ptr<net::Node> Cluster::new_scheduler(Process& process) {
  auto node = std::make_unique<scheduler::Scheduler>(scheduler_options(scenario_, tables_),
                                                     network_.transport(process.name()),
                                                     process.disk(), *clock_);
  scheduler_ = node.get();
  return node;
}

std::unique_ptr<net::Node> Cluster::new_lane(Process& process, std::uint32_t index) {
  ps::LaneOptions options;
  options.index = index;
  options.incarnation = incarnations_;
  options.endpoint = process.name();
  options.hello_every = std::chrono::milliseconds(2);
  return std::make_unique<ps::Lane>(options, network_.transport(process.name()), process.disk(),
                                    process.executor());
}

std::unique_ptr<net::Node> Cluster::new_worker(Process& process, std::uint32_t index) {
  worker::WorkerOptions options;
  options.index = index;
  options.incarnation = incarnations_;
  options.depth = scenario_.depth;
  options.dense_block = kDenseBlock;
  options.hello_every = std::chrono::milliseconds(2);
  options.retry = std::chrono::milliseconds(4);
  using Opened = Result<std::unique_ptr<worker::BatchSource>>;
  const auto open = [this](std::uint32_t stream) -> Opened { return scenario_.input.open(stream); };
  const auto open_slice = [open](std::uint32_t slice, std::uint32_t) {
    return open(Input::kSlice + slice);
  };
  return std::make_unique<worker::Worker>(options, graph_, open, open_slice,
                                          network_.transport(process.name()), process.executor());
}

const ps::Lane* Cluster::lane(std::uint32_t index) const {
  const ProcessPtr& process = lanes_[index];
  return process && !process->is_dead() ? static_cast<ps::Lane*>(&process->node()) : nullptr;
}

const worker::Worker* Cluster::worker(std::uint32_t index) const {
  const ProcessPtr& process = workers_[index];
  return process && !process->is_dead() ? static_cast<worker::Worker*>(&process->node()) : nullptr;
}

void Cluster::at(Duration when, std::function<void()> fn) {
  network_.at(TimePoint(when), [this, fn = std::move(fn)] {
    if (!has_died() && !scheduler_->finished()) fn();
  });
}

void Cluster::schedule(const Event& event) {
  at(event.when, [this, event] { begin(event); });
  if (event.kind >= Event::kSleep) at(event.when + event.length, [this, event] { end(event); });
}

void Cluster::begin(const Event& event) {
  const std::uint32_t index = event.index;
  const auto lanes = static_cast<std::uint32_t>(lanes_.size());
  note(std::string(name_of(event.kind)) + ", index " + std::to_string(index));
  ++happened_[event.kind];
  switch (event.kind) {
    case Event::kCrashWorker:
      return crash(1 + lanes + index, event.length, event.is_reported);
    case Event::kCrashLane:
      return crash(1 + index, event.length, event.is_reported);
    case Event::kCrashScheduler:
      return crash(0, {}, false);
    case Event::kCrashHost:
      return crash_host(index, event.length, event.is_reported);
    case Event::kDieInWriting:
    case Event::kHostDiesInWriting:
      return die_in_writing(event);
    case Event::kSleep:
      if (process(index)) process(index)->sleep(Process::kStopped);
      return;
    case Event::kSleepAll:
      ++room_stopped_;
      for (std::uint32_t i = 0; i < scenario_.processes(); ++i) {
        if (process(i)) process(i)->sleep(Process::kRoomStopped);
      }
      return;
    case Event::kPartition:
      return split(event.number, true);
    case Event::kJumpClock:
      if (process(index)) process(index)->jump(event.length);
      return;
    case Event::kDiskFails:
      return disk_.set_faults({.fail = event.share});
    case Event::kDiskFull:
      return disk_.set_faults({.is_full = true});
    case Event::kDiskSlow:
      for (const ProcessPtr& lane : lanes_) {
        if (lane) lane->set_times({scenario_.lane_times.min, kSlowDisk * scenario_.lane_times.max});
      }
      return;
    case Event::kInterrupt:
      return scheduler_->request_stop(scheduler_process_->now());
    case Event::kScale:
      for (std::uint32_t i = 1; i <= lanes; ++i) {  // those that were removed before
        if (process(i) && !process(i)->is_dead() && process(i)->finished()) start(i);
      }
      if (!scheduler_->scale(scheduler_process_->now(), index).ok()) --happened_[event.kind];
      return;
    case Event::kKinds:
      break;
  }
}

void Cluster::end(const Event& event) {
  switch (event.kind) {
    case Event::kSleep:
      if (process(event.index)) process(event.index)->wake(Process::kStopped);
      return;
    case Event::kSleepAll:
      if (--room_stopped_ > 0) return;
      for (std::uint32_t i = 0; i < scenario_.processes(); ++i) {
        if (process(i)) process(i)->wake(Process::kRoomStopped);
      }
      return;
    case Event::kPartition:
      return split(event.number, false);
    case Event::kDiskFails:
    case Event::kDiskFull:
      return disk_.set_faults({});
    case Event::kDiskSlow:
      for (const ProcessPtr& lane : lanes_) {
        if (lane) lane->set_times(scenario_.lane_times);
      }
      return;
    default:
      return;
  }
}

// Its node may be in the middle of a call, so it is taken away later.
void Cluster::crash(std::uint32_t index, Duration down, bool is_reported) {
  const ProcessPtr& victim = process(index);
  if (!victim || victim->is_dead()) return;
  const std::string name = victim->name();
  note(name + " is dead");
  network_.attach(name, nullptr);
  victim->kill();
  if (index == 0) return;
  const Duration now = time();
  at(now, [this, index] {
    if (process(index) && process(index)->is_dead()) process(index).reset();
  });
  if (is_reported) {
    at(now + down / 2, [this, index, name] {
      if (!process(index)) scheduler_->peer_died(scheduler_process_->now(), name);
    });
  }
  at(now + down, [this, index] {
    if (!process(index) || process(index)->is_dead()) start(index);
  });
}

void Cluster::crash_host(std::uint32_t host, Duration down, bool is_reported) {
  for (std::uint32_t i = 0; i < scenario_.processes(); ++i) {
    if (host_of(i) == host) crash(i, down, is_reported);
  }
  disk_.crash(host);
}

void Cluster::die_in_writing(const Event& event) {
  const ProcessPtr& victim = process(event.index);
  if (!victim) return;
  victim->disk().die_in(event.number, [this, event] {
    if (event.kind == Event::kDieInWriting) {
      crash(event.index, event.length, event.is_reported);
    } else {
      crash_host(host_of(event.index), event.length, event.is_reported);
    }
  });
}

void Cluster::split(std::uint64_t group, bool severed) {
  for (std::uint32_t a = 0; a < scenario_.processes(); ++a) {
    for (std::uint32_t b = 0; b < a; ++b) {
      if ((group >> a & 1) != (group >> b & 1)) {
        network_.cut(name_of_process(a), name_of_process(b), severed);
      }
    }
  }
}

void Cluster::note(const std::string& what) const {
  if (is_traced_) std::printf("%10.3f ms  *** %s\n", 1000 * seconds(time()), what.c_str());
}

void Cluster::set_trace(bool is_on) {
  is_traced_ = is_on;
  if (!is_on) return network_.set_observer({});
  network_.set_observer([](TimePoint now, const std::string& to, const net::Message& message) {
    std::printf("%10.3f ms  %s -> %s  %s\n", 1000 * seconds(now.time_since_epoch()),
                message.peer.c_str(), to.c_str(), message.header.ShortDebugString().c_str());
  });
}

bool Cluster::run(Duration deadline) {
  return network_.run_until(
      [this] {
        if (has_died()) return true;
        if (check_) check_();
        return scheduler_->finished();
      },
      TimePoint(deadline));
}

}  // namespace meander::sim
