// SPDX-License-Identifier: Apache-2.0
// How many samples a second does a whole cluster train, beside what the processor's multiply-adds
// would allow for the work in them?
#include <pthread.h>
#include <sched.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <atomic>
#include <cmath>
#include <memory>
#include <thread>

#include "launch/bench/bench.h"
#include "launch/bench/local_trainer.h"
#include "launch/bench/measure.h"
#include "launch/bench/peak.h"
#include "launch/bench/workload.h"
#include "launch/run.h"

namespace meander::launch::bench {
namespace {

struct Options {
  Workload workload;
  std::uint32_t threads = 0;  // of each worker; 0: all, shared
  std::uint32_t workers = 1, lanes = 1;
  double seconds = 3;  // of one run
  bool local = false, neighbour = false;
};

// A thread that does nothing but take the time of the first core it may use.
class Neighbour {
 public:
  Neighbour() : thread_([this] { spin(); }) {}
  ~Neighbour() {
    stop_ = true;
    thread_.join();
  }

 private:
  void spin() const {
    cpu_set_t allowed, first;
    CPU_ZERO(&first);
    sched_getaffinity(0, sizeof allowed, &allowed);
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &allowed)) continue;
      CPU_SET(cpu, &first);
      break;
    }
    pthread_setaffinity_np(pthread_self(), sizeof first, &first);
    while (!stop_.load(std::memory_order_relaxed)) {
    }
  }

  std::atomic<bool> stop_{false};
  std::thread thread_;
};

// One way to train the workload, and how many passes over the log it takes to be measured.
class Contestant {
 public:
  virtual ~Contestant() = default;
  // Samples a second over `epochs` passes.
  virtual Result<double> run(std::uint32_t epochs) = 0;

  Status calibrate(double seconds, std::uint64_t samples) {
    ASSIGN_OR_RETURN(const double rate, run(1));
    epochs_ = static_cast<std::uint32_t>(
        std::max(1.0, std::round(seconds * rate / static_cast<double>(samples))));
    return {};
  }
  Result<double> run() { return run(epochs_); }

 private:
  std::uint32_t epochs_ = 1;
};

class Cluster final : public Contestant {
 public:
  Cluster(const Context& context, Plan plan) : context_(context), plan_(std::move(plan)) {}
  using Contestant::run;
  Result<double> run(std::uint32_t epochs) override {
    plan_.train.epochs = epochs;
    ASSIGN_OR_RETURN(const Outcome outcome,
                     run_in_process(context_, plan_, scheduler_options(plan_, draw_id())));
    RETURN_IF_ERROR(outcome.status);
    ASSIGN_OR_RETURN(const std::uint64_t samples, samples_until(plan_, nullptr));
    // A pass that is over before the first look at the run has no seconds.
    return static_cast<double>(samples) / std::max(outcome.seconds, 1e-3);
  }
  const Plan& plan() const { return plan_; }

 private:
  const Context& context_;
  Plan plan_;
};

class Local final : public Contestant {
 public:
  Local(const Context& context, const Plan& plan, std::uint64_t keys, std::uint32_t threads)
      : context_(context), trainer_(plan, keys, threads) {}
  using Contestant::run;
  Result<double> run(std::uint32_t epochs) override {
    const TimePoint begin = context_.clock.now();
    const std::uint64_t samples = trainer_.train(epochs);
    return static_cast<double>(samples) / seconds(context_.clock.now() - begin);
  }

 private:
  const Context& context_;
  LocalTrainer trainer_;
};

class Disturbed final : public Contestant {
 public:
  explicit Disturbed(Contestant& other) : other_(other) {}
  using Contestant::run;
  Result<double> run(std::uint32_t epochs) override {
    const Neighbour neighbour;
    return other_.run(epochs);
  }

 private:
  Contestant& other_;
};

// What is compared, each beside the plain cluster of one worker and one lane.
struct Race {
  Context context;  // the log lies in its memory
  std::vector<std::unique_ptr<Contestant>> contestants;
  std::vector<std::string> names;
  double flop_per_sample = 0;
  std::uint32_t threads = 1;

  void add(std::string name, std::unique_ptr<Contestant> contestant) {
    names.push_back(std::move(name));
    contestants.push_back(std::move(contestant));
  }
};

