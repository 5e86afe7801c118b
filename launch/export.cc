// SPDX-License-Identifier: Apache-2.0
#include "launch/export.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include "common/metrics.h"
#include "export/statistics.h"
#include "launch/forward.h"
#include "launch/node_rows.h"
#include "launch/text.h"
#include "launch/trained.h"
#include "serve/artefact.h"
#include "serve/scorer.h"

namespace meander::launch {
namespace {

// Held-out samples that every export is compared on, if no more are asked for.
constexpr std::uint64_t kSamplesChecked = 2000;
// Training samples that give Dice its moving statistics where the trainer kept none.
constexpr std::uint64_t kStatisticsSamples = 25'600;
// Two float32 sums of another order differ less; a wrong row or weight differs far more.
constexpr double kDifferenceMax = 1e-5;

const char* source_name(data::SlotSource source) {
  switch (source) {
    case data::SlotSource::kItem:
      return "item";
    case data::SlotSource::kCategory:
      return "category";
    case data::SlotSource::kUser:
      return "user";
    case data::SlotSource::kContext:
      return "context";
    case data::SlotSource::kContent:
      return "content";
    case data::SlotSource::kWord:
      return "word";
  }
  return "";
}

Result<std::vector<artefact::Item>> items_of(Storage& storage, const data::PreparedLog& log) {
  ASSIGN_OR_RETURN(const data::Catalog catalog, log.catalog(storage));
  std::vector<artefact::Item> items;
  for (const data::ItemEntry& entry : log.items()) {
    artefact::Item item{entry.item, entry.category, 0, entry.count, "", ""};
    item.category_name = catalog.category_name(entry.category);
    if (const data::Catalog::Entry* named = catalog.find(entry.item)) item.title = named->title;
    items.push_back(std::move(item));
  }
  for (const data::Shard& shard : log.shards()) {
    for (std::size_t e = 0; e < shard.time_ms.size(); ++e) {
      const auto at = std::ranges::lower_bound(items, shard.item[e], {}, &artefact::Item::id);
      CHECK(at != items.end() && at->id == shard.item[e]);
      at->last_ms = std::max(at->last_ms, shard.time_ms[e]);
    }
  }
  return items;
}

// Views of the log's columns: the newest `behaviours` of each user.
std::vector<artefact::UserHistory> histories_of(const data::PreparedLog& log,
                                                std::uint32_t behaviours) {
  std::vector<artefact::UserHistory> histories;
  for (const data::Shard& shard : log.shards()) {
    for (const data::UserEntry& user : shard.users) {
      const std::size_t count = std::min(user.count, behaviours);
      const std::size_t first = user.first + user.count - count;
      const auto newest = [&](const auto& column) {
        return column.empty() ? column : column.subspan(first, count);
      };
      histories.push_back(
          {user.id, newest(shard.item), newest(shard.category), newest(shard.time_ms)});
    }
  }
  std::ranges::sort(histories, {}, [](const artefact::UserHistory& h) {
    return static_cast<std::int64_t>(h.user);
  });
  return histories;
}

class Export {
 public:
  Export(const Context& context, const Plan& plan, const ExportOptions& options)
      : context_(context), storage_(*context.storage), plan_(plan), options_(options) {}
  Result<ExportReport> run();

 private:
  Status read_checkpoint();
  Status make_serving_graph();
  Status serve_node_rows();
  Status take_statistics(artefact::StatisticsObserver& observer);
  Status describe();
  Status score_samples();
  Status check(const std::string& dir);
  // Held-out samples, or training ones where nothing is held out.
  const data::StreamSpec& checked_part() const {
    return plan_.evaluates ? plan_.held_out : plan_.train;
  }

