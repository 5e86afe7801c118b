// SPDX-License-Identifier: Apache-2.0
#include "launch/early_stop.h"

#include <algorithm>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <boost/json/value_to.hpp>
#include <cmath>
#include <optional>
#include <ranges>

#include "checkpoint/generation.h"
#include "launch/report.h"
#include "launch/text.h"
#include "launch/train.h"

namespace meander::launch {
namespace {

// Of every epoch that was scored.
struct Scored {
  double metric = 0;
  std::string generation;  // its name in checkpoint.dir
};

std::string state_path(const Plan& plan) {
  return join_path(plan.job.spec.checkpoint().dir(), "early_stop.json");
}

Status write_state(Storage& storage, const Plan& plan, const std::vector<Scored>& epochs) {
  boost::json::array array;
  for (const Scored& epoch : epochs) array.push_back({epoch.metric, epoch.generation});
  const std::string text = boost::json::serialize(array);
  return storage.write_atomic(state_path(plan), text.data(), text.size());
}

Status read_state(Storage& storage, const Plan& plan, std::vector<Scored>& epochs) {
  const std::string path = state_path(plan);
  ASSIGN_OR_RETURN(const bool is_there, storage.has(path));
  if (!is_there) return {};
  ASSIGN_OR_RETURN(const std::string text, read_text(storage, path));
  boost::system::error_code error;
  const boost::json::value value = boost::json::parse(text, error);
  const auto array =
      error ? std::nullopt
            : std::optional(
                  boost::json::try_value_to<std::vector<std::pair<double, std::string>>>(value));
  if (!array || !array->has_value()) {
    return corrupt(path + ": not what a run with train.early_stop leaves; --fresh starts anew");
  }
  for (const auto& [metric, generation] : array->value()) epochs.push_back({metric, generation});
  return {};
}

double metric_of(const Outcome& outcome, job::EarlyStop::Metric metric) {
  const Accumulator& held_out = outcome.held_out;
  switch (metric) {
    case job::EarlyStop::auc:
      return held_out.head.auc();
    case job::EarlyStop::logloss:
      return held_out.head.log_loss();
    case job::EarlyStop::hr_at_10:
      return held_out.ranks.hit_rate(10);
    case job::EarlyStop::ndcg_at_10:
      return held_out.ranks.ndcg(10);
  }
  return 0;
}

// The best of the epochs, from 0; the first of equal ones.
std::size_t best_of(const Plan& plan, const std::vector<Scored>& epochs) {
  const bool falls = plan.job.spec.train().early_stop().metric() == job::EarlyStop::logloss;
  const auto gain = [falls](const Scored& e) { return falls ? -e.metric : e.metric; };
  return std::ranges::max_element(epochs, {}, gain) - epochs.begin();
}

bool is_over(const Plan& plan, const std::vector<Scored>& epochs) {
  if (epochs.empty()) return false;
  const std::size_t without_gain = epochs.size() - 1 - best_of(plan, epochs);
  return epochs.size() >= plan.train.epochs ||
         without_gain >= plan.job.spec.train().early_stop().patience();
}

Plan of_epochs(const Plan& plan, std::uint32_t epochs) {
  Plan shorter = plan;
  shorter.train.epochs = epochs;
  return shorter;
}

// Epochs that every stream of the checkpoint has wholly behind it.
Result<std::uint32_t> epochs_behind(const Plan& plan, const manifest::Manifest& manifest) {
  std::uint64_t least = plan.train.epochs;
  for (const manifest::Stream& position : manifest.streams()) {
    data::StreamSpec spec = plan.train;
    spec.index = position.stream();
    spec.epochs = 1;
    ASSIGN_OR_RETURN(const auto stream, data::Stream::open(plan.log, spec));
    if (stream->batches() > 0) least = std::min(least, position.next() / stream->batches());
  }
  return static_cast<std::uint32_t>(least);
}

// One run up to the end of an epoch, from where `at` stands.
class EpochRuns {
 public:
  EpochRuns(Context& context, const Plan& plan, Start at)
      : context_(context), plan_(plan), at_(std::move(at)) {}

