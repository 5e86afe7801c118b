// SPDX-License-Identifier: Apache-2.0
#include "launch/report.h"

#include <sys/resource.h>

#include <cmath>
#include <limits>

#include "launch/text.h"

namespace meander::launch {
namespace {

constexpr double kNotKnown = std::numeric_limits<double>::quiet_NaN();

double peak_rss_mb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

std::uint64_t rows(const manifest::Manifest& manifest) {
  std::uint64_t rows = 0;
  for (const manifest::Table& table : manifest.tables()) rows += table.rows();
  return rows;
}

double held_out_auc(const Outcome& outcome) {
  return outcome.held_out.head.samples() > 0 ? outcome.held_out.head.auc() : kNotKnown;
}
double held_out_log_loss(const Outcome& outcome) {
  return outcome.held_out.head.samples() > 0 ? outcome.held_out.head.log_loss() : kNotKnown;
}

std::string held_out_text(const Outcome& outcome) {
  const ScoreSums& scores = outcome.held_out.head;
  return "held-out AUC " + fixed(held_out_auc(outcome), 4) + ", log loss " +
         fixed(held_out_log_loss(outcome), 4) + ", accuracy " + fixed(scores.accuracy(), 4) +
         " over " + grouped(scores.samples()) + " samples\n";
}

}  // namespace

boost::json::value json_number(double value) {
  return std::isfinite(value) ? boost::json::value(value) : boost::json::value(nullptr);
}

void report_training(Context& context, const Plan& plan, const Outcome& outcome) {
  const Accumulator& training = outcome.training;
  const std::uint64_t own = outcome.samples - std::min(outcome.samples, outcome.samples_before);
  const double rate = outcome.seconds > 0 ? static_cast<double>(own) / outcome.seconds : kNotKnown;
  const double tail_auc = training.tail.samples() > 0 ? training.tail.auc() : kNotKnown;
  const double tail_loss = training.tail.samples() > 0 ? training.tail.log_loss() : kNotKnown;
  context.result = {{"job", plan.job.spec.name()},
                    {"model", plan.model.kind},
                    {"samples", outcome.samples},
                    {"samples_this_run", own},
                    {"batches", training.batches},
                    {"seconds", outcome.seconds},
                    {"samples_per_s", json_number(rate)},
                    {"loss", json_number(outcome.last.loss)},
                    {"auc", json_number(held_out_auc(outcome))},
                    {"logloss", json_number(held_out_log_loss(outcome))},
                    {"training_auc", json_number(outcome.last.auc)},
                    {"progressive_auc", json_number(tail_auc)},
                    {"progressive_logloss", json_number(tail_loss)},
                    {"checkpoint", outcome.generation_dir},
                    {"digest", outcome.manifest.digest()},
                    {"generation", outcome.manifest.generation()},
                    {"rows", rows(outcome.manifest)},
                    {"lost_workers", outcome.last.progress.lost_workers},
                    {"rollbacks", outcome.last.progress.rollbacks},
                    {"failovers", outcome.last.progress.failovers},
                    {"lanes", outcome.last.progress.lanes},
                    {"scalings", outcome.last.progress.scalings},
                    {"detection_s", outcome.last.progress.detection_s},
                    {"peak_rss_mb", peak_rss_mb()}};
  context.summary = plan.job.spec.name() + ": trained " + grouped(own) + " samples in " +
                    duration_text(outcome.seconds) + " (" +
                    (std::isfinite(rate) ? grouped(static_cast<std::uint64_t>(rate)) : "-") +
                    " samples/s), loss " + fixed(outcome.last.loss, 4) + ", AUC " +
                    fixed(outcome.last.auc, 4) + " before learning (last fifth " +
                    fixed(tail_auc, 4) + ")\n";
  if (outcome.held_out.head.samples() > 0) context.summary += held_out_text(outcome);
  if (!outcome.generation_dir.empty()) {
    context.summary += "checkpoint " + outcome.generation_dir + ", " +
                       grouped(rows(outcome.manifest)) + " rows, digest " +
                       outcome.manifest.digest() + "\n";
  }
}

void report_evaluation(Context& context, const Plan& plan, const Outcome& outcome,
                       const std::string& checkpoint) {
  const ScoreSums& scores = outcome.held_out.head;
  context.result = {{"job", plan.job.spec.name()},
                    {"model", plan.model.kind},
                    {"checkpoint", checkpoint},
                    {"samples", scores.samples()},
                    {"auc", json_number(held_out_auc(outcome))},
                    {"logloss", json_number(held_out_log_loss(outcome))},
                    {"accuracy", json_number(scores.samples() > 0 ? scores.accuracy() : kNotKnown)},
                    {"f1", json_number(scores.samples() > 0 ? scores.f1() : kNotKnown)},
                    {"peak_rss_mb", peak_rss_mb()}};
  context.summary = checkpoint + ": " + held_out_text(outcome);
}

}  // namespace meander::launch
