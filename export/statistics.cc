// SPDX-License-Identifier: Apache-2.0
#include "export/statistics.h"

#include <algorithm>
#include <string>

namespace meander::artefact {
namespace {

const nn::ParamSpec* find_param(const nn::Graph& graph, const std::string& name) {
  const auto at = std::ranges::find(graph.params(), name, &nn::ParamSpec::name);
  return at == graph.params().end() ? nullptr : &*at;
}

}  // namespace

std::vector<float> convert_dense(const nn::Graph& from, std::span<const float> dense,
                                 const nn::Graph& to) {
  CHECK_EQ(dense.size(), from.dense_size());
  std::vector<float> converted = to.initial_dense(0);
  for (const nn::ParamSpec& p : to.params()) {
    const nn::ParamSpec* source = find_param(from, p.name);
    if (source == nullptr) continue;
    CHECK(source->rows == p.rows && source->cols == p.cols) << p.name;
    std::copy_n(&dense[source->offset], static_cast<std::size_t>(p.rows) * p.cols,
                &converted[p.offset]);
  }
  return converted;
}

StatisticsObserver::StatisticsObserver(const nn::Graph& trained, const nn::Graph& serving) {
  for (const auto& op : trained.ops()) {
    const nn::ParamSpec* mean = find_param(serving, op->name() + "/mean");
    const nn::ParamSpec* variance = find_param(serving, op->name() + "/variance");
    if (mean == nullptr || variance == nullptr || find_param(trained, mean->name)) continue;
    CHECK(mean->is_statistic && variance->is_statistic) << op->name();
    const nn::TensorId input = op->inputs().at(0);
    const std::int32_t width = trained.spec(input).width;
    CHECK_EQ(mean->rows * mean->cols, width) << op->name();
    observed_.push_back({input, mean->offset, variance->offset, std::vector<double>(width),
                         std::vector<double>(width)});
  }
}

void StatisticsObserver::observe(const nn::Session& session) {
  for (Observed& o : observed_) {
    const nn::ConstMatrix x = session.value(o.input, 0);  // at batch scope: the rows of all parts
    for (std::int32_t c = 0; c < x.cols; ++c) {
      double sum = 0, squares = 0;
      for (std::int32_t r = 0; r < x.rows; ++r) sum += x.row(r)[c];
      const double mean = sum / x.rows;
      for (std::int32_t r = 0; r < x.rows; ++r)
        squares += (x.row(r)[c] - mean) * (x.row(r)[c] - mean);
      o.mean[c] += mean;
      o.variance[c] += squares / x.rows;
    }
  }
  ++batches_;
}

void StatisticsObserver::write(std::span<float> dense) const {
  CHECK_GT(batches_, 0u);
  const auto n = static_cast<double>(batches_);
  for (const Observed& o : observed_) {
    for (std::size_t c = 0; c < o.mean.size(); ++c) {
      dense[o.mean_at + c] = static_cast<float>(o.mean[c] / n);
      dense[o.variance_at + c] = static_cast<float>(o.variance[c] / n);
    }
  }
}

}  // namespace meander::artefact
