// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace meander::sim {

// What happened in some runs, in the order of name_of_total().
enum Total {
  kLives,  // of schedulers: a run goes on in the next one when it was interrupted
  kRollbacks,
  kScalings,
  kLostWorkers,
  kGenerations,
  kDeltas,
  kMessages,
  kLost,
  kDoubled,
  kLate,
  kSevered,
  kEvents,  // and behind it one for each kind of Scenario::Event
  kDiskFailed = kEvents + 15,
  kDiskFull,
  kTornFiles,
  kLostFiles,
  kLostNames,
  kDeathsInWriting,
  kTotals,
};
using Totals = std::array<std::uint64_t, kTotals>;
const char* name_of_total(int total);

struct RunResult {
  std::string failure;  // empty: everything held
  Totals totals{};
  std::uint64_t trace = 0;  // equal runs have equal ones
};

// Runs the cluster that `seed` draws, with the faults that it draws, to its end, and checks all
// that must hold (docs/simulation.md). `is_traced`: prints what happens.
RunResult simulate(std::uint64_t seed, bool is_traced = false);

}  // namespace meander::sim
