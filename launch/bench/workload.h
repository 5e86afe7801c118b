// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/storage.h"
#include "launch/plan.h"
#include "nn/layout.h"

namespace CLI {
class App;
}

namespace meander::launch::bench {

// Synthetic training: every sample (or pair of samples) of a user of its own, with a history that
// nobody shares. Items and auxiliary negatives by Zipf's law (exponent 1).
struct Workload {
  std::string model = "dien";
  // full: all 100 long; mean25: exponential, mean 25, 1 to 100; a number: all so long.
  std::string lengths = "full";
  std::uint32_t batch = 128;      // samples
  std::uint32_t parts = 0;        // of a batch; 0: as train.parts has it
  std::uint32_t candidates = 1;   // samples that share a history: 1, or 2 (a target, a negative)
  std::string precision = "f32";  // as train.precision
  // 0: as the model is usually measured (embedding 18 and hidden 36; the LSTM 64, 64, 2 layers,
  // items alone).
  std::uint32_t embedding = 0, hidden = 0, layers = 0;
  std::uint32_t items = 370'000, categories = 1'600;
  // Further slots that only a sample has, each with a table of its own and as many values as there
  // are items.
  std::uint32_t contexts = 0;
  std::uint32_t samples = 16'384;  // in the log: passes over it repeat them
};

// What Workload::model may be, for people.
constexpr const char* kWorkloadModels = "dien, din, lstm, bst, caser, decay or dnn";

// Adds an option of `command` for each member.
void add_workload(CLI::App& command, Workload& workload);

// kInvalid names the option that is out of range.
Status check(const Workload& workload);

// The histories' lengths, one for each group of candidates. A pure function of the workload.
std::vector<std::uint32_t> history_lengths(const Workload& workload);

// Writes the prepared log and the job's file into `storage`; `sets` are further --set of it.
Status write_log(Storage& storage, const Workload& workload);
Result<Plan> plan_of(Storage& storage, const Workload& workload,
                     const std::vector<std::string>& sets);

// Useful floating-point operations of training one sample, the mean over the log (flop.h).
double flop_per_sample(const Workload& workload, const nn::Graph& graph);

}  // namespace meander::launch::bench
