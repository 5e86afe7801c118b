// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "launch/cli.h"
#include "launch/plan.h"
#include "launch/resume.h"

namespace meander::launch {

// Whether the job says train.early_stop.
bool stops_early(const Plan& plan);
// kInvalid when it does: only one process that holds the whole cluster can.
Status check_no_early_stop(const Plan& plan);

// Trains epoch by epoch in this process and scores the held-out part after each, until
// early_stop.patience epochs have not gained or all are trained. At the end the best epoch's
// checkpoint is the newest of checkpoint.dir and what is reported. How far it is lies in
// checkpoint.dir/early_stop.json: a run that was ended goes on where it was.
Status train_until_best(Context& context, const Plan& plan, const StartFlags& flags);

}  // namespace meander::launch
