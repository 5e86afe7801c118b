// SPDX-License-Identifier: Apache-2.0
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "launch/ensemble.h"
#include "launch/mpi.h"
#include "launch/report.h"
#include "launch/train.h"

namespace meander::launch {
namespace {

Status train(Context& context, const TrainFlags& flags) {
  if (MpiWorld::is_present()) return train_under_mpi(context, flags);
  ASSIGN_OR_RETURN(const Plan plan, plan_job(context, flags.job, flags.sets));
  RETURN_IF_ERROR(check_no_averaging(plan));
  if (flags.dry_run) return describe_plan(context, plan);
  return train_in_process(context, plan, flags.start);
}

struct EvaluateFlags {
  std::string job, checkpoint;
  std::vector<std::string> sets;
  EnsembleOptions ensemble;
};

Status evaluate(Context& context, const EvaluateFlags& flags) {
  ASSIGN_OR_RETURN(const Plan plan, plan_job(context, flags.job, flags.sets));
  if (!plan.evaluates) {
    return invalid(plan.job.place("data.test") + ": the log holds nothing to evaluate on");
  }
  if (!flags.ensemble.checkpoints.empty()) {
    if (!flags.checkpoint.empty()) return invalid("--checkpoint or --ensemble, not both");
    EnsembleOptions options = flags.ensemble;
    options.threads = plan.job.spec.cluster().threads();
    ASSIGN_OR_RETURN(const EnsembleReport report, evaluate_ensemble(context, plan, options));
    report_ensemble(context, plan, options, report);
    return {};
  }
  ASSIGN_OR_RETURN(const Start start, find_checkpoint(*context.storage, plan, flags.checkpoint));
  scheduler::SchedulerOptions options = scheduler_options(plan, draw_id());
  options.train = false;
  options.checkpoint_dir.clear();
  options.restore = start.restore;
  options.restore_positions = false;
  ASSIGN_OR_RETURN(const Outcome outcome, run_in_process(context, plan, std::move(options)));
  RETURN_IF_ERROR(outcome.status);
  report_evaluation(context, plan, outcome, start.restore);
  return {};
}

}  // namespace

void add_train(CLI::App& app, Context& context) {
  CLI::App& command = add_command(app, context, "train",
                                  "Trains a job: the whole cluster in this process, or this rank's "
                                  "role under mpirun. Run again, "
                                  "it goes on from the newest complete checkpoint.",
                                  "meander train examples/ml1m-dien.yaml --set train.seed=2");
  auto flags = std::make_shared<TrainFlags>();
  add_train_flags(command, *flags);
  command.callback(
      [&context, flags] { context.action = [&context, flags] { return train(context, *flags); }; });
}

void add_evaluate(CLI::App& app, Context& context) {
  CLI::App& command =
      add_command(app, context, "evaluate", "Scores the held-out part of a job's log.",
                  "meander evaluate examples/ml1m-dien.yaml --checkpoint checkpoints/ml1m-dien");
  auto flags = std::make_shared<EvaluateFlags>();
  add_job_flags(command, flags->job, flags->sets);
  command.add_option("--checkpoint", flags->checkpoint,
                     "a checkpoint folder or generation; checkpoint.dir of the job by default");
  command.add_option(
      "--ensemble", flags->ensemble.checkpoints,
      "checkpoints to score together, of any models: each, the mean of their logits, "
      "and a logistic regression on them");
  command
      .add_option("--fit-share", flags->ensemble.fit_share,
                  "of --ensemble: share of the held-out targets that the regression is fitted on; "
                  "the others are scored")
      ->capture_default_str();
  command.callback([&context, flags] {
    context.action = [&context, flags] { return evaluate(context, *flags); };
  });
}

}  // namespace meander::launch
