// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/executor.h"
#include "common/storage.h"
#include "net/sim_network.h"
#include "nn/graph.h"
#include "ps/lane.h"
#include "scheduler/scheduler.h"
#include "worker/worker.h"

namespace meander::sim {

// What a simulated cluster is made of, and what happens to it.
struct Scenario {
  std::uint64_t seed = 1;        // of the input
  std::uint64_t fault_seed = 1;  // of the network
  std::uint32_t lanes = 1, workers = 1;
  std::uint32_t replicas = 0;
  std::int64_t staleness = 0;
  std::uint32_t depth = 2;
  std::uint32_t batches = 10;  // of stream 0; the others have fewer or more
  float init_range = 0;        // of rows
  double checkpoint_every_s = 0;
  bool evaluate = true;
  bool resume = false;
  bool journal = false;  // the scheduler keeps one
  net::SimFaults faults;

  struct Event {
    enum Kind {
      kCrashWorker,  // and start it again after `length`
      kCrashLane,    // `index` from `lanes` on: the process that was started as a backup
      kSleepWorker,  // it wakes up after `length` as if nothing had been
      kInterrupt,    // Ctrl-C
      kPauseAll,     // the machine, scheduler and all, for `length`
      kCrashScheduler,
      kSleepLane,
      kReplaceScheduler,  // asleep for `length`, while another takes its place at once
      kScale,             // to `index` lanes, whose processes come up to `length` later
    } kind = kCrashWorker;
    std::uint32_t index = 0;
    Duration when{}, length{};
    bool is_reported = false;  // the launcher tells the scheduler of a death
  };
  std::vector<Event> events;
};

// The number of times that each key of each table occurs in all streams.
using Counts = std::map<std::pair<std::uint32_t, std::uint64_t>, std::uint64_t>;

// The model that counts ("counting"), or a small "din"; and an optimizer for it.
nn::Graph graph_of(const std::string& kind);
wire::Optimizer optimizer_of(wire::Optimizer::Kind kind, float rate);

inline Duration milliseconds(double ms) { return from_seconds(ms / 1000); }

// One scheduler, lanes and workers on a simulated network, their files in memory, in one thread.
class Cluster {
 public:
  // The graph has two slots of widths 1 and 2 with a table each: keys are drawn for them. `storage`
  // and `graph` outlive the cluster.
  Cluster(Scenario scenario, const nn::Graph& graph, wire::Optimizer optimizer, Storage& storage);
  ~Cluster();

  // Until the scheduler has finished. False: it did not in an hour of simulated time.
  bool run();

  const scheduler::Scheduler& scheduler() const { return *scheduler_; }
  std::uint32_t scalings() const { return scalings_; }      // that were asked for and not refused
  std::uint32_t schedulers() const { return schedulers_; }  // that were started
  std::uint64_t trace() const { return network_.trace(); }
  std::uint64_t delivered() const { return network_.delivered(); }
  Duration time() const { return network_.now().time_since_epoch(); }
  std::uint64_t samples() const;  // of all streams
  // Of the held-out part, when it is cut into so many slices.
  std::uint64_t held_out_samples(std::uint32_t slices) const;
  Counts counts() const;

 private:
  class Sleeper;
  struct SimClock;

  void start_scheduler();
  bool is_over() const { return scheduler_ != nullptr && scheduler_->finished(); }
  std::string lane_process(std::uint32_t index) const;
  void start_lane(std::uint32_t index);
  void start_lanes_below(std::uint32_t count);
  void start_worker(std::uint32_t index);
  void schedule(const Scenario::Event& event);
  std::uint64_t samples_between(std::uint32_t begin, std::uint32_t end) const;  // of streams

  Scenario scenario_;
  const nn::Graph& graph_;
  const wire::Optimizer optimizer_;
  Storage& storage_;
  InlineExecutor executor_;
  net::SimNetwork network_;
  std::unique_ptr<SimClock> clock_;
  std::uint64_t incarnations_ = 0;
  std::unique_ptr<scheduler::Scheduler> scheduler_;
  std::unique_ptr<Sleeper> scheduler_process_;
  std::uint32_t schedulers_ = 0;
  // Schedulers that were replaced in their sleep.
  std::vector<std::pair<std::unique_ptr<scheduler::Scheduler>, std::unique_ptr<Sleeper>>> replaced_;
  // Lanes, then their backups; or, without these, more lanes than at the start.
  std::vector<std::unique_ptr<Sleeper>> lanes_, workers_;
  std::uint32_t scalings_ = 0;
};

// The rows of a generation: the first value of each, by table and key.
std::map<std::pair<std::uint32_t, std::uint64_t>, float> read_generation(
    Storage& storage, const std::string& dir, const manifest::Manifest& manifest);

}  // namespace meander::sim