  // `epoch` counts from 1. `pinned`: a generation that must stay.
  Result<Outcome> train(std::uint32_t epoch, const std::string& pinned) {
    const Plan plan = of_epochs(plan_, epoch);
    scheduler::SchedulerOptions options = scheduler_options(plan, draw_id());
    options.restore = at_.restore;
    options.restore_positions = at_.positions;
    options.streams_go_on = at_.is_finished;
    options.pinned = pinned;
    // Streams that have ended have not ended in this epoch.
    for (int s = 0; at_.is_finished && s < at_.manifest.streams_size(); ++s) {
      at_.manifest.mutable_streams(s)->set_ended(false);
    }
    ASSIGN_OR_RETURN(Outcome outcome, run_in_process(context_, plan, std::move(options)));
    RETURN_IF_ERROR(count_samples(plan, at_, outcome));
    seconds_ += outcome.seconds;
    if (outcome.status.ok()) at_ = {outcome.generation_dir, true, true, outcome.manifest};
    return outcome;
  }
  // Of the samples that a whole run has trained, and the time it took.
  double seconds() const { return seconds_; }
  const Start& at() const { return at_; }

  Result<Outcome> evaluate(const std::string& generation) const {
    scheduler::SchedulerOptions options = scheduler_options(plan_, draw_id());
    options.train = false;
    options.checkpoint_dir.clear();
    options.restore = generation;
    options.restore_positions = false;
    ASSIGN_OR_RETURN(Outcome outcome, run_in_process(context_, plan_, std::move(options)));
    outcome.generation_dir = generation;
    ASSIGN_OR_RETURN(outcome.manifest, checkpoint::read_manifest(*context_.storage, generation));
    return outcome;
  }

