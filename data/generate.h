// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "common/status.h"
#include "common/storage.h"

namespace meander::data {

// An event log of users whose interests drift and shift, with the truth beside it: what was
// generated, how, and how the oracle scores is in docs/generator.md.
struct GenerateOptions {
  std::string out;  // directory; appears whole or not at all
  std::uint64_t users = 1000, items = 1000, events = 100'000;
  std::uint32_t categories = 20;
  std::uint64_t seed = 1;
  double shift_at = -1;            // fraction of the log at which interests jump; negative: never
  double drift = 0.05;             // of an interest logit, standard deviation per event of the user
  double focus = 1.5;              // standard deviation of the logits: higher is more predictable
  double popularity = 1.0;         // Zipf exponent of items within a category
  std::uint32_t checkpoints = 10;  // moments at which the truth is written
  bool jsonl = false;              // events.jsonl instead of events.csv
};

struct GenerateReport {
  std::uint64_t users = 0, items = 0, events = 0;  // that occur in the log
  // AUC of the true interest over each user's last event, against one negative by popularity that
  // is not in its history: what a model reaches at best.
  double oracle_auc = 0;
};

// Memory O(users * (categories + 50) + items). Errors: kInvalid (options), kExhausted, kFailed.
Result<GenerateReport> generate(Storage& storage, const GenerateOptions& options);

}  // namespace meander::data
