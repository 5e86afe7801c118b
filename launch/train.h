// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "launch/cli.h"
#include "launch/plan.h"
#include "launch/resume.h"
#include "launch/run.h"

namespace CLI {
class App;
}

namespace meander::launch {

// What the commands that train have in common.
struct TrainFlags {
  std::string job;
  std::vector<std::string> sets;
  StartFlags start;
  bool dry_run = false;
};
// JOB, --set, --resume, --fresh, --dry-run.
void add_job_flags(CLI::App& command, std::string& job, std::vector<std::string>& sets);
void add_train_flags(CLI::App& command, TrainFlags& flags);

// Reads the job, prepares its log when that is not there yet, makes the plan.
Result<Plan> plan_job(const Context& context, const std::string& job,
                      const std::vector<std::string>& sets);

// The resolved job with the origin of each value, the layout and the memory that lanes need.
Status describe_plan(Context& context, const Plan& plan);

// kInvalid: train.early_stop. Trains with `run`, which gets the scheduler's options; or, when the
// checkpoint is of a finished run, only evaluates it. Reports the outcome. `run` catches interrupts
// before it starts threads.
using Run = std::function<Result<Outcome>(scheduler::SchedulerOptions)>;
Status train_with(Context& context, const Plan& plan, const StartFlags& flags, const Run& run);

// The whole cluster in this process; with train.early_stop epoch by epoch (early_stop.h).
Status train_in_process(Context& context, const Plan& plan, const StartFlags& flags);

// Fills in what has been trained, by the streams' positions, and what of it before `start`.
Status count_samples(const Plan& plan, const Start& start, Outcome& outcome);

// Trains as the role of this rank: 0 the scheduler, then ps, then workers.
Status train_under_mpi(Context& context, const TrainFlags& flags);

}  // namespace meander::launch
