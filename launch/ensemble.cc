// SPDX-License-Identifier: Apache-2.0
#include "launch/ensemble.h"

#include <algorithm>
#include <boost/json/array.hpp>
#include <cmath>
#include <thread>
#include <utility>

#include "checkpoint/generation.h"
#include "common/rng.h"
#include "common/thread_executor.h"
#include "launch/forward.h"
#include "launch/report.h"
#include "launch/text.h"
#include "launch/trained.h"
#include "launch/yaml.h"

namespace meander::launch {
namespace {

constexpr std::uint64_t kFitSalt = 0x656e73656d626c65ull;
// Places among fewer candidates say nothing that AUC does not say.
constexpr std::uint32_t kRankedNegatives = 10;

// The held-out samples of a plan in the order of its targets, target by target: labels, or what a
// model says of them.
struct Samples {
  std::vector<float> logits, labels;
  std::vector<std::uint32_t> user_targets;  // by target
  std::size_t candidates = 1;
};

// The member's own model and history on the plan's targets and batches.
Result<Plan> member_plan(Storage& storage, const Plan& plan, const std::string& path) {
  ASSIGN_OR_RETURN(const std::string generation, checkpoint::resolve_generation(storage, path));
  ASSIGN_OR_RETURN(const auto manifest, checkpoint::read_manifest(storage, generation));
  LoadedJob job;
  job.file = generation;
  RETURN_IF_ERROR(read_yaml(manifest.job(), generation, job.spec, job.origins));
  const job::Data& of_plan = plan.job.spec.data();
  job::Data& data = *job.spec.mutable_data();
  data.set_path(of_plan.path());
  *data.mutable_train() = of_plan.train();
  *data.mutable_test() = of_plan.test();
  *data.mutable_negatives() = of_plan.negatives();
  data.set_folds(of_plan.folds());
  data.set_fold(of_plan.fold());
  job.spec.mutable_train()->set_batch(plan.job.spec.train().batch());
  job.spec.mutable_train()->set_parts(plan.train.parts);
  job.spec.mutable_cluster()->set_workers(plan.workers());
  ASSIGN_OR_RETURN(Plan member, make_plan(storage, std::move(job)));
  if (models::graph_of(member.model.kind) == models::GraphKind::kNone) return member;
  return invalid(generation + ": model " + member.model.kind +
                 " has no part in an ensemble: a score depends on all rows of its tables");
}

// Puts the batch's samples at their targets' places; `first`: targets before the batch.
void put(const data::Batch& batch, std::span<const float> logits, Samples& samples) {
  const std::size_t k = samples.candidates, first = samples.user_targets.size();
  const std::size_t targets = batch.samples / k;
  samples.user_targets.resize(first + targets, 1);
  samples.logits.resize((first + targets) * k);
  samples.labels.resize((first + targets) * k);
  for (const data::Part& part : batch.parts) {
    for (std::int32_t g = 0; g < part.groups; ++g, logits = logits.subspan(k)) {
      const std::size_t place = first + part.order[g];
      std::copy_n(logits.begin(), k, samples.logits.begin() + place * k);
      std::copy_n(part.label.begin() + g * k, k, samples.labels.begin() + place * k);
      if (!part.user_targets.empty()) samples.user_targets[place] = part.user_targets[g];
    }
  }
}

Result<Samples> score(Storage& storage, const Plan& plan, const std::string& checkpoint,
                      Executor& executor) {
  ASSIGN_OR_RETURN(const Trained trained, load_trained(storage, plan, checkpoint, false));
  ASSIGN_OR_RETURN(const auto stream, data::Stream::open(plan.log, plan.held_out));
  Forward forward(*plan.graph, trained.tables, plan.tables, trained.dense, frozen_rows(plan));
  const PartitionMap one_lane = PartitionMap::even(1);
  Samples samples;
  samples.candidates = 1 + plan.held_out.negatives.per_target();
  data::Batch batch;
  for (std::uint64_t seq = 0; seq < stream->batches(); ++seq) {
    stream->build(seq, one_lane, batch);
    put(batch, forward.run(batch, executor), samples);
  }
  return samples;
}

bool is_fitted_on(std::size_t target, double share) {
  return unit_double(hash64(kFitSalt, target)) < share;
}

void add_target(std::span<const float> logits, std::uint32_t user_targets, PartScores& to) {
  double above = 0;  // equal ones by half
  for (const float logit : logits.subspan(1)) {
    above += logit > logits[0] ? 1.0 : logit == logits[0] ? 0.5 : 0.0;
  }
  to.ranks.add(std::floor(above), user_targets);
  to.ranks.add_group_auc(1 - above / static_cast<double>(logits.size() - 1));
}

// `samples` with the logits of another scorer.
EnsembleReport::Scorer scored(std::string name, const Samples& samples,
                              const std::vector<float>& logits, double fit_share) {
  EnsembleReport::Scorer scorer;
  scorer.name = std::move(name);
  const std::size_t k = samples.candidates;
  for (std::size_t target = 0; target < samples.user_targets.size(); ++target) {
    PartScores& part = is_fitted_on(target, fit_share) ? scorer.fit : scorer.test;
    for (std::size_t i = target * k; i < (target + 1) * k; ++i) {
      part.scores.add(logits[i], samples.labels[i] > 0.5f);
    }
    add_target(std::span(logits).subspan(target * k, k), samples.user_targets[target], part);
  }
  return scorer;
}

// What the stack is fitted on.
std::vector<float> fitted_part(const Samples& samples, const std::vector<float>& values,
                               double fit_share) {
  std::vector<float> part;
  const std::size_t k = samples.candidates;
  for (std::size_t target = 0; target < samples.user_targets.size(); ++target) {
    if (!is_fitted_on(target, fit_share)) continue;
    part.insert(part.end(), values.begin() + target * k, values.begin() + (target + 1) * k);
  }
  return part;
}

Status check(const Plan& plan, const EnsembleOptions& options) {
  if (options.checkpoints.size() < 2) {
    return invalid("an ensemble has at least two members: --ensemble CHECKPOINT CHECKPOINT ...");
  }
  if (!(options.fit_share > 0 && options.fit_share < 1)) {
    return invalid("--fit-share must be above 0 and below 1");
  }
  if (plan.held_out.negatives.per_target() == 0) {
    return invalid(plan.job.place("data.negatives") +
                   ": an ensemble is scored on targets that have negatives, and these have none");
  }
  return {};
}

}  // namespace

Result<EnsembleReport> evaluate_ensemble(const Context& context, const Plan& plan,
                                         const EnsembleOptions& options) {
  RETURN_IF_ERROR(check(plan, options));
  ThreadPool pool(options.threads == 0 ? std::max(1u, std::thread::hardware_concurrency())
                                       : options.threads);
  ThreadExecutor executor(pool, [](std::function<void()> task) { task(); });
  EnsembleReport report;
  report.negatives = plan.held_out.negatives.per_target();
  Samples samples;
  std::vector<std::vector<float>> logits;
  for (const std::string& checkpoint : options.checkpoints) {
    ASSIGN_OR_RETURN(const Plan member, member_plan(*context.storage, plan, checkpoint));
    context.note("scoring the held-out part by " + checkpoint + " (" + member.model.kind + ")");
    ASSIGN_OR_RETURN(samples, score(*context.storage, member, checkpoint, executor));
    if (!logits.empty()) CHECK_EQ(samples.logits.size(), logits[0].size()) << "other targets";
    logits.push_back(std::move(samples.logits));
    report.members.push_back(scored(checkpoint, samples, logits.back(), options.fit_share));
    report.members.back().model = member.model.kind;
  }
  std::vector<std::vector<float>> fitted;
  for (const auto& of_member : logits) {
    fitted.push_back(fitted_part(samples, of_member, options.fit_share));
  }
  const std::vector<float> labels = fitted_part(samples, samples.labels, options.fit_share);
  if (labels.empty() || labels.size() == samples.labels.size()) {
    return invalid("too few held-out targets to fit a stack on some and score it on others");
  }
  ASSIGN_OR_RETURN(report.stack, fit_stack(fitted, labels));
  const auto score_by = [&](const char* name, const Stack& stack) {
    return scored(name, samples, stack.apply(logits), options.fit_share);
  };
  report.mean = score_by("mean", Stack::mean(logits.size()));
  report.stacked = score_by("stacked", report.stack);
  return report;
}

namespace {

boost::json::object metrics_of(const PartScores& part, std::uint32_t negatives) {
  boost::json::object result = {{"samples", part.scores.samples()},
                                {"auc", json_number(part.scores.auc())},
                                {"logloss", json_number(part.scores.log_loss())},
                                {"gauc", json_number(part.ranks.group_auc())},
                                {"accuracy", json_number(part.scores.accuracy())},
                                {"f1", json_number(part.scores.f1())}};
  if (negatives < kRankedNegatives) return result;
  result["hr_at_10"] = json_number(part.ranks.hit_rate(10));
  result["ndcg_at_10"] = json_number(part.ranks.ndcg(10));
  return result;
}

boost::json::object scorer_json(const EnsembleReport::Scorer& scorer, std::uint32_t negatives) {
  boost::json::object result = metrics_of(scorer.test, negatives);
  result["fit"] = metrics_of(scorer.fit, negatives);
  return result;
}

std::string scorer_text(const EnsembleReport::Scorer& scorer, std::uint32_t negatives) {
  const PartScores& test = scorer.test;
  std::string text = scorer.name + ": AUC " + fixed(test.scores.auc(), 4) + ", log loss " +
                     fixed(test.scores.log_loss(), 4);
  if (negatives >= kRankedNegatives) {
    text += ", HR@10 " + fixed(test.ranks.hit_rate(10), 4) + ", NDCG@10 " +
            fixed(test.ranks.ndcg(10), 4);
  }
  return text + " (where it was fitted: " + fixed(scorer.fit.scores.auc(), 4) + ", " +
         fixed(scorer.fit.scores.log_loss(), 4) + ")\n";
}

}  // namespace

void report_ensemble(Context& context, const Plan& plan, const EnsembleOptions& options,
                     const EnsembleReport& report) {
  boost::json::array members;
  std::string weights;
  for (std::size_t m = 0; m < report.members.size(); ++m) {
    const EnsembleReport::Scorer& member = report.members[m];
    boost::json::object& one =
        members.emplace_back(scorer_json(member, report.negatives)).as_object();
    one["checkpoint"] = member.name;
    one["model"] = member.model;
    one["weight"] = report.stack.weights[m];
    context.summary += scorer_text(member, report.negatives);
    weights += (m == 0 ? "" : ", ") + fixed(report.stack.weights[m], 4);
  }
  context.summary += scorer_text(report.mean, report.negatives) +
                     scorer_text(report.stacked, report.negatives) + "weights " + weights +
                     ", bias " + fixed(report.stack.bias, 4) + ", fitted on " +
                     grouped(report.mean.fit.ranks.targets()) + " targets; " +
                     grouped(report.mean.test.ranks.targets()) + " others are scored\n";
  boost::json::object stacked = scorer_json(report.stacked, report.negatives);
  stacked["bias"] = report.stack.bias;
  stacked["weights"] = boost::json::array(report.stack.weights.begin(), report.stack.weights.end());
  context.result = {{"job", plan.job.spec.name()},
                    {"fit_share", options.fit_share},
                    {"samples", report.mean.test.scores.samples()},
                    {"auc", json_number(report.mean.test.scores.auc())},
                    {"logloss", json_number(report.mean.test.scores.log_loss())},
                    {"members", std::move(members)},
                    {"mean", scorer_json(report.mean, report.negatives)},
                    {"stacked", std::move(stacked)}};
}

}  // namespace meander::launch
