// SPDX-License-Identifier: Apache-2.0
// What does writing checkpoints cost the training that goes on beside it?
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <memory>

#include "checkpoint/generation.h"
#include "common/rng.h"
#include "launch/bench/bench.h"
#include "launch/bench/measure.h"
#include "launch/bench/temporary_folder.h"
#include "launch/bench/workload.h"
#include "launch/run.h"
#include "ps/snapshot.h"
#include "scheduler/describe.h"

namespace meander::launch::bench {
namespace {

constexpr double kPatience = 20;  // times the seconds asked for, until there was a cut

struct Options {
  Workload workload;
  std::uint64_t rows = 5'000'000;  // of the item table, besides those that are trained
  double seconds = 20;
  double every_s = 2;            // from the end of a generation to the next cut
  std::uint32_t full_every = 1;  // every so many generations a full one, deltas between
  std::string dir;               // empty: the system's folder for temporary files
};

// What a lane saw of a run, by its own thread.
struct Trace {
  struct Push {
    double at;
    bool is_saving;   // a generation was on its way to storage
    bool after_save;  // the first one that was trained after a cut
  };
  std::vector<Push> pushes;
  // A push in each of the three states that are compared. Asked by another thread.
  std::atomic<bool> has_calm = false, has_saving = false, has_pause = false;
  std::size_t copies_most = 0;  // bytes
  double resident_before = 0, resident_most = 0;
  std::uint64_t table_bytes = 0;
};

double resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  double total = 0, resident = 0;
  statm >> total >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
}

// A lane, and a note of each push.
class WatchedLane final : public net::Node {
 public:
  WatchedLane(ps::LaneOptions options, net::Transport& transport, Storage& storage,
              Executor& executor, Trace& trace)
      : lane_(std::move(options), transport, storage, executor), trace_(trace) {}

  void on_message(TimePoint now, const net::Message& message) override {
    const bool is_save = message.header.has_save();
    if (message.header.has_push()) {
      const bool is_saving = lane_.is_saving(), is_first = trace_.pushes.empty();
      trace_.pushes.push_back({seconds(now.time_since_epoch()), is_saving, after_save_});
      if (!is_first) {
        (after_save_ ? trace_.has_pause : is_saving ? trace_.has_saving : trace_.has_calm) = true;
      }
      after_save_ = false;
    }
    if (is_save && !lane_.is_saving()) {
      after_save_ = true;
      if (trace_.resident_before == 0) trace_.resident_before = resident_bytes();
    }
    lane_.on_message(now, message);
    trace_.copies_most = std::max(trace_.copies_most, lane_.copies_bytes());
    if (lane_.is_saving() && trace_.pushes.size() % 16 == 0) {
      trace_.resident_most = std::max(trace_.resident_most, resident_bytes());
    }
    trace_.table_bytes = lane_.table_bytes();
  }
  void on_timer(TimePoint now) override { lane_.on_timer(now); }
  TimePoint next_timer() const override { return lane_.next_timer(); }
  bool finished() const override { return lane_.finished(); }

 private:
  ps::Lane lane_;
  Trace& trace_;
  bool after_save_ = false;
};

// A generation with `rows` rows of items that nobody trains, and fresh dense parameters.
Result<std::string> write_start(Storage& storage, const Plan& plan,
                                const scheduler::SchedulerOptions& options, std::uint64_t rows,
                                const std::string& dir) {
  constexpr std::uint64_t kRequest = 4096;
  ps::Tables tables;
  for (std::size_t t = 0; t < plan.tables.size(); ++t) {
    tables.push_back(std::make_unique<ps::Table>(t, plan.tables[t]));
  }
  std::vector<std::uint64_t> keys;
  std::vector<float> gradients(kRequest * tables[0]->width());
  Rng rng(1);
  for (std::uint64_t first = 0; first < rows; first += kRequest) {
    for (float& g : gradients) g = static_cast<float>(0.02 * rng.uniform() - 0.01);
    keys.clear();
    for (std::uint64_t i = first; i < std::min(rows, first + kRequest); ++i) {
      keys.push_back(mix64(~i));
    }
    tables[0]->push(keys, gradients.data());
  }
  for (const auto& preset : options.presets) {
    tables[preset.table]->assign(preset.keys, preset.rows.data());
  }
  wire::Saved saved;
  RETURN_IF_ERROR(ps::save_tables(storage, dir, ps::lane_partitions(0, 1), tables, saved));
  manifest::Manifest manifest = scheduler::describe_in_manifest(options);
  manifest.set_generation(1);
  *manifest.mutable_files() = saved.files();
  for (int t = 0; t < manifest.tables_size(); ++t) {
    manifest.mutable_tables(t)->set_step(saved.table_steps(t));
    manifest.mutable_tables(t)->set_rows(tables[t]->rows());
  }
  manifest.set_digest(checkpoint::final_digest(saved.digest(), manifest));
  RETURN_IF_ERROR(checkpoint::write_manifest(storage, dir, manifest));
  return dir;
}

// Trains for a while with a cut every now and then.
Result<std::unique_ptr<Trace>> train(const Options& options) {
  Context context;
  context.quiet = true;
  context.storage = make_memory_storage();
  RETURN_IF_ERROR(write_log(*context.storage, options.workload));
  ASSIGN_OR_RETURN(Plan plan, plan_of(*context.storage, options.workload, {}));
  plan.train.epochs = 1'000'000;
  plan.evaluates = false;
  const TemporaryFolder folder(options.dir);
  const auto storage = make_posix_storage();
  const std::uint64_t cluster = draw_id();
  scheduler::SchedulerOptions scheduling = scheduler_options(plan, cluster);
  scheduling.checkpoint_dir = folder / "run";
  scheduling.checkpoint_every_s = options.every_s;
  scheduling.full_every = options.full_every;
  ASSIGN_OR_RETURN(scheduling.restore, write_start(*storage, plan, scheduling, options.rows,
                                                   folder / "start/gen-000001"));
  scheduling.restore_positions = false;
  const Meeting meeting{job::Cluster::inproc, cluster};
  Process process(context.clock, *storage, 0);
  auto kept = std::make_unique<Trace>();
  Trace& trace = *kept;
  {
    ASSIGN_OR_RETURN(auto scheduler,
                     SchedulerThread::start(process, meeting.scheduler(), std::move(scheduling)));
    ASSIGN_OR_RETURN(auto transport, process.open(net::lane_name(0), meeting.lane(0)));
    ps::LaneOptions lane;
    lane.cluster = cluster;
    lane.incarnation = draw_id();
    lane.endpoint = transport->endpoint();
    ASSIGN_OR_RETURN(
        const auto lane_thread,
        RoleThread::start(process, process.storage_pool, std::move(transport),
                          scheduler->endpoint(), [&](net::Transport& net, Executor& executor) {
                            return std::make_unique<WatchedLane>(lane, net, *storage, executor,
                                                                 trace);
                          }));
    ASSIGN_OR_RETURN(const auto worker,
                     start_worker(process, plan, 0, cluster, scheduler->endpoint()));
    TimePoint begin{};
    const Outcome outcome = scheduler->follow(context, [&] {
      const TimePoint now = context.clock.now();
      const bool has_begun = scheduler->snapshot().progress.batches > 0;
      if (begin == TimePoint{} && has_begun) begin = now;
      if (begin == TimePoint{}) return;
      const double time = seconds(now - begin);
      const bool is_whole = trace.has_calm && trace.has_saving && trace.has_pause;
      if (time > options.seconds * (is_whole ? 1 : kPatience)) scheduler->abandon();
    });
    if (!outcome.status.ok()) return outcome.status;
  }
  return kept;
}

double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0;
  std::ranges::sort(values);
  return values[std::min(values.size() - 1,
                         static_cast<std::size_t>(q * static_cast<double>(values.size())))];
}

