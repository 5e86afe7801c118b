// SPDX-License-Identifier: Apache-2.0
// How many requests a second does one thread rank from an export, and how long does one take?
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <memory>

#include "launch/bench/bench.h"
#include "launch/bench/flop.h"
#include "launch/bench/measure.h"
#include "launch/bench/peak.h"
#include "launch/bench/workload.h"
#include "launch/export.h"
#include "launch/run.h"
#include "serve/ranker.h"

namespace meander::launch::bench {
namespace {

struct Options {
  Workload workload{.lengths = "mean25", .items = 1000, .samples = 4096};
  double seconds = 1;  // of one measurement
};

// Trains a little and exports, all in memory.
Result<std::shared_ptr<const serve::Artefact>> make_export(const Context& context,
                                                           const Workload& workload) {
  RETURN_IF_ERROR(check(workload));
  RETURN_IF_ERROR(write_log(*context.storage, workload));
  ASSIGN_OR_RETURN(const Plan plan,
                   plan_of(*context.storage, workload, {"checkpoint.dir=bench/checkpoints"}));
  ASSIGN_OR_RETURN(const Outcome outcome,
                   run_in_process(context, plan, scheduler_options(plan, draw_id())));
  RETURN_IF_ERROR(outcome.status);
  ExportOptions options;
  options.out = "bench/export";
  options.candidates = "all";
  options.repeats = true;
  ASSIGN_OR_RETURN(const ExportReport report, export_plan(context, plan, options));
  return serve::Artefact::load(*context.storage, options.out);
}

// Forward only, of one user with all candidates.
double flop_of_request(const nn::Graph& graph, std::int32_t length, std::int32_t candidates) {
  nn::Layout layout;
  layout.groups = 1;
  layout.candidates = candidates;
  layout.history_rows = length;
  return training_flop(graph, layout) / 3;
}

class Requests {
 public:
  Requests(std::shared_ptr<const serve::Artefact> artefact, std::unique_ptr<serve::Ranker> ranker)
      : artefact_(std::move(artefact)), ranker_(std::move(ranker)) {}

  // Ranks for one user after another for so long; appends the rate of requests, of candidates
  // scored and of useful operations, then the median and 99th percentile of a request's time in ms.
  Status measure(double time, std::vector<double>& figures) {
    std::vector<double> took_ms;
    double flop = 0, scored = 0;
    const TimePoint begin = clock_.now();
    TimePoint then = begin;
    do {
      const auto user =
          static_cast<std::uint64_t>(artefact_->users()[next_++ % artefact_->users().size()]);
      ASSIGN_OR_RETURN(const auto items, ranker_->rank(user, {}, executor_));
      const TimePoint now = clock_.now();
      took_ms.push_back(seconds(now - then) * 1e3);
      then = now;
      scored += static_cast<double>(ranker_->scored());
      flop += flop_of_request(artefact_->graph(),
                              static_cast<std::int32_t>(artefact_->history(user)->item.size()),
                              static_cast<std::int32_t>(ranker_->scored()));
    } while (seconds(then - begin) < time);
    const double all = seconds(then - begin);
    std::ranges::sort(took_ms);
    figures.insert(figures.end(),
                   {static_cast<double>(took_ms.size()) / all, scored / all, flop / all,
                    took_ms[took_ms.size() / 2], took_ms[took_ms.size() * 99 / 100]});
    return {};
  }

 private:
  std::shared_ptr<const serve::Artefact> artefact_;
  std::unique_ptr<serve::Ranker> ranker_;
  InlineExecutor executor_;
  SystemClock clock_;
  std::size_t next_ = 0;
};

Result<std::vector<Row>> run(Options options, const Settings& settings) {
  if (settings.quick) {
    options.workload.samples = 2 * options.workload.batch;
    options.workload.items = 100;
    options.seconds = 1e-3;
  }
  Context context;
  context.quiet = true;
  context.storage = make_memory_storage();
  ASSIGN_OR_RETURN(auto artefact, make_export(context, options.workload));
  ASSIGN_OR_RETURN(auto ranker, serve::Ranker::create(artefact));
  Requests requests(std::move(artefact), std::move(ranker));
  Status status;
  const std::vector<double> medians =
      medians_in_turn(settings.repetitions,
                      {[&](auto& figures) { figures.push_back(fma_peak(1, options.seconds / 20)); },
                       [&](auto& figures) {
                         const std::size_t before = figures.size();
                         Status one = requests.measure(options.seconds, figures);
                         figures.resize(before + 5);
                         if (status.ok()) status = std::move(one);
                       }});
  RETURN_IF_ERROR(status);
  const double ratio = medians[3] / medians[0];
  const std::string what = options.workload.model + " ";
  return std::vector<Row>{
      {what + "requests", medians[1], medians[1] / ratio, fma_name(), "requests/s", 1},
      {what + "candidates scored", medians[2], medians[2] / ratio, fma_name(), "candidates/s", 1},
      {what + "request, median", medians[4], 0, "", "ms", 1},
      {what + "request, 99th percentile", medians[5], 0, "", "ms", 1}};
}

}  // namespace

void add_serve(CLI::App& family, Context& context) {
  auto options = std::make_shared<Options>();
  CLI::App& command = add_benchmark(
      family, context, "serve",
      "How many requests a second does one thread rank from an export, and how long does one take?",
      "meander bench serve --model dien --candidates 1000",
      [options](const Settings& settings) { return run(*options, settings); });
  Workload& w = options->workload;
  command.add_option("--model", w.model, kWorkloadModels)->capture_default_str();
  command.add_option("--lengths", w.lengths, "of histories: full, mean25 or a number")
      ->capture_default_str();
  command.add_option("--candidates", w.items, "items, all of which are scored for a request")
      ->capture_default_str();
  command.add_option("--seconds", options->seconds, "of one measurement")->capture_default_str();
}

}  // namespace meander::launch::bench
