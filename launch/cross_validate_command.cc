// SPDX-License-Identifier: Apache-2.0
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cmath>

#include "launch/report.h"
#include "launch/text.h"
#include "launch/train.h"

namespace meander::launch {
namespace {

constexpr const char* kMetrics[] = {"auc", "logloss", "gauc", "hr_at_10", "ndcg_at_10"};

struct Flags {
  std::string job;
  std::vector<std::string> sets;
  std::uint32_t folds = 5;
  bool fresh = false;
};

struct Spread {
  double mean = 0, sd = 0;
};

// Sample standard deviation.
Spread spread_of(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  Spread spread;
  for (const double x : values) spread.mean += x / n;
  for (const double x : values) spread.sd += (x - spread.mean) * (x - spread.mean) / (n - 1);
  spread.sd = std::sqrt(spread.sd);
  return spread;
}

// Trains with a fold held out; what the run reports is left in the context.
Status train_fold(Context& context, const Flags& flags, const std::string& dir,
                  std::uint32_t fold) {
  std::vector<std::string> sets = flags.sets;
  sets.push_back("data.folds=" + std::to_string(flags.folds));
  sets.push_back("data.fold=" + std::to_string(fold));
  sets.push_back("data.test.part=fold");
  if (!dir.empty()) {
    sets.push_back("checkpoint.dir=" + join_path(dir, "fold-" + std::to_string(fold)));
  }
  ASSIGN_OR_RETURN(const Plan plan, plan_job(context, flags.job, sets));
  RETURN_IF_ERROR(check_no_averaging(plan));
  if (!plan.evaluates) {
    return invalid(plan.job.place("data.folds") + ": fold " + std::to_string(fold) +
                   " has no training target: lower --folds");
  }
  context.note("fold " + std::to_string(fold) + " of " + std::to_string(flags.folds));
  StartFlags start;
  start.fresh = flags.fresh;
  return train_in_process(context, plan, start);
}

Status cross_validate(Context& context, const Flags& flags) {
  ASSIGN_OR_RETURN(const LoadedJob job, load_job(*context.storage, flags.job, flags.sets));
  boost::json::array each;
  std::string text;
  for (std::uint32_t fold = 0; fold < flags.folds; ++fold) {
    const Status status = train_fold(context, flags, job.spec.checkpoint().dir(), fold);
    if (!status.ok()) {
      context.result.clear();
      context.summary.clear();
      return status;
    }
    text += "fold " + std::to_string(fold);
    boost::json::object one{{"fold", fold}};
    for (const char* metric : kMetrics) {
      const boost::json::value* value = context.result.if_contains(metric);
      if (value == nullptr || !value->is_double()) continue;
      one[metric] = *value;
      text += std::string("  ") + metric + " " + fixed(value->as_double(), 4);
    }
    text += "\n";
    one["checkpoint"] = context.result["checkpoint"];
    each.push_back(std::move(one));
  }
  context.result = {{"job", job.spec.name()}, {"folds", flags.folds}};
  for (const char* metric : kMetrics) {
    std::vector<double> values;
    for (const boost::json::value& one : each) {
      if (const auto* value = one.as_object().if_contains(metric)) {
        values.push_back(value->as_double());
      }
    }
    if (values.size() != flags.folds) continue;
    const Spread spread = spread_of(values);
    context.result[std::string(metric) + "_mean"] = spread.mean;
    context.result[std::string(metric) + "_sd"] = spread.sd;
    text += std::string(metric) + " " + fixed(spread.mean, 4) + " +- " + fixed(spread.sd, 4) + "\n";
  }
  context.result["each"] = std::move(each);
  context.summary = std::move(text);
  return {};
}

}  // namespace

void add_cross_validate(CLI::App& app, Context& context) {
  CLI::App& command =
      add_command(app, context, "cross-validate",
                  "Trains a job once for each fold of its users, which is held out and scored; "
                  "prints each, and mean and standard deviation.",
                  "meander cross-validate examples/ml1m-dien.yaml --folds 5");
  auto flags = std::make_shared<Flags>();
  add_job_flags(command, flags->job, flags->sets);
  command.add_option("--folds", flags->folds, "how many folds users are dealt into")
      ->check(CLI::Range(2, 1000))
      ->capture_default_str();
  command.add_flag("--fresh", flags->fresh,
                   "train every fold anew: the checkpoints in checkpoint.dir/fold-N are removed");
  command.callback([&context, flags] {
    context.action = [&context, flags] { return cross_validate(context, *flags); };
  });
}

}  // namespace meander::launch
