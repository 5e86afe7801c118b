// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world/simulate.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <tuple>
#include <utility>

#include "checkpoint/generation.h"
#include "common/rng.h"
#include "tests/sim/world/check.h"
#include "tests/sim/world/cluster.h"
#include "tests/sim/world/small_model.h"

namespace meander::sim {
namespace {

using Event = Scenario::Event;
static_assert(Event::kKinds == kDiskFailed - kEvents);

constexpr char kDirectory[] = "ckpt";
constexpr std::uint64_t kInputs = 24;  // different ones: what they must come to is kept
constexpr int kLivesMax = 6;
constexpr Duration kDeadline = std::chrono::seconds(600);  // of a life, pauses of all included
// Bounds: what a run of this size may hold at most, far above what it needs.
constexpr std::size_t kUnderWayMax = 20'000;
constexpr std::size_t kCopiesMax = std::size_t{64} << 10;

Duration milliseconds(double ms) { return from_seconds(ms / 1000); }

// --- what a seed draws ---

struct Plan {
  Scenario scenario;  // without events
  bool is_counting = true;
  TableOptions options;
  std::vector<std::vector<Event>> lives;  // events of the first ones; the others have none
  bool has_disk_faults(std::size_t life) const {
    return life < lives.size() && std::ranges::any_of(
                                      lives[life],
                                      [](const Event& event) {
                                        return event.kind == Event::kDiskFails ||
                                               event.kind == Event::kDiskFull;
                                      });
  }
  bool has_interrupt(std::size_t life) const {
    return life < lives.size() &&
           std::ranges::any_of(
               lives[life], [](const Event& event) { return event.kind == Event::kInterrupt; });
  }
};

Event draw_event(Rng& rng, const Scenario& scenario) {
  // How often each kind is drawn.
  constexpr std::uint32_t kWeights[] = {6, 6, 2, 4, 4, 4, 5, 1, 6, 3, 3, 2, 2, 1, 0};
  static_assert(std::size(kWeights) == Event::kKinds);
  std::uint32_t sum = 0;
  for (const std::uint32_t weight : kWeights) sum += weight;
  std::uint64_t drawn = rng.below(sum);
  int kind = 0;
  while (drawn >= kWeights[kind]) drawn -= kWeights[kind++];

  Event event;
  event.kind = static_cast<Event::Kind>(kind);
  event.when = milliseconds(rng.uniform() * (rng.chance(0.5) ? 12 : 45));
  event.length = milliseconds(rng.uniform() * 20);
  event.is_reported = rng.chance(0.5);
  event.index = static_cast<std::uint32_t>(rng.below(scenario.processes()));
  switch (event.kind) {
    case Event::kCrashWorker:
      event.index = static_cast<std::uint32_t>(rng.below(scenario.input.streams));
      break;
    case Event::kCrashLane:
      event.index = static_cast<std::uint32_t>(rng.below(scenario.lanes));
      break;
    case Event::kCrashHost:
      event.index = static_cast<std::uint32_t>(rng.below(scenario.hosts));
      break;
    case Event::kDieInWriting:
    case Event::kHostDiesInWriting:
      // The scheduler or a lane: workers do not write.
      event.index = static_cast<std::uint32_t>(rng.below(2) * (1 + rng.below(scenario.lanes)));
      event.number = 1 + rng.below(event.index != 0 ? 30 : rng.chance(0.5) ? 40 : 150);
      event.when = milliseconds(5 * rng.uniform());
      break;
    case Event::kSleep:
      event.length = milliseconds(rng.uniform() * 150);
      break;
    case Event::kSleepAll:
      event.length = rng.chance(0.5) ? milliseconds(100'000) : milliseconds(300);
      break;
    case Event::kPartition:
      event.number = rng.next();
      event.length = milliseconds(rng.uniform() * 150);
      break;
    case Event::kJumpClock:
      event.length = milliseconds(rng.uniform() * (rng.chance(0.5) ? 100 : 5000));
      break;
    case Event::kDiskFails:
      event.share = rng.chance(0.5) ? 0.02 : 0.3;
      event.length = milliseconds(rng.uniform() * 60);
      break;
    default:
      break;
  }
  return event;
}

// Drawn last: all other draws of a seed are what they are without.
void draw_scalings(Rng& rng, Plan& plan) {
  plan.scenario.lane_processes = 5;
  for (std::vector<Event>& events : plan.lives) {
    for (Event& event : events) {
      if (event.kind == Event::kCrashLane) event.index = static_cast<std::uint32_t>(rng.below(5));
    }
    for (std::uint64_t i = 0; i <= rng.below(2); ++i) {
      events.push_back({.kind = Event::kScale,
                        .index = 1 + static_cast<std::uint32_t>(rng.below(5)),
                        .when = milliseconds(rng.uniform() * 10)});
    }
  }
}

Plan draw(std::uint64_t seed) {
  Rng rng(hash64(seed, 99));
  Plan plan;
  Scenario& scenario = plan.scenario;
  const std::uint64_t input = rng.below(kInputs);
  scenario.input.seed = 1 + input;
  scenario.input.streams = 1 + static_cast<std::uint32_t>(input % 3);
  scenario.input.batches = 4 + static_cast<std::uint32_t>(hash64(input, 5) % 12);
  scenario.fault_seed = seed;
  scenario.lanes = 1 + static_cast<std::uint32_t>(rng.below(3));
  scenario.lane_processes = scenario.lanes;
  scenario.hosts = 1 + static_cast<std::uint32_t>(rng.below(3));
  constexpr std::int64_t kModes[] = {0, 0, 3, -1};
  scenario.staleness = kModes[rng.below(4)];
  scenario.depth = 1 + static_cast<std::uint32_t>(rng.below(3));
  scenario.checkpoint_every_s = rng.chance(0.85) ? 0.0005 + 0.008 * rng.uniform() : 0;
  scenario.full_every = 1 + static_cast<std::uint32_t>(rng.below(4));
  scenario.keep = rng.chance(0.5) ? 1 : 2 + static_cast<std::uint32_t>(rng.below(2));
  scenario.evaluate = rng.chance(0.2);
  scenario.faults.loss = rng.chance(0.6) ? 0.08 * rng.uniform() : 0;
  scenario.faults.duplication = rng.chance(0.6) ? 0.2 * rng.uniform() : 0;
  scenario.faults.long_delay = rng.chance(0.4) ? 0.15 * rng.uniform() : 0;
  scenario.worker_times.max = milliseconds(rng.chance(0.5) ? 0.05 : 0.5 * rng.uniform());
  scenario.lane_times.max = milliseconds(rng.chance(0.3) ? 0.02 : 1.5 * rng.uniform());
  const bool is_bsp = scenario.staleness == 0;
  plan.is_counting = !is_bsp || rng.chance(0.3);
  if (is_bsp && rng.chance(0.4)) {
    constexpr TableOptions kOptions[] = {{2, 0, 0}, {0, 9, 0}, {2, 12, 4}};
    plan.options = kOptions[rng.below(std::size(kOptions))];
  }
  plan.lives.resize(1 + rng.below(2));
  for (std::vector<Event>& events : plan.lives) {
    events.resize(rng.below(5));
    for (Event& event : events) event = draw_event(rng, scenario);
  }
  if (rng.chance(0.5)) draw_scalings(rng, plan);
  return plan;
}

const Oracle& oracle_of(const Plan& plan, const Tables& tables) {
  static std::map<std::tuple<std::uint64_t, bool, TableOptions>, std::unique_ptr<Oracle>> known;
  auto& oracle = known[{plan.scenario.input.seed, plan.is_counting, plan.options}];
  if (!oracle) {
    oracle = std::make_unique<Oracle>(plan.scenario.input, graph_of(plan.is_counting), tables);
  }
  return *oracle;
}

std::string describe(const Plan& plan) {
  const Scenario& s = plan.scenario;
  std::string text = std::string(plan.is_counting ? "counting" : "din") + ", " +
                     std::to_string(s.lanes) + " lanes, " + std::to_string(s.input.streams) +
                     " workers, " + std::to_string(s.hosts) + " hosts, staleness " +
                     std::to_string(s.staleness) + ", depth " + std::to_string(s.depth) +
                     ", every " + std::to_string(s.checkpoint_every_s) + " s, full every " +
                     std::to_string(s.full_every) + ", keep " + std::to_string(s.keep) +
                     ", admit " + std::to_string(plan.options.admit_count) + ", expire " +
                     std::to_string(plan.options.expire_steps);
  for (std::size_t life = 0; life < plan.lives.size(); ++life) {
    for (const Event& event : plan.lives[life]) {
      text += "\n  life " + std::to_string(life + 1) + ": " + name_of(event.kind) + ", index " +
              std::to_string(event.index) + ", number " + std::to_string(event.number) + ", at " +
              std::to_string(1000 * seconds(event.when)) + " ms for " +
              std::to_string(1000 * seconds(event.length)) + " ms";
    }
  }
  return text;
}

// --- a run ---

class Run {
 public:
  Run(std::uint64_t seed, bool is_traced)
      : plan_(draw(seed)),
        tables_(tables_of(plan_.is_counting, plan_.options)),
        disk_(hash64(seed, 7)),
        is_traced_(is_traced) {
    expected_.input = plan_.scenario.input;
    if (plan_.scenario.staleness == 0) expected_.oracle = &oracle_of(plan_, tables_);
    expected_.is_counting = plan_.is_counting && plan_.options.are_plain();
    expected_.is_all_counted = true;
    if (is_traced) std::printf("%s\n", describe(plan_).c_str());
  }

  RunResult run() {
    bool is_over = false;
    for (int life = 0; !is_over && result_.failure.empty(); ++life) {
      if (life == kLivesMax) {
        fail("it does not end in " + std::to_string(kLivesMax) + " lives");
        break;
      }
      is_over = live(life);
    }
    disk_.set_faults({});
    if (result_.failure.empty()) {
      const auto observer = disk_.open(0);
      start_again(*observer);
      fail(check_directory(*observer, kDirectory, plan_.scenario.keep));
    }
    const DiskCounts& disk = disk_.counts();
    result_.totals[kDiskFailed] = disk.failed;
    result_.totals[kDiskFull] = disk.full;
    result_.totals[kTornFiles] = disk.torn;
    result_.totals[kLostFiles] = disk.files_lost;
    result_.totals[kLostNames] = disk.names_lost;
    result_.totals[kDeathsInWriting] = disk.deaths;
    return std::move(result_);
  }

 private:
  void fail(const std::string& what) {
    if (result_.failure.empty()) result_.failure = what;
  }

  // What a straggler wrote after its generation was given up goes as the next run starts.
  void start_again(Storage& storage) {
    scheduler::SchedulerOptions options;
    options.streams = plan_.scenario.input.streams;
    options.model = "sim";
    options.restore = options.checkpoint_dir = kDirectory;
    net::SimNetwork network(1, {});
    const scheduler::Scheduler next(options, network.transport(net::kSchedulerName), storage,
                                    SystemClock());
    if (!next.status().ok()) fail("it cannot be resumed: " + next.status().message());
  }

  // One scheduler's. True: the run is over.
  bool live(int life) {
    ++result_.totals[kLives];
    Scenario scenario = plan_.scenario;
    scenario.fault_seed = hash64(plan_.scenario.fault_seed, life);
    const auto index = static_cast<std::size_t>(life);
    if (index < plan_.lives.size()) scenario.events = plan_.lives[index];
    disk_.set_faults({});
    const auto observer = disk_.open(0);
    scenario.resume = checkpoint::newest_generation(*observer, kDirectory).ok();
    fail(check_all(*observer, kDirectory));
    if (is_traced_) std::printf("--- life %d%s\n", life + 1, scenario.resume ? ", resumed" : "");
    Cluster cluster(scenario, graph_of(plan_.is_counting), tables_, disk_);
    cluster.set_trace(is_traced_);
    generation_ = 0;
    cluster.set_check([&] { check_step(cluster); });
    const bool has_ended = cluster.run(kDeadline);
    add_totals(cluster);
    if (!has_ended) fail("it hangs in life " + std::to_string(life + 1));
    if (!result_.failure.empty() || cluster.has_died()) return false;
    return judge(cluster, index);
  }

  // Whether what a life has come to is right, and the run is over.
  bool judge(const Cluster& cluster, std::size_t life) {
    const scheduler::Scheduler& scheduler = cluster.scheduler();
    const Status status = scheduler.status();
    if (status.code() == Code::kInterrupted && plan_.has_interrupt(life)) return false;
    const bool is_of_disk = status.code() == Code::kExhausted || status.code() == Code::kFailed;
    if (is_of_disk && plan_.has_disk_faults(life)) return false;
    if (!status.ok()) {
      fail("it ends with: " + status.message());
      return true;
    }
    const std::uint64_t samples = expected_.input.samples_below(expected_.input.ends());
    const std::uint64_t counted = scheduler.training().samples;
    if (counted > samples || (expected_.is_all_counted && counted < samples)) {
      fail(std::to_string(counted) + " samples are counted at the end, " + std::to_string(samples) +
           " are trained");
    }
    const auto& manifest = scheduler.manifest();
    const bool is_final = std::ranges::all_of(
        manifest.streams(), [](const manifest::Stream& stream) { return stream.ended(); });
    if (manifest.streams_size() == 0 || !is_final || manifest.base() != 0) {
      fail("it ends without a full generation of all streams");
    }
    check_scores(scheduler);
    return true;
  }

  // Each slice once, whoever scored it, however often.
  void check_scores(const scheduler::Scheduler& scheduler) {
    if (!plan_.scenario.evaluate) return;
    const std::uint64_t scored = scheduler.held_out().samples;
    for (std::uint32_t slices = 1; slices <= expected_.input.streams; ++slices) {
      if (scored == expected_.input.held_out_samples(slices)) return;
    }
    fail(std::to_string(scored) + " held-out samples are scored");
  }

  void check_step(const Cluster& cluster) {
    const scheduler::Scheduler& scheduler = cluster.scheduler();
    if (scheduler.manifest().generation() != generation_) {
      generation_ = scheduler.manifest().generation();
      check_new_generation(scheduler);
    }
    for (std::uint32_t i = 0; i < plan_.scenario.lane_count(); ++i) {
      const ps::Lane* lane = cluster.lane(i);
      if (lane != nullptr && lane->copies_bytes() > kCopiesMax) fail("a lane's copies fill memory");
    }
    const std::uint32_t streams = plan_.scenario.input.streams;
    for (std::uint32_t i = 0; i < streams; ++i) {
      const worker::Worker* worker = cluster.worker(i);
      const std::size_t most = (streams + 1) * plan_.scenario.depth;  // and a slice
      if (worker != nullptr && worker->in_flight() > most) fail("a worker's batches fill memory");
    }
    if (cluster.network().counts().under_way_max > kUnderWayMax) {
      fail("messages under way fill memory");
    }
  }

  // Complete is durable: whatever crashes now, it is there.
  void check_new_generation(const scheduler::Scheduler& scheduler) {
    if (scheduler.progress().lost_workers > 0) expected_.is_all_counted = false;
    ++result_.totals[kGenerations];
    result_.totals[kDeltas] += scheduler.manifest().base() != 0;
    const std::unique_ptr<SimDisk> left = disk_.worst_case();
    const auto observer = left->open(0);
    fail(check_generation(*observer, scheduler.generation_dir(), expected_));
  }

  void add_totals(const Cluster& cluster) {
    const scheduler::Progress progress = cluster.scheduler().progress();
    if (progress.lost_workers > 0) expected_.is_all_counted = false;
    const net::SimNetwork& network = cluster.network();
    Totals& totals = result_.totals;
    totals[kRollbacks] += progress.rollbacks;
    totals[kScalings] += progress.scalings;
    totals[kLostWorkers] += progress.lost_workers;
    totals[kMessages] += network.delivered();
    totals[kLost] += network.counts().lost;
    totals[kDoubled] += network.counts().doubled;
    totals[kLate] += network.counts().late;
    totals[kSevered] += network.counts().severed;
    for (int kind = 0; kind < Event::kKinds; ++kind) {
      totals[kEvents + kind] += cluster.happened(static_cast<Event::Kind>(kind));
    }
    result_.trace = hash64(result_.trace, network.trace());
  }

  const Plan plan_;
  const Tables tables_;
  SimDisk disk_;
  const bool is_traced_;
  Expected expected_;
  std::uint64_t generation_ = 0;  // the last one that was checked
  RunResult result_;
};

}  // namespace

const char* name_of_total(int total) {
  if (total >= kEvents && total < kDiskFailed) {
    return name_of(static_cast<Event::Kind>(total - kEvents));
  }
  switch (total) {
    case kLives:
      return "lives";
    case kRollbacks:
      return "roll-backs";
    case kScalings:
      return "changes of lanes";
    case kLostWorkers:
      return "workers lost";
    case kGenerations:
      return "generations checked";
    case kDeltas:
      return "of them deltas";
    case kMessages:
      return "messages";
    case kLost:
      return "messages lost";
    case kDoubled:
      return "doubled";
    case kLate:
      return "late";
    case kSevered:
      return "severed";
    case kDiskFailed:
      return "operations failed";
    case kDiskFull:
      return "refused by a full disk";
    case kTornFiles:
      return "files torn";
    case kLostFiles:
      return "files lost";
    case kLostNames:
      return "names lost";
    default:
      return "deaths between operations";
  }
}

RunResult simulate(std::uint64_t seed, bool is_traced) { return Run(seed, is_traced).run(); }

}  // namespace meander::sim