 private:
  Context& context_;
  const Plan& plan_;
  Start at_;
  double seconds_ = 0;
};

// What is newer than the best goes, so that whoever takes the newest takes the best.
Status remove_newer(Storage& storage, const Plan& plan, const std::string& best) {
  ASSIGN_OR_RETURN(const auto generations,
                   checkpoint::list_generations(storage, plan.job.spec.checkpoint().dir()));
  for (const std::string& generation : std::views::reverse(generations)) {
    if (generation == best) break;
    RETURN_IF_ERROR(checkpoint::remove_generation(storage, generation));
  }
  return {};
}

void report_epochs(Context& context, const Plan& plan, const std::vector<Scored>& epochs) {
  const std::size_t best = best_of(plan, epochs);
  boost::json::array metrics;
  for (const Scored& epoch : epochs) metrics.push_back(json_number(epoch.metric));
  const std::string metric =
      job::EarlyStop::Metric_Name(plan.job.spec.train().early_stop().metric());
  context.result["epochs"] = epochs.size();
  context.result["best_epoch"] = best + 1;
  context.result["best_metric"] = json_number(epochs[best].metric);
  context.result["metric"] = metric;
  context.result["epoch_metrics"] = std::move(metrics);
  context.summary += "best " + metric + " " + fixed(epochs[best].metric, 4) + " after epoch " +
                     std::to_string(best + 1) + " of " + std::to_string(epochs.size()) +
                     " trained\n";
}

Status score(Context& context, const Plan& plan, const Outcome& outcome,
             std::vector<Scored>& epochs) {
  const job::EarlyStop::Metric metric = plan.job.spec.train().early_stop().metric();
  const std::string name = job::EarlyStop::Metric_Name(metric);
  const double value = metric_of(outcome, metric);
  if (!std::isfinite(value)) {
    return invalid(plan.job.place("train.early_stop.metric") + ": the held-out part has no " +
                   name);
  }
  const std::string& dir = outcome.generation_dir;
  epochs.push_back({value, dir.substr(dir.rfind('/') + 1)});
  const std::size_t best = best_of(plan, epochs);
  context.note("epoch " + std::to_string(epochs.size()) + ": " + name + " " + fixed(value, 4) +
               (best + 1 == epochs.size() ? ", the best so far"
                                          : ", best " + fixed(epochs[best].metric, 4) +
                                                " after epoch " + std::to_string(best + 1)));
  return write_state(*context.storage, plan, epochs);
}

// What is known of the epochs is made that of where the run stands: it may have died between an
// epoch's checkpoint and its score, or have gone back to its best epoch with less patience.
Status catch_up(Context& context, const Plan& plan, const EpochRuns& runs,
                std::vector<Scored>& epochs) {
  const Start& at = runs.at();
  ASSIGN_OR_RETURN(const std::uint32_t behind, epochs_behind(plan, at.manifest));
  if (behind < epochs.size()) epochs.resize(behind);
  if (behind == epochs.size()) return {};
  if (behind > epochs.size() + 1 || !at.is_finished) {
    return corrupt(state_path(plan) + ": knows less than " + at.restore + "; --fresh starts anew");
  }
  ASSIGN_OR_RETURN(const Outcome outcome, runs.evaluate(at.restore));
  RETURN_IF_ERROR(outcome.status);
  return score(context, plan, outcome, epochs);
}

}  // namespace

bool stops_early(const Plan& plan) { return plan.job.spec.train().early_stop().patience() > 0; }

Status check_no_early_stop(const Plan& plan) {
  if (!stops_early(plan)) return {};
  return invalid(plan.job.place("train.early_stop") +
                 ": needs the whole cluster in one process: meander train");
}

Status train_until_best(Context& context, const Plan& plan, const StartFlags& flags) {
  if (!plan.evaluates || !plan.trains) {
    return invalid(plan.job.place("train.early_stop") +
                   ": needs something to train and something held out to score: data.folds, or a "
                   "test part");
  }
  Storage& storage = *context.storage;
  const std::string& dir = plan.job.spec.checkpoint().dir();
  ASSIGN_OR_RETURN(const Start start, find_start(context, plan, flags));
  std::vector<Scored> epochs;
  const bool is_new = start.restore.empty() || !start.positions;
  RETURN_IF_ERROR(is_new ? storage.remove(state_path(plan)) : read_state(storage, plan, epochs));
  EpochRuns runs(context, plan, start);
  const auto best_dir = [&] {
    return epochs.empty() ? "" : join_path(dir, epochs[best_of(plan, epochs)].generation);
  };

  if (!is_new && !is_over(plan, epochs)) RETURN_IF_ERROR(catch_up(context, plan, runs, epochs));

  std::optional<Outcome> best;
  std::optional<std::uint64_t> before;
  while (!is_over(plan, epochs)) {
    const auto epoch = static_cast<std::uint32_t>(epochs.size() + 1);
    ASSIGN_OR_RETURN(Outcome outcome, runs.train(epoch, best_dir()));
    if (!before) before = outcome.samples_before;
    if (outcome.status.code() == Code::kInterrupted) {
      report_training(context, plan, outcome);
      return outcome.status;
    }
    RETURN_IF_ERROR(outcome.status);
    RETURN_IF_ERROR(score(context, plan, outcome, epochs));
    if (best_of(plan, epochs) + 1 == epochs.size()) best = std::move(outcome);
  }
  RETURN_IF_ERROR(remove_newer(storage, plan, best_dir()));
  if (!best) {
    ASSIGN_OR_RETURN(best, runs.evaluate(best_dir()));
    RETURN_IF_ERROR(best->status);
  }
  const Plan trained = of_epochs(plan, static_cast<std::uint32_t>(epochs.size()));
  ASSIGN_OR_RETURN(best->samples, samples_until(trained, nullptr));
  best->samples_before = before.value_or(best->samples);
  best->seconds = runs.seconds();
  report_training(context, plan, *best);
  report_epochs(context, plan, epochs);
  return {};
}

}  // namespace meander::launch
