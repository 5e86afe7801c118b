// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "common/planted_bug.h"
#include "tests/sim/world/simulate.h"

namespace meander::sim {

struct Seeds {
  std::uint64_t from = 1, count = 1;
  int jobs = 1;  // processes
  PlantedBug bug = PlantedBug::kNone;
  std::size_t failures_max = 20;  // then it ends
};

struct Findings {
  std::uint64_t runs = 0;
  double seconds = 0;
  Totals totals{};
  std::vector<std::pair<std::uint64_t, std::string>> failures;  // by rising seed
};

// Simulates each seed, in processes of their own: a CHECK that fails in one is what its seed has
// found.
Findings run_seeds(const Seeds& seeds);

}  // namespace meander::sim