  const Context& context_;
  Storage& storage_;
  const Plan& plan_;
  const ExportOptions& options_;
  std::unique_ptr<nn::Graph> serving_;
  std::vector<float> trained_dense_;  // of the job's graph
  std::vector<artefact::TableRows> trained_tables_;
  artefact::Contents contents_;
  artefact::Samples samples_;
  InlineExecutor executor_;
  ExportReport report_;
};

Result<ExportReport> Export::run() {
  RETURN_IF_ERROR(artefact::check_target(storage_, options_.out));
  RETURN_IF_ERROR(read_checkpoint());
  RETURN_IF_ERROR(make_serving_graph());
  RETURN_IF_ERROR(describe());
  RETURN_IF_ERROR(score_samples());
  if (options_.samples > 0) contents_.samples = &samples_;
  ASSIGN_OR_RETURN(report_.written,
                   artefact::write_export(storage_, contents_, options_.layout, options_.out,
                                          [this](const std::string& dir) { return check(dir); }));
  return report_;
}

Status Export::read_checkpoint() {
  ASSIGN_OR_RETURN(Trained trained, load_trained(storage_, plan_, options_.checkpoint, true));
  report_.generation_dir = trained.checkpoint.restore;
  report_.generation = trained.checkpoint.manifest.generation();
  ASSIGN_OR_RETURN(contents_.description.digest, checkpoint::read_digest(storage_, trained.chain));
  contents_.tables = std::move(trained.tables);
  trained_dense_ = std::move(trained.dense);
  return {};
}

// The job's model with Dice as it shall serve, and its dense vector.
Status Export::make_serving_graph() {
  trained_tables_ = contents_.tables;
  if (models::graph_of(plan_.model.kind) != models::GraphKind::kNone) return serve_node_rows();
  models::ModelSpec& spec = contents_.description.model = plan_.model;
  spec.dice = options_.dice;
  ASSIGN_OR_RETURN(nn::Graph graph, models::build_model(spec));
  serving_ = std::make_unique<nn::Graph>(std::move(graph));
  contents_.graph = serving_.get();
  contents_.dense = artefact::convert_dense(*plan_.graph, trained_dense_, *serving_);
  artefact::StatisticsObserver observer(*plan_.graph, *serving_);
  return observer.has_work() ? take_statistics(observer) : Status();
}

Status Export::serve_node_rows() {
  ASSIGN_OR_RETURN(NodeRows nodes, node_rows(plan_, contents_.tables, trained_dense_));
  contents_.description.model = nodes.model;
  contents_.tables = std::move(nodes.tables);
  ASSIGN_OR_RETURN(nn::Graph graph, models::build_model(nodes.model));
  serving_ = std::make_unique<nn::Graph>(std::move(graph));
  contents_.graph = serving_.get();
  contents_.dense.assign(serving_->dense_size(), 0.0f);
  return {};
}

Status Export::take_statistics(artefact::StatisticsObserver& observer) {
  data::StreamSpec spec = plan_.trains ? plan_.train : checked_part();
  spec.count = 1;
  spec.samples_max = 0;
  spec.epochs = 1;
  spec.auxiliary = false;
  ASSIGN_OR_RETURN(const auto batches, spread_batches(plan_.log, spec, kStatisticsSamples));
  if (batches.empty())
    return invalid("no samples to take Dice's statistics from; use --dice batch");
  Forward forward(*plan_.graph, contents_.tables, plan_.tables, trained_dense_, frozen_rows(plan_));
  for (const data::Batch& batch : batches) {
    forward.run(batch, executor_);
    observer.observe(forward.session());
  }
  observer.write(contents_.dense);
  report_.statistics_batches = observer.batches();
  context_.note("Dice's moving statistics: taken from " + std::to_string(batches.size()) +
                " batches of the training part (the job trains with model.dice: batch)");
  return {};
}

Status Export::describe() {
  artefact::Description& d = contents_.description;
  const job::Job& job = plan_.job.spec;
  d.job = job.name();
  if (serving_->second_logits() != nn::kNoTensor) d.second_label = plan_.log->second_label();
  d.generation = report_.generation;
  for (const data::SlotSpec& slot : plan_.train.slots) {
    d.slot_sources.push_back(source_name(slot.source));
  }
  d.history = plan_.train.history;
  const bool recent = job.data().negatives().kind() == job::Negatives::recent;
  d.candidates = options_.candidates.empty() ? (recent ? "recent" : "all") : options_.candidates;
  if (!plan_.log->has_time()) {
    if (options_.candidates == "recent") {
      return invalid("--candidates recent: the log has no times");
    }
    d.candidates = "all";
  }
  d.recent_ms = plan_.train.negatives.window_ms;
  d.repeats = options_.repeats;
  ASSIGN_OR_RETURN(contents_.items, items_of(storage_, *plan_.log));
  for (const artefact::Item& item : contents_.items)
    d.newest_ms = std::max(d.newest_ms, item.last_ms);
  contents_.histories = histories_of(*plan_.log, options_.behaviours);
  return {};
}

// What the trainer's own forward pass says, with Dice as it serves and as it was trained.
Status Export::score_samples() {
  data::StreamSpec spec = checked_part();
  spec.count = 1;
  spec.auxiliary = false;
  ASSIGN_OR_RETURN(const auto batches,
                   spread_batches(plan_.log, spec, std::max(options_.samples, kSamplesChecked)));
  samples_ = to_samples(batches, *serving_, plan_.content.get());
  Forward serving(*serving_, contents_.tables, plan_.tables, contents_.dense, frozen_rows(plan_));
  Forward trained(*plan_.graph, trained_tables_, plan_.tables, trained_dense_, frozen_rows(plan_));
  ScoreSums serving_scores, trained_scores;
  for (const data::Batch& batch : batches) {
    const std::vector<float> labels = labels_of(batch);
    const auto logits = serving.run(batch, executor_), before = trained.run(batch, executor_);
    // Dice may serve in another form than it was trained in; a node's row may not.
    const auto& expected =
        models::graph_of(plan_.model.kind) == models::GraphKind::kNone ? logits : before;
    samples_.logit.insert(samples_.logit.end(), expected.begin(), expected.end());
    const auto second = serving.second_logits();
    samples_.second_logit.insert(samples_.second_logit.end(), second.begin(), second.end());
    for (std::size_t i = 0; i < labels.size(); ++i) {
      serving_scores.add(logits[i], labels[i] > 0.5f);
      trained_scores.add(before[i], labels[i] > 0.5f);
    }
  }
  report_.samples = samples_.logit.size();
  report_.auc = serving_scores.auc();
  report_.auc_trained = trained_scores.auc();
  return {};
}

// Reads the export back and scores the samples by it.
Status Export::check(const std::string& dir) {
  ASSIGN_OR_RETURN(const auto artefact, serve::Artefact::load(storage_, dir));
  serve::Scorer scorer(artefact);
  const auto score = [](float logit) { return 1 / (1 + std::exp(-static_cast<double>(logit))); };
  std::int64_t first = 0;
  std::vector<float> logits, second;
  const auto compare = [&](std::span<const float> found, const std::vector<float>& all) {
    const float* expected = all.data() + first * samples_.candidates;
    for (std::size_t i = 0; i < found.size(); ++i) {
      const double diff = std::abs(score(found[i]) - score(expected[i]));
      report_.max_abs_diff = std::max(report_.max_abs_diff, std::isnan(diff) ? INFINITY : diff);
    }
  };
  for (const std::int64_t groups : samples_.batches) {
    logits.resize(groups * samples_.candidates);
    second.resize(samples_.second_logit.empty() ? 0 : logits.size());
    scorer.score(samples_, first, groups, executor_, logits, second);
    compare(logits, samples_.logit);
    compare(second, samples_.second_logit);
    first += groups;
  }
  if (report_.max_abs_diff <= kDifferenceMax) return {};
  char difference[32];
  std::snprintf(difference, sizeof difference, "%.3g", report_.max_abs_diff);
  return failed(std::string("the export's scores differ from the trainer's by ") + difference);
}

}  // namespace

Result<ExportReport> export_plan(const Context& context, const Plan& plan,
                                 const ExportOptions& options) {
  return Export(context, plan, options).run();
}

}  // namespace meander::launch
