// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "launch/cli.h"

namespace meander::launch::bench {

// A figure beside the limit that this machine sets to it, both measured in the same run, in turns.
struct Row {
  std::string name;
  double figure = 0;
  double limit = 0;  // 0: there is none
  std::string limit_name;
  std::string unit;
  unsigned threads = 1;
};

// What every benchmark is told.
struct Settings {
  int repetitions = 7;  // at least 5, of which the median counts
  // As small as it can be and still go through everything: for tests, whose figures mean nothing.
  bool quick = false;
};

// Measures, and answers with rows; the first one is the headline.
using Measure = std::function<Result<std::vector<Row>>(const Settings&)>;

// Adds a subcommand of `meander bench` that runs `measure` and shows its rows. `question`: one
// line. The caller adds the benchmark's own options to what it gets back.
CLI::App& add_benchmark(CLI::App& family, Context& context, const std::string& name,
                        const std::string& question, const std::string& example, Measure measure);

// One function per benchmark, each in its own file; they are listed in bench.cc.
using AddBenchmark = void (*)(CLI::App& family, Context& context);
void add_table(CLI::App& family, Context& context);
void add_ops(CLI::App& family, Context& context);
void add_train(CLI::App& family, Context& context);
void add_step(CLI::App& family, Context& context);
void add_checkpoint(CLI::App& family, Context& context);
void add_cut(CLI::App& family, Context& context);
void add_serve(CLI::App& family, Context& context);
void add_data(CLI::App& family, Context& context);
void add_wire(CLI::App& family, Context& context);

}  // namespace meander::launch::bench
