// SPDX-License-Identifier: Apache-2.0
#include "launch/train.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "checkpoint/generation.h"
#include "launch/early_stop.h"
#include "launch/prepare.h"
#include "launch/report.h"
#include "launch/text.h"
#include "scheduler/journal.h"

namespace meander::launch {
namespace {

// Writes the prepared log from data.source when data.path is not there yet.
Status ensure_prepared(const Context& context, const LoadedJob& job) {
  const job::Data& data = job.spec.data();
  if (context.storage->exists(data.path()) || !data.has_source()) return {};
  PrepareFlags flags;
  Status status =
      parse_prepare_flags({data.source().options().begin(), data.source().options().end()}, flags);
  if (!status.ok()) return std::move(status).context(job.place("data.source.options"));
  flags.format = data.source().format();
  flags.in.assign(data.source().in().begin(), data.source().in().end());
  flags.out = data.path();
  return prepare_if_missing(context, flags).context(job.place("data.source"));
}

void note_start(const Context& context, const Plan& plan, const Start& start) {
  const std::string cluster =
      std::to_string(plan.lanes()) + " lanes, " + std::to_string(plan.workers()) + " workers";
  if (start.restore.empty()) {
    context.note("training " + plan.job.spec.name() + " (" + plan.model.kind + ", " + cluster +
                 ")");
  } else if (start.positions) {
    context.note("going on from " + start.restore + " (" + cluster + "); --fresh starts anew");
  } else {
    context.note("going on with the rows of " + start.restore + " (" + cluster + ")");
  }
}

// A row in memory: weights, optimizer state, and what lies beside them.
std::uint64_t row_bytes(const wire::TableSpec& table) {
  const std::uint64_t floats =
      table.width() + checkpoint::state_width(table.optimizer().kind(), table.width());
  constexpr std::uint64_t kBesides = 48;  // key, step, count, index entry at its usual load
  return floats * sizeof(float) + kBesides;
}

std::uint64_t rows_of(const Plan& plan, std::size_t table) {
  if (table >= plan.train.slots.size()) return 0;  // dense: a few blocks
  switch (plan.train.slots[table].source) {
    case data::SlotSource::kItem:
      return plan.log->items().size();
    case data::SlotSource::kCategory:
      return plan.log->categories();
    case data::SlotSource::kUser:
      return plan.log->users();
    case data::SlotSource::kWord:
      return plan.words;
    case data::SlotSource::kContext:
    case data::SlotSource::kContent:
      return 0;
  }
  return 0;
}

}  // namespace

Status count_samples(const Plan& plan, const Start& start, Outcome& outcome) {
  if (!plan.trains) return {};
  const scheduler::Progress& progress = outcome.last.progress;
  if (progress.is_successor) {
    outcome.samples_before = progress.samples_before;
  } else if (start.positions && !start.restore.empty()) {
    ASSIGN_OR_RETURN(outcome.samples_before, samples_until(plan, &start.manifest));
  }
  if (outcome.status.ok() || !outcome.generation_dir.empty()) {
    const bool whole = outcome.status.ok();
    ASSIGN_OR_RETURN(outcome.samples, samples_until(plan, whole ? nullptr : &outcome.manifest));
  } else {
    outcome.samples = outcome.training.samples;
  }
  return {};
}

void add_job_flags(CLI::App& command, std::string& job, std::vector<std::string>& sets) {
  command.add_option("JOB", job, "job file (docs/job-file.md)")->required()->envname("MEANDER_JOB");
  command.add_option("--set", sets, "set a field of the job: --set train.batch=512")
      ->allow_extra_args(false)
      ->envname("MEANDER_SET");
}

void add_train_flags(CLI::App& command, TrainFlags& flags) {
  add_job_flags(command, flags.job, flags.sets);
  command.add_flag("--resume", flags.start.resume,
                   "go on from the newest checkpoint, which must be there");
  command.add_flag("--fresh", flags.start.fresh,
                   "start anew: the checkpoints in checkpoint.dir are removed");
  command.add_flag("--dry-run", flags.dry_run,
                   "only show the resolved job, the layout and the memory that it needs");
}

Result<Plan> plan_job(const Context& context, const std::string& job,
                      const std::vector<std::string>& sets) {
  ASSIGN_OR_RETURN(LoadedJob loaded, load_job(*context.storage, job, sets));
  RETURN_IF_ERROR(ensure_prepared(context, loaded));
  return make_plan(*context.storage, std::move(loaded));
}

Status describe_plan(Context& context, const Plan& plan) {
  std::uint64_t bytes = 0;
  context.summary = write_yaml(plan.job.spec, &plan.job.origins);
  for (std::size_t t = 0; t < plan.tables.size(); ++t) {
    bytes += rows_of(plan, t) * row_bytes(plan.tables[t]);
  }
  bytes += plan.graph->dense_size() * sizeof(float) * 3;
  const std::uint64_t per_lane = bytes / plan.lanes();
  context.summary += "\nmodel    " + plan.identity + "\nlayout   1 scheduler, " +
                     std::to_string(plan.lanes()) + " lanes, " + std::to_string(plan.workers()) +
                     " workers\nmemory   " + bytes_text(per_lane) + " of rows per lane\n";
  context.result = {{"job", write_yaml(plan.job.spec, &plan.job.origins)},
                    {"model", plan.identity},
                    {"lanes", plan.lanes()},
                    {"workers", plan.workers()},
                    {"bytes_per_lane", per_lane}};
  return {};
}

Status train_in_process(Context& context, const Plan& plan, const StartFlags& flags) {
  if (stops_early(plan)) return train_until_best(context, plan, flags);
  return train_with(context, plan, flags, [&](scheduler::SchedulerOptions options) {
    return run_in_process(context, plan, std::move(options));
  });
}

Status train_with(Context& context, const Plan& plan, const StartFlags& flags, const Run& run) {
  RETURN_IF_ERROR(check_no_early_stop(plan));
  ASSIGN_OR_RETURN(const Start start, find_start(context, plan, flags));
  scheduler::SchedulerOptions options = scheduler_options(plan, draw_id());
  options.restore = start.restore;
  options.restore_positions = start.positions;
  const std::string journal = scheduler::journal_dir(options.checkpoint_dir);
  options.journal = flags.keep_journal && !options.checkpoint_dir.empty();
  options.nonce = draw_id();
  // With a journal it is the end of a run that is still going on.
  const bool is_over = start.is_finished &&
                       !(options.journal && scheduler::Journal::exists(*context.storage, journal));
  if (is_over) {
    context.note("already trained: " + start.restore +
                 " holds the whole pass; use --fresh to train anew. Evaluating it.");
    options.train = options.journal = false;
    options.checkpoint_dir.clear();
  } else {
    note_start(context, plan, start);
  }
  const bool keeps_journal = options.journal;
  ASSIGN_OR_RETURN(Outcome outcome, run(std::move(options)));
  if (!outcome.status.ok() && outcome.status.code() != Code::kInterrupted) return outcome.status;
  if (is_over) {
    outcome.generation_dir = start.restore;
    outcome.manifest = start.manifest;
  }
  RETURN_IF_ERROR(count_samples(plan, start, outcome));
  report_training(context, plan, outcome);
  if (keeps_journal && outcome.status.ok()) RETURN_IF_ERROR(context.storage->remove(journal));
  return outcome.status;
}

}  // namespace meander::launch
