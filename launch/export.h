// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "export/write.h"
#include "launch/cli.h"
#include "launch/plan.h"

namespace meander::launch {

struct ExportOptions {
  std::string checkpoint;  // directory or generation; empty: the job's checkpoint.dir
  std::string out;
  artefact::Layout layout = artefact::Layout::kPlain;
  // "moving": a score does not depend on who shares its request. "batch": as published.
  std::string dice = "moving";
  std::uint64_t samples =
      0;  // held-out samples to keep beside the model, with the trainer's logits
  std::uint32_t behaviours = 1000;  // newest ones of a user to keep
  std::string candidates;  // "all" or "recent"; empty: recent where the job's negatives are
  bool repeats = false;    // recommend again what a user had
};

struct ExportReport {
  artefact::Written written;
  std::string generation_dir;
  std::uint64_t generation = 0;
  // Held-out samples scored by the export as it lies on disk, and by the trainer's forward pass on
  // the checkpoint's rows: the largest difference of two scores.
  std::uint64_t samples = 0;
  double max_abs_diff = 0;
  // Of those samples: by the export, and with Dice as the job trains it.
  double auc = 0, auc_trained = 0;
  // Training batches that Dice's moving statistics were taken from; 0: the checkpoint has them, or
  // none are needed.
  std::uint64_t statistics_batches = 0;
};

// Exports a generation for serving. Errors: kInvalid (the target holds something else, the
// checkpoint is another model's), kNotFound, kCorrupt, kFailed: the export does not score as the
// trainer does (then it is not put in place).
Result<ExportReport> export_plan(const Context& context, const Plan& plan,
                                 const ExportOptions& options);

}  // namespace meander::launch
