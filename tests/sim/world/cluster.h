// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "net/sim_network.h"
#include "nn/graph.h"
#include "ps/lane.h"
#include "scheduler/scheduler.h"
#include "tests/sim/world/input.h"
#include "tests/sim/world/oracle.h"
#include "tests/sim/world/process.h"
#include "tests/sim/world/sim_disk.h"
#include "worker/worker.h"

namespace meander::sim {

// What a simulated cluster is made of, and what happens to it.
struct Scenario {
  Input input;
  std::uint64_t fault_seed = 1;
  std::uint32_t lanes = 1, hosts = 1;
  std::uint32_t lane_processes = 1;  // if more than lanes, the others wait until lanes are added
  std::int64_t staleness = 0;
  std::uint32_t depth = 2;
  double checkpoint_every_s = 0;
  std::uint32_t full_every = 8, keep = 2;
  bool evaluate = true;
  bool resume = false;
  net::SimFaults faults;
  WorkTimes worker_times, lane_times;

  struct Event {
    enum Kind {
      kCrashWorker,  // and start it again after `length`
      kCrashLane,
      kCrashScheduler,     // the run is over
      kCrashHost,          // all its processes, and what it has not synced
      kDieInWriting,       // process `index` crashes in its `number`-th operation on the disk
      kHostDiesInWriting,  // and the whole host with it
      kSleep,              // process `index`; it wakes up after `length` as if nothing had been
      kSleepAll,           // the whole machine room, for `length`
      kPartition,          // processes whose bit in `number` is set from the others
      kJumpClock,          // that of process `index`, by `length`
      kDiskFails,          // operations fail with probability `share`
      kDiskFull,
      kDiskSlow,   // lanes' work takes 20 times as long
      kInterrupt,  // Ctrl-C
      kScale,      // to `index` lanes
      kKinds,
    } kind = kCrashWorker;
    std::uint32_t index = 0;
    std::uint64_t number = 0;
    double share = 0;
    Duration when{}, length{};
    bool is_reported = false;  // the launcher tells the scheduler of a death
  };
  std::vector<Event> events;

  // Process `index` of all: the scheduler, lanes, workers.
  std::uint32_t lane_count() const { return std::max(lanes, lane_processes); }
  std::uint32_t processes() const { return 1 + lane_count() + input.streams; }
};
const char* name_of(Scenario::Event::Kind kind);

// One scheduler, lanes and workers (one for each stream) on a simulated network and disk, in one
// thread. The scheduler's death is the end.
class Cluster {
 public:
  // All outlive the cluster.
  Cluster(const Scenario& scenario, const nn::Graph& graph, const Tables& tables, SimDisk& disk);
  ~Cluster();

  // Is called after each step.
  void set_check(std::function<void()> check) { check_ = std::move(check); }
  // Prints what happens.
  void set_trace(bool is_on);
  // Until the scheduler has finished or died. False: neither, by `deadline`.
  bool run(Duration deadline = std::chrono::hours(1));

  bool has_died() const { return scheduler_process_ == nullptr || scheduler_process_->is_dead(); }
  const scheduler::Scheduler& scheduler() const { return *scheduler_; }
  // Null: it is down.
  const ps::Lane* lane(std::uint32_t index) const;
  const worker::Worker* worker(std::uint32_t index) const;
  const net::SimNetwork& network() const { return network_; }
  Duration time() const { return network_.now().time_since_epoch(); }
  // Events that found somebody to happen to.
  std::uint64_t happened(Scenario::Event::Kind kind) const { return happened_[kind]; }

 private:
  struct WallClock;
  using Event = Scenario::Event;
  using ProcessPtr = std::unique_ptr<Process>;

  ProcessPtr& process(std::uint32_t index);
  std::uint32_t host_of(std::uint32_t index) const { return index % scenario_.hosts; }
  std::string name_of_process(std::uint32_t index) const;
  ProcessPtr new_process(std::uint32_t index, WorkTimes times);
  void start(std::uint32_t index);
  std::unique_ptr<net::Node> new_scheduler(Process& process);
  std::unique_ptr<net::Node> new_lane(Process& process, std::uint32_t index);
  std::unique_ptr<net::Node> new_worker(Process& process, std::uint32_t index);

  void at(Duration when, std::function<void()> fn);
  void schedule(const Event& event);
  void begin(const Event& event);
  void end(const Event& event);
  void crash(std::uint32_t index, Duration down, bool is_reported);
  void crash_host(std::uint32_t host, Duration down, bool is_reported);
  void die_in_writing(const Event& event);
  void split(std::uint64_t group, bool severed);
  void note(const std::string& what) const;

  const Scenario scenario_;
  const nn::Graph& graph_;
  const Tables& tables_;
  SimDisk& disk_;
  net::SimNetwork network_;
  std::unique_ptr<WallClock> clock_;
  std::uint64_t incarnations_ = 0;
  scheduler::Scheduler* scheduler_ = nullptr;  // its process keeps it
  ProcessPtr scheduler_process_;
  std::vector<ProcessPtr> lanes_, workers_;
  std::function<void()> check_;
  bool is_traced_ = false;
  int room_stopped_ = 0;
  std::uint64_t happened_[Event::kKinds] = {};
};

}  // namespace meander::sim
