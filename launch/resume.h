// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "launch/cli.h"
#include "launch/plan.h"

namespace meander::launch {

// Where a run starts: from nothing, at the newest complete checkpoint of checkpoint.dir, or with
// the rows of train.init_from.
struct Start {
  std::string restore;          // generation directory; empty: fresh
  bool positions = true;        // go on at its stream positions
  bool is_finished = false;     // all of its streams have ended: nothing is left to train
  manifest::Manifest manifest;  // of `restore`
};

struct StartFlags {
  bool resume = false;        // there must be a checkpoint
  bool fresh = false;         // what is in checkpoint.dir is removed
  bool keep_journal = false;  // another process may go on with the run
};

// Decides, and checks that the checkpoint fits the job. kInvalid: it is of another model or was
// trained with other batches (the first field that differs is named), or the directory cannot be
// written; kNotFound: `resume` without a checkpoint; kCorrupt.
Result<Start> find_start(const Context& context, const Plan& plan, const StartFlags& flags);

// The newest generation of `path` (or of the job's checkpoint.dir), checked against the plan's
// model.
Result<Start> find_checkpoint(Storage& storage, const Plan& plan, const std::string& path);

// kInvalid unless files can be written in `dir` (made if need be); kUnavailable.
Status check_writable(Storage& storage, const std::string& dir);

}  // namespace meander::launch
