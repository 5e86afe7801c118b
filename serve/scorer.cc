// SPDX-License-Identifier: Apache-2.0
#include "serve/scorer.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "nn/ops/click.h"

namespace meander::serve {

Scorer::Scorer(std::shared_ptr<const Artefact> artefact)
    : artefact_(std::move(artefact)), session_(artefact_->graph()) {}

void Scorer::pack(const artefact::Samples& samples, std::int64_t first, std::int64_t groups) {
  const auto& slots = artefact_->graph().slots();
  const std::int64_t k = samples.candidates;
  order_.resize(groups);
  std::iota(order_.begin(), order_.end(), first);
  std::ranges::stable_sort(order_, std::greater(),
                           [&](std::int64_t g) { return samples.history_length[g]; });
  lengths_.clear();
  for (std::int64_t g : order_) {
    lengths_.push_back(static_cast<std::int32_t>(samples.history_length[g]));
  }
  step_rows_.clear();
  step_offset_.clear();
  std::int32_t rows = 0;
  for (std::int32_t t = 0; t < lengths_.front(); ++t) {
    const auto active = std::ranges::lower_bound(lengths_, t, std::greater()) - lengths_.begin();
    step_rows_.push_back(static_cast<std::int32_t>(active));
    step_offset_.push_back(std::exchange(rows, rows + static_cast<std::int32_t>(active)));
  }
  target_.resize(slots.size());
  history_.resize(slots.size());
  for (std::size_t s = 0; s < slots.size(); ++s) {
    const Artefact::Table& table = artefact_->tables()[slots[s].table];
    target_[s].clear();
    history_[s].clear();
    for (std::int64_t g : order_) {
      for (std::int64_t c = 0; c < k; ++c) {
        target_[s].push_back(table.row_of(samples.target[s][g * k + c]));
      }
    }
    if (!slots[s].in_history) continue;
    for (std::size_t t = 0; t < step_rows_.size(); ++t) {
      for (std::int32_t i = 0; i < step_rows_[t]; ++i) {
        const std::int64_t at = order_[i] * samples.steps + static_cast<std::int64_t>(t);
        history_[s].push_back(table.row_of(samples.history[s][at]));
      }
    }
  }
  age_.clear();
  for (std::size_t t = 0; !samples.history_age.empty() && t < step_rows_.size(); ++t) {
    for (std::int32_t i = 0; i < step_rows_[t]; ++i) {
      age_.push_back(samples.history_age[order_[i] * samples.steps + static_cast<std::int64_t>(t)]);
    }
  }
  numeric_.clear();
  const std::int64_t features = artefact_->graph().numeric_features();
  for (std::int64_t g : order_) {
    const float* from = samples.numeric.data() + g * k * features;
    numeric_.insert(numeric_.end(), from, from + k * features);
  }
}

void Scorer::score(const artefact::Samples& samples, std::int64_t first, std::int64_t groups,
                   Executor& executor, std::span<float> logits, std::span<float> second) {
  const std::int64_t k = samples.candidates;
  CHECK_GT(groups, 0);
  CHECK_LE(first + groups, samples.groups);
  CHECK_EQ(logits.size(), static_cast<std::size_t>(groups * k));
  pack(samples, first, groups);
  first_ = first;

  nn::PartInput part;
  part.layout.groups = part.layout.batch_groups = static_cast<std::int32_t>(groups);
  part.layout.candidates = static_cast<std::int32_t>(k);
  part.layout.lengths = lengths_;
  part.layout.step_rows = step_rows_;
  part.layout.step_offset = step_offset_;
  if (!step_rows_.empty()) {
    part.layout.history_rows = step_offset_.back() + step_rows_.back();
  }
  part.layout.batch_longest = lengths_.front();
  for (const auto& column : target_) {
    part.columns[static_cast<int>(nn::Source::kTarget)].push_back(column);
  }
  for (const auto& column : history_) {
    part.columns[static_cast<int>(nn::Source::kHistory)].push_back(column);
  }
  part.numeric = numeric_;
  part.age = age_;

  logits_.resize(logits.size());
  session_.infer({{&part, 1}, artefact_->table_rows(), artefact_->dense()}, executor, logits_);
  const auto in_order = [&](std::span<const float> from, std::span<float> to) {
    CHECK_EQ(from.size(), to.size());
    for (std::int64_t i = 0; i < groups; ++i) {
      std::copy_n(&from[i * k], k, &to[(order_[i] - first) * k]);
    }
  };
  in_order(logits_, logits);
  if (!second.empty()) in_order(nn::second_logits(artefact_->graph(), session_), second);
}

void Scorer::last(nn::TensorId groups, std::span<float> out) const {
  const nn::ConstMatrix rows = session_.value(groups, 0);
  CHECK_EQ(static_cast<std::size_t>(rows.rows), order_.size());
  CHECK_EQ(out.size(), order_.size() * rows.cols);
  for (std::int32_t i = 0; i < rows.rows; ++i) {
    std::copy_n(rows.row(i), rows.cols, &out[(order_[i] - first_) * rows.cols]);
  }
}

}  // namespace meander::serve
