// SPDX-License-Identifier: Apache-2.0
// The program of tests/run-sim.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "common/check.h"
#include "tests/sim/world/planted.h"
#include "tests/sim/world/runner.h"

namespace meander::sim {
namespace {

struct Options {
  Seeds seeds{.count = 1000};
  bool is_traced = false;
  std::string bug;
};

int trace(const Options& options) {
  plant(options.seeds.bug);
  const RunResult result = simulate(options.seeds.from, true);
  if (result.failure.empty()) return 0;
  std::printf("seed %llu: %s\n", static_cast<unsigned long long>(options.seeds.from),
              result.failure.c_str());
  return 1;
}

std::string with_bug(const Options& options) {
  return options.bug.empty() ? "" : " --bug " + options.bug;
}

int run(const Options& options) {
  const Findings findings = run_seeds(options.seeds);
  for (const auto& [seed, what] : findings.failures) {
    const auto number = static_cast<unsigned long long>(seed);
    std::printf("seed %llu: %s\n  replay: tests/run-sim --seeds 1 --from %llu --trace%s\n", number,
                what.c_str(), number, with_bug(options).c_str());
  }
  std::printf("%llu runs in %.1f s (%.2f ms each), %zu failed:",
              static_cast<unsigned long long>(findings.runs), findings.seconds,
              1000 * findings.seconds / static_cast<double>(findings.runs),
              findings.failures.size());
  for (int i = 0; i < kTotals; ++i) {
    std::printf("%s %llu %s", i == 0 ? "" : ",",
                static_cast<unsigned long long>(findings.totals[i]), name_of_total(i));
  }
  std::printf("\n");
  return findings.failures.empty() ? 0 : 1;
}

}  // namespace
}  // namespace meander::sim

int main(int argc, char** argv) {
  using namespace meander;
  sim::Options options;
  CLI::App app("Simulates whole clusters under faults, each from a seed (docs/simulation.md).");
  app.add_option("--seeds", options.seeds.count, "how many runs")->check(CLI::PositiveNumber);
  app.add_option("--from", options.seeds.from, "the first seed");
  app.add_option("--jobs", options.seeds.jobs, "processes")->check(CLI::Range(1, 64));
  app.add_flag("--trace", options.is_traced, "print all that happens in the first seed");
  app.add_option("--bug", options.bug, "plant a bug: a name of docs/simulation.md");
  CLI11_PARSE(app, argc, argv);
  if (!options.bug.empty()) {
    const auto bug = sim::planted_bug(options.bug);
    if (!bug) {
      std::fprintf(stderr, "run_sim: no bug is called '%s'\n", options.bug.c_str());
      return 2;
    }
    options.seeds.bug = *bug;
  }
  FLAGS_logtostderr = true;
  FLAGS_minloglevel = options.is_traced ? google::GLOG_INFO : google::GLOG_FATAL;
  return options.is_traced ? sim::trace(options) : sim::run(options);
}
