// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "common/metrics.h"
#include "common/ranking.h"
#include "launch/cli.h"
#include "launch/plan.h"
#include "launch/stacking.h"

namespace meander::launch {

struct EnsembleOptions {
  std::vector<std::string> checkpoints;  // directories or generations, one for each member
  // Share of the held-out targets, dealt by a hash of their place, that the stack is fitted on.
  double fit_share = 0.5;
  std::uint32_t threads = 0;  // 0: one per core
};

// How one scorer does on a part of the held-out targets.
struct PartScores {
  ScoreSums scores;
  RankSums ranks;  // among a target's own negatives
};

struct EnsembleReport {
  struct Scorer {
    std::string name;   // "mean", "stacked", or a member's generation
    std::string model;  // a member's kind
    PartScores test, fit;
  };
  std::vector<Scorer> members;
  Scorer mean, stacked;
  Stack stack;
  std::uint32_t negatives = 0;  // of a target
};

// Scores the held-out part of the plan by each checkpoint, by the mean of their logits, and by a
// stack: a logistic regression on their logits, fitted on a part of the targets and scored on the
// rest. A member's model and history are those of the job in its checkpoint; which targets there
// are, and in which batches, is the plan's. Errors: kInvalid (fewer than two members, targets
// without negatives, a model that Forward cannot run, too few targets), kNotFound, kCorrupt.
Result<EnsembleReport> evaluate_ensemble(const Context& context, const Plan& plan,
                                         const EnsembleOptions& options);

// Puts it into the result and the summary of `context`.
void report_ensemble(Context& context, const Plan& plan, const EnsembleOptions& options,
                     const EnsembleReport& report);

}  // namespace meander::launch