Result<std::vector<Row>> run(Options options, const Settings& settings) {
  if (settings.quick) {
    options.workload.samples = 2 * options.workload.batch;
    options.workload.items = 1000;
    options.rows = 50'000;
    options.seconds = 0.5;
    options.every_s = 0.05;
  }
  RETURN_IF_ERROR(check(options.workload));
  if (options.dir.empty()) options.dir = std::filesystem::temp_directory_path().string();
  ASSIGN_OR_RETURN(const auto kept, train(options));
  const Trace& trace = *kept;
  std::vector<double> calm, busy, pauses;
  for (std::size_t i = 1; i < trace.pushes.size(); ++i) {
    const double gap = trace.pushes[i].at - trace.pushes[i - 1].at;
    if (trace.pushes[i].after_save) {
      pauses.push_back(gap);
    } else {
      (trace.pushes[i].is_saving ? busy : calm).push_back(gap);
    }
  }
  if (calm.empty() || busy.empty() || pauses.empty()) {
    return failed("no cut, or nothing but cuts: try other --seconds, --every or --rows");
  }
  const auto mean = [](const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) sum += value;
    return sum / static_cast<double>(values.size());
  };
  const double batch = options.workload.batch, quiet = mean(calm);
  const unsigned threads = all_threads();
  const double table = static_cast<double>(trace.table_bytes);
  std::vector<Row> rows;
  rows.push_back({"training while a generation is written", batch / mean(busy), batch / quiet,
                  "between generations", "samples/s", threads});
  const auto pause = [&](const std::string& name, double q) {
    rows.push_back({name, 1e3 * std::max(0.0, quantile(pauses, q) - quantile(calm, 0.5)),
                    1e3 * quantile(calm, 0.5), "a batch", "ms", threads});
  };
  pause("pause of a cut, median", 0.5);
  pause("pause of a cut, p99 of " + std::to_string(pauses.size()), 0.99);
  rows.push_back({"copies of rows that changed before they were written",
                  1e-6 * static_cast<double>(trace.copies_most), 1e-6 * table, "the tables", "MB",
                  1});
  rows.push_back({"memory beyond that before the first cut",
                  1e-6 * std::max(0.0, trace.resident_most - trace.resident_before), 1e-6 * table,
                  "the tables", "MB", 1});
  return rows;
}

}  // namespace

void add_cut(CLI::App& family, Context& context) {
  auto options = std::make_shared<Options>();
  options->workload.samples = 4096;
  CLI::App& command = add_benchmark(
      family, context, "cut",
      "What does writing checkpoints cost the training that goes on beside it: its rate, the pause "
      "of a cut, memory?",
      "meander bench cut --rows 5000000 --model dien",
      [options](const Settings& settings) { return run(*options, settings); });
  Workload& w = options->workload;
  command.add_option("--model", w.model, kWorkloadModels)->capture_default_str();
  command.add_option("--lengths", w.lengths, "as bench train")->capture_default_str();
  command.add_option("--batch", w.batch, "samples of a batch")->capture_default_str();
  command.add_option("--rows", options->rows, "that lie in the item table besides")
      ->capture_default_str();
  command.add_option("--seconds", options->seconds, "of training")->capture_default_str();
  command.add_option("--every", options->every_s, "seconds from one generation to the next cut")
      ->capture_default_str();
  command
      .add_option("--full-every", options->full_every,
                  "of so many generations one is full, and the others are deltas")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  command.add_option("--dir", options->dir,
                     "where to write; the folder of temporary files by default");
}

}  // namespace meander::launch::bench