Status set_up(const Options& options, Race& race) {
  const Workload& workload = options.workload;
  RETURN_IF_ERROR(check(workload));
  if (options.workers < 1 || options.lanes < 1) return invalid("--workers, --lanes: at least 1");
  race.context.quiet = true;
  race.context.storage = make_memory_storage();
  race.threads = options.threads != 0 ? options.threads : all_threads();
  RETURN_IF_ERROR(write_log(*race.context.storage, workload));
  const auto threads_of = [&](std::uint32_t workers) {
    return options.threads != 0 ? options.threads * workers : race.threads;
  };
  const auto cluster = [&](std::uint32_t workers,
                           std::uint32_t lanes) -> Result<std::unique_ptr<Cluster>> {
    ASSIGN_OR_RETURN(Plan plan, plan_of(*race.context.storage, workload,
                                        {"cluster.threads=" + std::to_string(threads_of(workers)),
                                         "cluster.workers=" + std::to_string(workers),
                                         "cluster.lanes=" + std::to_string(lanes)}));
    return std::make_unique<Cluster>(race.context, std::move(plan));
  };
  ASSIGN_OR_RETURN(auto plain, cluster(1, 1));
  Cluster& reference = *plain;
  race.flop_per_sample = flop_per_sample(workload, *reference.plan().graph);
  race.add("cluster", std::move(plain));
  if (options.workers > 1) {
    ASSIGN_OR_RETURN(auto other, cluster(options.workers, 1));
    race.add(std::to_string(options.workers) + " workers", std::move(other));
  }
  if (options.lanes > 1) {
    ASSIGN_OR_RETURN(auto other, cluster(1, options.lanes));
    race.add(std::to_string(options.lanes) + " lanes", std::move(other));
  }
  if (options.local) {
    const std::uint64_t keys = std::max(workload.items, workload.categories) + std::uint64_t{1};
    race.add("local", std::make_unique<Local>(race.context, reference.plan(), keys, race.threads));
  }
  if (options.neighbour) race.add("disturbed", std::make_unique<Disturbed>(reference));
  return {};
}

// Medians: the peak, then each contestant's rate.
Result<std::vector<double>> measure(const Options& options, const Settings& settings, Race& race) {
  const bool is_bf16 = options.workload.precision != "f32";
  const double time = settings.quick ? 1e-3 : 0.05;
  std::vector<Probe> probes = {[&](std::vector<double>& figures) {
    figures.push_back(is_bf16 ? bf16_peak(race.threads, time) : fma_peak(race.threads, time));
  }};
  Status status;
  for (const auto& contestant : race.contestants) {
    if (!settings.quick) {
      RETURN_IF_ERROR(contestant->calibrate(options.seconds, options.workload.samples));
    }
    probes.push_back([&](std::vector<double>& figures) {
      Result<double> rate = status.ok() ? contestant->run() : Result<double>(status);
      if (!rate.ok()) status = rate.status();
      figures.push_back(rate.ok() ? rate.value() : 0);
    });
  }
  std::vector<double> medians = medians_in_turn(settings.repetitions, probes);
  RETURN_IF_ERROR(status);
  return medians;
}

Result<std::vector<Row>> run(Options options, const Settings& settings) {
  if (settings.quick) {
    options.workload.samples = 2 * options.workload.batch;
    options.workload.items = 1000;
  }
  Race race;
  RETURN_IF_ERROR(set_up(options, race));
  ASSIGN_OR_RETURN(const std::vector<double> medians, measure(options, settings, race));
  const Workload& workload = options.workload;
  const std::string what = workload.model + " " + workload.lengths + " " + workload.precision;
  const std::string peak = workload.precision == "f32" ? fma_name() : bf16_name();
  const double bound = medians[0] / race.flop_per_sample, cluster = medians[1];
  std::vector<Row> rows;
  const auto add = [&](const std::string& name, double figure, double limit,
                       const std::string& limit_name) {
    rows.push_back({what + name, figure, limit, limit_name, "samples/s", race.threads});
  };
  add("", cluster, bound, peak);
  for (std::size_t i = 1; i < race.names.size(); ++i) {
    const std::string& name = race.names[i];
    if (name == "local") {
      add(", local", medians[1 + i], bound, peak);
      add("", cluster, medians[1 + i], "the same on local arrays");
    } else {
      add(", " + name, medians[1 + i], cluster, "the cluster of the first line");
    }
  }
  constexpr double kMega = 1e6;
  rows.push_back(
      {what + ", useful work", race.flop_per_sample / kMega, 0, "", "MFLOP/sample", race.threads});
  return rows;
}

}  // namespace

void add_train(CLI::App& family, Context& context) {
  auto options = std::make_shared<Options>();
  CLI::App& command = add_benchmark(
      family, context, "train",
      "How many samples a second does a whole cluster in one process train, beside the "
      "multiply-adds in them at the processor's peak?",
      "meander bench train --model dien --lengths full --local",
      [options](const Settings& settings) { return run(*options, settings); });
  add_workload(command, options->workload);
  command.add_option("--threads", options->threads,
                     "of compute, for each worker; by default all that the machine has, shared");
  command.add_option("--workers", options->workers, "also with so many workers")
      ->capture_default_str();
  command.add_option("--lanes", options->lanes, "also with so many lanes")->capture_default_str();
  command.add_option("--seconds", options->seconds, "of one run")->capture_default_str();
  command.add_flag("--local", options->local, "also on plain arrays, without a cluster");
  command.add_flag("--neighbour", options->neighbour,
                   "also beside a thread that takes all of one core");
}

}  // namespace meander::launch::bench
