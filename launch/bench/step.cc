// SPDX-License-Identifier: Apache-2.0
// How much processor time does training a batch take, apart from threads, messages and waiting?
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <thread>

#include "launch/bench/bench.h"
#include "launch/bench/local_trainer.h"
#include "launch/bench/measure.h"
#include "launch/bench/peak.h"
#include "launch/bench/workload.h"

namespace meander::launch::bench {
namespace {

constexpr std::uint32_t kBatches = 8;  // other rows each: more than the caches hold

struct Options {
  Workload workload;
  double seconds = 0.5;  // of one measurement
};

Result<std::vector<Row>> run(Options options, const Settings& settings) {
  Workload& workload = options.workload;
  workload.samples = kBatches * workload.batch;
  if (settings.quick) workload.items = 1000;
  RETURN_IF_ERROR(check(workload));
  const auto storage = make_memory_storage();
  RETURN_IF_ERROR(write_log(*storage, workload));
  ASSIGN_OR_RETURN(const Plan plan, plan_of(*storage, workload, {}));
  const std::uint64_t keys = std::max(workload.items, workload.categories) + std::uint64_t{1};
  LocalTrainer trainer(plan, keys, 1);
  const bool is_bf16 = workload.precision != "f32";
  const double seconds = settings.quick ? 1e-3 : options.seconds, peak_seconds = seconds / 10;
  // On a thread of its own: one that works on tiles for training keeps their shapes.
  const auto peak = [&](std::vector<double>& figures) {
    std::thread([&] {
      figures.push_back(is_bf16 ? bf16_peak(1, peak_seconds) : fma_peak(1, peak_seconds));
    }).join();
  };
  const std::vector<double> medians =
      medians_in_turn(settings.repetitions,
                      {peak, [&](auto& f) { f.push_back(trainer.steps_rate(kBatches, seconds)); }});
  return std::vector<Row>{{workload.model + " " + workload.lengths + " " + workload.precision,
                           medians[1], medians[0] / flop_per_sample(workload, *plan.graph),
                           is_bf16 ? bf16_name() : fma_name(), "samples/s", 1}};
}

}  // namespace

void add_step(CLI::App& family, Context& context) {
  auto options = std::make_shared<Options>();
  CLI::App& command = add_benchmark(
      family, context, "step",
      "How many samples are trained in a second of one thread's processor time, without messages, "
      "waiting or the building of batches?",
      "meander bench step --model dien --lengths full",
      [options](const Settings& settings) { return run(*options, settings); });
  add_workload(command, options->workload);
  command.add_option("--seconds", options->seconds, "of one measurement")->capture_default_str();
}

}  // namespace meander::launch::bench
