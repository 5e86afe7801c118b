// SPDX-License-Identifier: Apache-2.0
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <CLI/Validators.hpp>

#include "launch/cli.h"
#include "launch/export.h"
#include "launch/job.h"
#include "launch/report.h"
#include "launch/resume.h"
#include "launch/text.h"
#include "launch/train.h"

namespace meander::launch {
namespace {

struct Flags {
  std::string job;
  std::vector<std::string> sets;
  ExportOptions options;
  std::string layout = "plain", rows = "f32";
  bool dry_run = false;
};

Status check(Flags& flags) {
  if (flags.rows == "bf16" || flags.rows == "int8") {
    return invalid("--rows " + flags.rows + ": not there yet; rows are exported as f32");
  }
  if (flags.rows != "f32") return invalid("--rows is '" + flags.rows + "': must be f32");
  if (flags.options.behaviours == 0) return invalid("--behaviours must be at least 1");
  flags.options.layout =
      flags.layout == "triton" ? artefact::Layout::kTriton : artefact::Layout::kPlain;
  return {};
}

// The resolved job, which generation would be exported, and where to.
Status describe_export(Context& context, const Plan& plan, const ExportOptions& options) {
  RETURN_IF_ERROR(artefact::check_target(*context.storage, options.out));
  ASSIGN_OR_RETURN(const Start start, find_checkpoint(*context.storage, plan, options.checkpoint));
  RETURN_IF_ERROR(describe_plan(context, plan));
  context.result["checkpoint"] = start.restore;
  context.result["out"] = options.out;
  context.summary += "\nwould export " + start.restore + " to " + options.out;
  return {};
}

Status run_export(Context& context, Flags& flags) {
  RETURN_IF_ERROR(check(flags));
  ASSIGN_OR_RETURN(LoadedJob job, load_job(*context.storage, flags.job, flags.sets));
  ASSIGN_OR_RETURN(const Plan plan, make_plan(*context.storage, std::move(job)));
  if (flags.dry_run) return describe_export(context, plan, flags.options);
  ASSIGN_OR_RETURN(const ExportReport report, export_plan(context, plan, flags.options));
  context.result = {{"files", report.written.files},
                    {"bytes", report.written.bytes},
                    {"rows", report.written.rows},
                    {"max_abs_diff", report.max_abs_diff},
                    {"samples", report.samples},
                    {"auc", json_number(report.auc)},
                    {"auc_trained", json_number(report.auc_trained)},
                    {"dice", flags.options.dice},
                    {"statistics_batches", report.statistics_batches},
                    {"generation", report.generation},
                    {"checkpoint", report.generation_dir},
                    {"out", flags.options.out}};
  char difference[32];
  std::snprintf(difference, sizeof difference, "%.2g", report.max_abs_diff);
  context.summary = flags.options.out + ": " + grouped(report.written.rows) + " rows, " +
                    std::to_string(report.written.files) + " files, " +
                    bytes_text(report.written.bytes) + "; its scores are within " + difference +
                    " of the trainer's on " + grouped(report.samples) + " held-out samples (AUC " +
                    fixed(report.auc, 4) + ", as trained " + fixed(report.auc_trained, 4) +
                    ")\ntry: meander recommend " + flags.options.out + " --user ID";
  return {};
}

}  // namespace

void add_export(CLI::App& app, Context& context) {
  CLI::App& command = add_command(
      app, context, "export",
      "Writes a checkpoint for serving: an ONNX model that takes raw ids, rows as safetensors, "
      "items "
      "and histories. It is compared with the trainer's forward pass before it takes its place.",
      "meander export examples/ml1m-dien.yaml --out exports/ml1m-dien");
  auto flags = std::make_shared<Flags>();
  ExportOptions& o = flags->options;
  command.add_option("job", flags->job, "job file")->required();
  command.add_option("--set", flags->sets, "field of the job, for example checkpoint.dir=DIR")
      ->allow_extra_args(false);
  command.add_option("--checkpoint", o.checkpoint,
                     "checkpoint directory or one generation of it (default: the job's newest)");
  command.add_option("--out", o.out, "directory to write; an older export there is replaced")
      ->required()
      ->check(why_not_folder);
  command
      .add_option("--layout", flags->layout, "plain, or triton: a model repository (default plain)")
      ->check(CLI::IsMember({"plain", "triton"}));
  command.add_option("--rows", flags->rows, "how rows are stored: f32");
  command
      .add_option("--dice", o.dice,
                  "statistics of Dice: moving, or batch as published: then a score depends on who "
                  "shares its request (default moving)")
      ->check(CLI::IsMember({"moving", "batch"}));
  command.add_option("--samples", o.samples,
                     "held-out samples to keep beside the model with the trainer's logits, for "
                     "tools/check_onnx.py (default 0)");
  command.add_option("--behaviours", o.behaviours,
                     "newest behaviours of each user to keep (default 1000)");
  command
      .add_option("--candidates", o.candidates,
                  "what recommend scores: all items, or those of the last events (default: recent "
                  "where the job's negatives are)")
      ->check(CLI::IsMember({"all", "recent"}));
  command.add_flag("--dry-run", flags->dry_run,
                   "only show the resolved job, and what would be exported to where");
  command.add_flag("--repeats", o.repeats, "recommend again what a user had");
  command.callback([&context, flags] {
    context.action = [&context, flags] { return run_export(context, *flags); };
  });
}

}  // namespace meander::launch
