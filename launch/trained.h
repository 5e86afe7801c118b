// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "checkpoint/generation.h"
#include "export/rows.h"
#include "launch/plan.h"
#include "launch/resume.h"

namespace meander::launch {

// A generation of a plan's model in memory: what Forward scores with.
struct Trained {
  Start checkpoint;
  checkpoint::Chain chain;
  std::vector<artefact::TableRows> tables;  // of the graph
  std::vector<float> dense;
};

// `path`: a checkpoint directory or generation; empty: the job's. `with_known`: also, at their
// initial rows, the ids of the log that the generation has no row of. Errors: kNotFound, kCorrupt,
// kInvalid (it is of another model).
Result<Trained> load_trained(Storage& storage, const Plan& plan, const std::string& path,
                             bool with_known);

}  // namespace meander::launch
