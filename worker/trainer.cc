// SPDX-License-Identifier: Apache-2.0
#include "worker/trainer.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>

#include "common/check.h"
#include "nn/ops/click.h"

namespace meander::worker {
namespace {

void bind_columns(const std::vector<std::vector<std::uint32_t>>& columns,
                  std::vector<std::span<const std::uint32_t>>& spans) {
  spans.assign(columns.begin(), columns.end());
}

std::int32_t groups_of(const data::Batch& batch) {
  std::int32_t groups = 0;
  for (const data::Part& part : batch.parts) groups += part.groups;
  return groups;
}

// Auxiliary negatives that count: valid ones, from the second step on.
std::int32_t negatives_of(const data::Batch& batch) {
  std::ptrdiff_t negatives = 0;
  for (const data::Part& part : batch.parts) {
    if (part.negative_valid.empty()) continue;
    negatives += std::count_if(part.negative_valid.begin() + part.groups, part.negative_valid.end(),
                               [](float valid) { return valid != 0; });
  }
  return static_cast<std::int32_t>(negatives);
}

// Sums side by side: one after another, each would wait for the one before.
double squared_norm(std::span<const float> values) {
  constexpr std::size_t kSums = 16;
  double sums[kSums] = {};
  std::size_t i = 0;
  for (; i + kSums <= values.size(); i += kSums) {
    for (std::size_t s = 0; s < kSums; ++s) sums[s] += double{values[i + s]} * values[i + s];
  }
  for (; i < values.size(); ++i) sums[i % kSums] += double{values[i]} * values[i];
  return std::accumulate(std::begin(sums), std::end(sums), 0.0);
}

}  // namespace

std::span<float> Floats::take(std::size_t size) {
  const std::size_t bytes = size * sizeof(float);
  if (bytes > memory_.size()) memory_ = Buffer::allocate(bytes + bytes / 4);
  floats_ = {reinterpret_cast<float*>(memory_.data()), size};
  return floats_;
}

void bind_part(const data::Batch& batch, const data::Part& part, nn::PartInput& input) {
  input.layout = {.groups = part.groups,
                  .candidates = part.candidates,
                  .lengths = part.lengths,
                  .step_rows = part.step_rows,
                  .step_offset = part.step_offset,
                  .history_rows = 0,
                  .batch_groups = groups_of(batch),
                  .batch_longest = static_cast<std::int32_t>(batch.longest),
                  .batch_negatives = negatives_of(batch)};
  if (!part.step_rows.empty()) {
    input.layout.history_rows = part.step_offset.back() + part.step_rows.back();
  }
  bind_columns(part.target, input.columns[static_cast<int>(nn::Source::kTarget)]);
  bind_columns(part.history, input.columns[static_cast<int>(nn::Source::kHistory)]);
  bind_columns(part.negative, input.columns[static_cast<int>(nn::Source::kNegative)]);
  input.negative_valid = part.negative_valid;
  input.label = part.label;
  input.second_label = part.second_label;
  input.numeric = part.numeric;
  input.age = part.age;
  input.seen = part.seen;
  input.seen_begin = part.seen_begin;
}

void bind_neighbourhood(const data::Neighbourhood& drawn, nn::Neighbourhood& input) {
  const auto view = [](const data::SparseDraw& draw) {
    return nn::SparseRows{draw.begin.data(), draw.column.data(), draw.value.data()};
  };
  input.nodes = drawn.nodes;
  input.users = drawn.users;
  input.items = drawn.items;
  input.hops.clear();
  for (const data::SparseDraw& hop : drawn.hops) input.hops.push_back(view(hop));
  input.inputs.clear();
  for (const data::SparseDraw& draw : drawn.inputs) {
    input.inputs.push_back(draw.begin.size() > 1 ? view(draw) : nn::SparseRows{});
  }
}

void add_scores(const Step& step, ScoreSums& scores) {
  const float* logit = step.logits.get().data();
  for (const data::Part& part : step.batch.parts) {
    for (float label : part.label) scores.add(*logit++, label > 0.5f);
  }
}

void add_second_scores(const Step& step, ScoreSums& scores) {
  if (step.second_logits.get().empty()) return;
  const float* logit = step.second_logits.get().data();
  for (const data::Part& part : step.batch.parts) {
    for (const float label : part.second_label) {
      if (!std::isnan(label)) scores.add(*logit, label > 0.5f);
      ++logit;
    }
  }
}

namespace {

// How many negatives score above candidate 0, those with its score by half, and how many there are.
struct Place {
  double above = 0;
  std::int32_t negatives = 0;
};
Place place_of(std::span<const float> logits) {
  Place place{.negatives = static_cast<std::int32_t>(logits.size()) - 1};
  for (const float logit : logits.subspan(1)) {
    place.above += logit > logits[0] ? 1.0 : logit == logits[0] ? 0.5 : 0.0;
  }
  return place;
}

}  // namespace

void add_ranks(const Step& step, Accumulator& sums) {
  const float* logits = step.logits.get().data();
  const float* ranks = step.ranks.get().empty() ? nullptr : step.ranks.get().data();
  std::size_t groups = 0;
  for (const data::Part& part : step.batch.parts) {
    const auto k = static_cast<std::size_t>(part.candidates);
    for (std::int32_t g = 0; g < part.groups; ++g, logits += k) {
      const Place place = place_of({logits, k});
      const bool by_catalogue = place.negatives == 0 && ranks != nullptr;
      const double rank = by_catalogue ? ranks[groups] : std::floor(place.above);
      ++groups;
      const std::uint32_t user_targets = part.user_targets.empty() ? 1 : part.user_targets[g];
      const bool is_cold = !part.is_cold.empty() && part.is_cold[g] != 0;
      const Segment segments[] = {is_cold ? Segment::kCold : Segment::kWarm,
                                  segment_of_history(static_cast<std::uint32_t>(part.lengths[g]))};
      const auto add = [&](RankSums& to) {
        to.add(rank, user_targets);
        if (place.negatives > 0) to.add_group_auc(1 - place.above / place.negatives);
      };
      add(sums.ranks);
      for (const Segment segment : segments) {
        Accumulator::Part& of = sums.segments[static_cast<std::size_t>(segment)];
        add(of.ranks);
        for (std::size_t i = 0; i < k; ++i) of.scores.add(logits[i], i == 0);
      }
    }
  }
}

void add_curve(const Step& step, Accumulator& sums) {
  const float* logits = step.logits.get().data();
  constexpr auto kLast = Accumulator::kCurve - 1;
  const auto at = static_cast<std::size_t>(step.batch.progress * Accumulator::kCurve);
  Accumulator::Point& point = sums.curve[std::min(at, kLast)];
  for (const data::Part& part : step.batch.parts) {
    const auto k = static_cast<std::size_t>(part.candidates);
    if (k < 2) return;
    for (std::int32_t g = 0; g < part.groups; ++g, logits += k) {
      const Place place = place_of({logits, k});
      ++point.targets;
      point.group_auc += 1 - place.above / place.negatives;
    }
  }
}

Trainer::Trainer(const nn::Graph& graph, std::uint32_t dense_block, float clip_norm,
                 Collective* collective, nn::Precision precision,
                 std::vector<nn::ConstMatrix> frozen)
    : graph_(graph),
      clip_norm_(clip_norm),
      collective_(collective),
      frozen_(std::move(frozen)),
      dense_(dense_tables(graph, dense_block)),
      session_(graph, precision) {
  for (std::int32_t t = 0; t < graph.tables(); ++t) {
    if (!graph.is_frozen(t)) continue;
    CHECK_LT(static_cast<std::size_t>(t), frozen_.size()) << "frozen rows are missing";
    CHECK_EQ(frozen_[t].cols, graph.table_width(t));
  }
}

std::vector<std::uint32_t> Trainer::widths() const {
  std::vector<std::uint32_t> widths;
  for (std::int32_t t = 0; t < graph_.tables(); ++t) widths.push_back(graph_.table_width(t));
  for (const DenseBlocks& table : dense_) widths.push_back(table.block());
  return widths;
}

void Trainer::set_partitions(const PartitionMap& partitions) {
  dense_keys_.clear();
  for (DenseBlocks& table : dense_) {
    table.group(partitions);
    dense_keys_.push_back(Buffer::own(table.keys()));
  }
}

bool Trainer::has_work(const Step& step) const {
  return !step.empty() || (collective_ != nullptr && !step.read_only);
}

// Does it pull and push the dense vector?
bool Trainer::moves_dense(const Step& step) const {
  if (collective_ == nullptr || step.read_only) return !step.empty();
  return step.id.stream == 0;
}

void Trainer::keys(const std::shared_ptr<Step>& step, std::vector<Buffer>& all) const {
  all.assign(graph_.tables() + dense_.size(), Buffer());
  if (!step->empty()) {
    CHECK_EQ(step->batch.keys.size(), static_cast<std::size_t>(graph_.tables()));
    for (std::int32_t t = 0; t < graph_.tables(); ++t) {
      const std::vector<std::uint64_t>& keys = step->batch.keys[t];
      all[t] = Buffer::view(keys.data(), keys.size() * sizeof(std::uint64_t), step);
    }
  }
  if (moves_dense(*step)) std::ranges::copy(dense_keys_, all.begin() + graph_.tables());
}

void Trainer::gradients(const std::shared_ptr<Step>& step, std::vector<Buffer>& all) const {
  all.assign(graph_.tables() + dense_.size(), Buffer());
  const std::size_t first = step->empty() ? graph_.tables() : 0;
  const std::size_t end = moves_dense(*step) ? all.size() : graph_.tables();
  for (std::size_t t = first; t < end; ++t) {
    const std::span<float> values = step->gradients[t].get();
    all[t] = Buffer::view(values.data(), values.size_bytes(), step);
  }
}

void Trainer::bind(Step& step) {
  const data::Batch& batch = step.batch;
  parts_used_ = batch.parts.size();
  if (parts_.size() < parts_used_) parts_.resize(parts_used_);
  for (std::size_t p = 0; p < parts_used_; ++p) bind_part(batch, batch.parts[p], parts_[p]);
  tables_.clear();
  for (std::int32_t t = 0; t < graph_.tables(); ++t) {
    if (graph_.is_frozen(t)) {
      CHECK(batch.keys[t].empty()) << "nobody has keys of frozen rows";
      tables_.push_back(frozen_[t]);
      continue;
    }
    const std::int32_t width = graph_.table_width(t);
    const std::span<const float> rows = step.rows[t].as<float>();
    CHECK_EQ(rows.size(), batch.keys[t].size() * width);
    tables_.push_back({rows.data(), static_cast<std::int32_t>(batch.keys[t].size()), width, width});
  }
  catalogues_.clear();
  for (const data::Catalogue& catalogue : batch.catalogues) {
    catalogues_.push_back({catalogue.rows, catalogue.log_expected});
  }
  bind_neighbourhood(batch.neighbourhood, neighbourhood_);
  step.logits.take(batch.samples);
}

nn::StepInput Trainer::input_of(const Step& step) const {
  return {.parts = {parts_.data(), parts_used_},
          .tables = tables_,
          .dense = step.dense.get(),
          .catalogues = catalogues_,
          .seed = step.batch.seed,
          .neighbourhood = neighbourhood_.nodes.empty() ? nullptr : &neighbourhood_};
}

// The dense vector as the lanes have it, by way of whoever pulls it.
Status Trainer::gather_dense(Step& step) {
  const std::span<float> dense = step.dense.take(graph_.dense_size());
  if (moves_dense(step)) {
    for (std::size_t d = 0; d < dense_.size(); ++d) {
      dense_[d].gather(step.rows[graph_.tables() + d].as<float>(), dense);
    }
  } else {
    std::ranges::fill(dense, 0.0f);
  }
  return collective_ == nullptr || step.read_only ? Status() : collective_->sum(dense);
}

void Trainer::keep_second_logits(Step& step) const {
  const std::span<const float> logits = nn::second_logits(graph_, session_);
  std::ranges::copy(logits, step.second_logits.take(logits.size()).begin());
}

void Trainer::bind_gradients(Step& step) {
  dtables_.clear();
  for (std::int32_t t = 0; t < graph_.tables(); ++t) {
    const std::int32_t rows = graph_.is_frozen(t) ? 0 : tables_[t].rows, width = tables_[t].cols;
    float* drows = step.gradients[t].take(static_cast<std::size_t>(rows) * width).data();
    dtables_.push_back({drows, rows, width, width});
  }
}

void Trainer::clip(std::span<float> ddense) const {
  if (clip_norm_ <= 0) return;
  const std::span<float> trained = ddense.first(graph_.dense_trained());
  const double norm = std::sqrt(squared_norm(trained));
  if (norm <= clip_norm_) return;
  const auto scale = static_cast<float>(clip_norm_ / norm);
  for (float& value : trained) value *= scale;
}

// The mean over the workers whose step holds samples.
Status Trainer::average(std::span<float> ddense_and_count) const {
  if (collective_ == nullptr) return {};
  RETURN_IF_ERROR(collective_->sum(ddense_and_count));
  const float count = ddense_and_count.back();
  if (count == 0) return {};
  for (float& value : ddense_and_count) value /= count;
  return {};
}

Status Trainer::train(Step& step, Executor& executor) {
  RETURN_IF_ERROR(gather_dense(step));
  step.gradients.resize(graph_.tables() + dense_.size());
  const std::span<float> ddense_and_count = step.ddense.take(graph_.dense_size() + 1);
  const std::span<float> ddense = ddense_and_count.first(graph_.dense_size());
  if (step.empty()) {
    std::ranges::fill(ddense_and_count, 0.0f);
  } else {
    bind(step);
    bind_gradients(step);
    nn::StepOutput output{.dtables = dtables_, .ddense = ddense, .logits = step.logits.get()};
    session_.train(input_of(step), executor, output);
    step.loss = output.loss;
    keep_second_logits(step);
    ddense_and_count.back() = 1.0f;
  }
  RETURN_IF_ERROR(average(ddense_and_count));
  if (!moves_dense(step)) return {};
  clip(ddense);
  for (std::size_t d = 0; d < dense_.size(); ++d) {
    const DenseBlocks& table = dense_[d];
    table.scatter(ddense, step.gradients[graph_.tables() + d].take(table.blocks() * table.block()));
  }
  return {};
}

void Trainer::infer(Step& step, Executor& executor) {
  CHECK(gather_dense(step).ok());  // nothing is asked of others here
  bind(step);
  const bool has_ranks = graph_.ranks() != nn::kNoTensor;
  const std::span<float> ranks = step.ranks.take(has_ranks ? groups_of(step.batch) : 0);
  session_.infer(input_of(step), executor, step.logits.get(), ranks);
  keep_second_logits(step);
}

}  // namespace meander::worker
