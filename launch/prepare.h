// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "data/prepare.h"
#include "launch/cli.h"

namespace meander::launch {

// The flags of `meander prepare`, as they are written; a job's data.source holds the same.
struct PrepareFlags {
  std::string format, out, schema, holdout;
  std::vector<std::string> in, test_in;
  std::string attributes, test_negatives, test_draw;
  int min_history = -1, targets_last = -1;
  std::uint32_t streams = 8, history = 50, memory_mb = 128, refusals = 5;
  double refused_max = 0.1;
  static constexpr double kNotGiven = std::numeric_limits<double>::quiet_NaN();
  double stay = 0, stay_filled = kNotGiven, label_min = kNotGiven;
  std::uint64_t test_seed = 20171013;
};
void add_prepare_flags(CLI::App& command, PrepareFlags& flags);

// Flags in the form of a command line: {"--targets-last", "50"}. kInvalid: names the flag.
Status parse_prepare_flags(std::vector<std::string> words, PrepareFlags& flags);

// Prepares a log and says how it goes on standard error. Errors as data::prepare, and kInvalid for
// ill-formed flags or schema.
Result<data::PrepareReport> prepare_log(const Context& context, const PrepareFlags& flags);
// The same, unless flags.out is there, or another program is just writing it: waits for that one.
Status prepare_if_missing(const Context& context, const PrepareFlags& flags);

}  // namespace meander::launch
