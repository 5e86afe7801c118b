// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/status.h"
#include "common/storage.h"
#include "models/model.h"

namespace meander::artefact {

// Samples to be scored, as an exported model takes them: raw ids (their 64 bits taken as signed),
// G histories padded on the right to T steps, K candidates for each.
struct Samples {
  std::int64_t groups = 0, candidates = 1, steps = 0;
  std::vector<std::vector<std::int64_t>> target;   // [slot] (G, K)
  std::vector<std::vector<std::int64_t>> history;  // [slot] (G, T); empty: not in histories
  std::vector<std::int64_t> history_length;        // (G) in [1, T]
  std::vector<float> numeric;                      // (G, K, F)
  std::vector<float> history_age;                  // (G, T) hours; empty: the model reads none
  // What the trainer's own forward pass says, to be compared with; may be empty.
  std::vector<float> logit;         // (G, K)
  std::vector<float> second_logit;  // (G, K) of a model with a second task
  // Groups scored together, one batch after another (they add up to G): matters to models whose
  // Dice takes its statistics from the batch.
  std::vector<std::int64_t> batches;
};

// As a safetensors file whose arrays are called as the model's inputs and outputs are, and
// "batches".
Result<std::uint64_t> write_samples(Storage& storage, const std::string& path,
                                    const models::ModelSpec& model, const Samples& samples);

}  // namespace meander::artefact
