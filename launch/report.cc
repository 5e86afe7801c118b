// SPDX-License-Identifier: Apache-2.0
#include "launch/report.h"

#include <sys/resource.h>

#include <cmath>
#include <limits>

#include "launch/text.h"

namespace meander::launch {

boost::json::value json_number(double value) {
  return std::isfinite(value) ? boost::json::value(value) : boost::json::value(nullptr);
}

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

// Places among a handful of candidates say nothing that AUC does not say.
bool has_ranks(const Plan& plan, const Outcome& outcome) {
  constexpr std::uint32_t kCandidates = 10;
  const std::uint32_t negatives = plan.held_out.negatives.per_target();
  return outcome.held_out.ranks.targets() > 0 &&
         (negatives == 0 ? plan.graph->ranks() != nn::kNoTensor : negatives >= kCandidates);
}

void add_ranks(const RankSums& ranks, boost::json::object& result) {
  for (const std::uint32_t cut : RankSums::kCuts) {
    const std::string at = "_at_" + std::to_string(cut);
    result["hr" + at] = json_number(ranks.hit_rate(cut));
    result["ndcg" + at] = json_number(ranks.ndcg(cut));
    result["mrr" + at] = json_number(ranks.reciprocal_rank(cut));
    result["recall" + at] = json_number(ranks.recall(cut));
  }
}

boost::json::object segments_of(const Plan& plan, const Outcome& outcome) {
  boost::json::object all;
  for (std::size_t s = 0; s < kSegments; ++s) {
    const Accumulator::Part& part = outcome.held_out.segments[s];
    if (part.ranks.targets() == 0) continue;
    boost::json::object& segment =
        all.emplace(segment_name(static_cast<Segment>(s)), boost::json::object())
            .first->value()
            .as_object();
    segment["targets"] = part.ranks.targets();
    segment["auc"] = json_number(part.scores.auc());
    segment["gauc"] = json_number(part.ranks.group_auc());
    if (has_ranks(plan, outcome)) add_ranks(part.ranks, segment);
  }
  return all;
}

// Of the held-out targets, besides AUC and log loss.
void add_metrics(const Plan& plan, const Outcome& outcome, boost::json::object& result) {
  const ScoreSums& scores = outcome.held_out.head;
  if (scores.samples() == 0) return;
  result["gauc"] = json_number(outcome.held_out.ranks.group_auc());
  result["accuracy"] = json_number(scores.accuracy());
  result["precision"] = json_number(scores.precision());
  result["recall"] = json_number(scores.recall());
  result["f1"] = json_number(scores.f1());
  result["calibration"] = json_number(scores.calibration());
  if (has_ranks(plan, outcome)) add_ranks(outcome.held_out.ranks, result);
  result["segments"] = segments_of(plan, outcome);
}

// Of the second task, apart: held out, and before learning.
void add_second(const Plan& plan, const Outcome& outcome, boost::json::object& result) {
  if (plan.graph->second_logits() == nn::kNoTensor) return;
  const ScoreSums& held_out = outcome.held_out.second_head;
  const ScoreSums& tail = outcome.training.second_tail;
  result["second_label"] = plan.log->second_label();
  result["second_samples"] = held_out.samples();
  result["second_auc"] = json_number(held_out.auc());
  result["second_logloss"] = json_number(held_out.log_loss());
  if (outcome.training.batches == 0) return;
  result["progressive_second_auc"] = json_number(tail.auc());
  result["progressive_second_logloss"] = json_number(tail.log_loss());
}

std::string second_text(const Plan& plan, const Outcome& outcome) {
  const ScoreSums& scores = outcome.held_out.second_head;
  if (scores.samples() == 0) return "";
  return "of " + plan.log->second_label() + ": AUC " + fixed(scores.auc(), 4) + ", log loss " +
         fixed(scores.log_loss(), 4) + " over " + grouped(scores.samples()) + " samples\n";
}

std::string ranks_text(const RankSums& ranks) {
  return "over " + grouped(ranks.targets()) + " targets: HR@10 " + fixed(ranks.hit_rate(10), 4) +
         ", NDCG@10 " + fixed(ranks.ndcg(10), 4) + ", MRR@20 " +
         fixed(ranks.reciprocal_rank(20), 4) + ", recall@20 " + fixed(ranks.recall(20), 4) + "\n";
}

std::string held_out_text(const Plan& plan, const Outcome& outcome) {
  const ScoreSums& scores = outcome.held_out.head;
  if (has_ranks(plan, outcome)) return "held out, " + ranks_text(outcome.held_out.ranks);
  return "held-out AUC " + fixed(held_out_auc(outcome), 4) + ", log loss " +
         fixed(held_out_log_loss(outcome), 4) + ", accuracy " + fixed(scores.accuracy(), 4) +
         " over " + grouped(scores.samples()) + " samples\n";
}

}  // namespace

namespace {

// Group AUC of the pass, piece by piece; null for those that nothing was trained in.
boost::json::array curve_of(const Accumulator& training) {
  boost::json::array curve;
  for (const Accumulator::Point& point : training.curve) {
    curve.push_back(json_number(point.group_auc / static_cast<double>(point.targets)));
  }
  return curve;
}

}  // namespace

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
                    {"progressive_gauc_curve", curve_of(training)},
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
  add_metrics(plan, outcome, context.result);
  add_second(plan, outcome, context.result);
  context.summary = plan.job.spec.name() + ": trained " + grouped(own) + " samples in " +
                    duration_text(outcome.seconds) + " (" +
                    (std::isfinite(rate) ? grouped(static_cast<std::uint64_t>(rate)) : "-") +
                    " samples/s), loss " + fixed(outcome.last.loss, 4) + ", AUC " +
                    fixed(outcome.last.auc, 4) + " before learning (last fifth " +
                    fixed(tail_auc, 4) + ")\n";
  if (outcome.held_out.head.samples() > 0)
    context.summary += held_out_text(plan, outcome) + second_text(plan, outcome);
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
                    {"peak_rss_mb", peak_rss_mb()}};
  add_metrics(plan, outcome, context.result);
  add_second(plan, outcome, context.result);
  context.summary = checkpoint + ": " + held_out_text(plan, outcome) + second_text(plan, outcome);
}

}  // namespace meander::launch
