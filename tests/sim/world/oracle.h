// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "nn/graph.h"
#include "scheduler/scheduler.h"
#include "tests/sim/world/input.h"

namespace meander::sim {

constexpr std::uint32_t kDenseBlock = 8;

// The tables of a graph, and what the dense ones start from.
struct Tables {
  std::vector<wire::TableSpec> specs;
  std::vector<scheduler::SchedulerOptions::Preset> presets;
};

// What a BSP run must come to, clock by clock, computed by the shortest way: no lanes, messages or
// generations, only the model and one table after the other. Every batch of a clock is computed
// from the rows that the clock before has left, and all are applied in the order of streams.
class Oracle {
 public:
  Oracle(const Input& input, const nn::Graph& graph, const Tables& tables);
  // The digest of a generation in which all seqs below `clock` are trained.
  const std::string& digest(std::uint64_t clock) const { return digests_.at(clock); }
  std::uint64_t clocks() const { return digests_.size() - 1; }

 private:
  std::vector<std::string> digests_;
};

}  // namespace meander::sim
