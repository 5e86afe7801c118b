// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "common/check.h"
#include "nn/ops/carve.h"
#include "nn/ops/gcn.h"
#include "nn/ops/nodes.h"

namespace meander::nn {
namespace {

class ClassHeadOp final : public Op {
 public:
  ClassHeadOp(std::string name, TensorId scores, std::int32_t classes, std::int32_t table,
              std::int32_t slot, ClassHead out)
      : name_(std::move(name)),
        scores_(scores),
        classes_(classes),
        table_(table),
        slot_(slot),
        out_(out) {}

  std::string name() const override { return name_; }
  Scope scope() const override { return Scope::kBatch; }
  std::vector<TensorId> inputs() const override { return {scores_}; }
  std::vector<TensorId> outputs() const override { return {out_.logits, out_.ranks}; }
  std::size_t saved_floats(const Layout& layout) const override { return layout.samples(); }
  std::size_t scratch_floats(const Layout&) const override { return classes_; }

  void forward(const OpContext& context) const override {
    find_classes(context);
    const Matrix scores = context.value(scores_), logits = context.value(out_.logits);
    const std::int32_t k = context.layout->candidates;
    for (std::int32_t i = 0; i < logits.rows; ++i) {
      *logits.row(i) = scores.row(i / k)[class_of(context, i)];
    }
    if (!context.training) return rank(context);
    double sum = 0;
    for (std::int32_t g = 0; g < scores.rows; ++g) {
      sum += log_sum(scores.row(g)) - *logits.row(g * k);
    }
    *context.loss += sum / context.layout->batch_groups;
  }

  void backward(const OpContext& context) const override {
    const Matrix scores = context.value(scores_), dscores = context.grad(scores_);
    const Matrix dlogits = context.grad(out_.logits);
    const std::int32_t k = context.layout->candidates;
    const float share = 1.0f / static_cast<float>(context.layout->batch_groups);
    for (std::int32_t i = 0; i < dlogits.rows; ++i) {
      dscores.row(i / k)[class_of(context, i)] += *dlogits.row(i);
    }
    for (std::int32_t g = 0; g < scores.rows; ++g) {
      const double sum = log_sum(scores.row(g));
      for (std::int32_t c = 0; c < classes_; ++c) {
        dscores.row(g)[c] += share * static_cast<float>(std::exp(scores.row(g)[c] - sum));
      }
      dscores.row(g)[class_of(context, g * k)] -= share;
    }
  }

  void emit_onnx(GraphWriter&) const override {
    LOG(FATAL) << name_ << ": classes have no ONNX form";
  }

 private:
  std::uint32_t class_of(const OpContext& context, std::int32_t sample) const {
    return reinterpret_cast<const std::uint32_t*>(context.saved)[sample];
  }

  void find_classes(const OpContext& context) const {
    const Nodes all(context, table_, classes_);
    auto* const class_of_row = reinterpret_cast<std::uint32_t*>(context.scratch);
    auto* const of_sample = reinterpret_cast<std::uint32_t*>(context.saved);
    for (std::int32_t c = 0; c < classes_; ++c) class_of_row[all.row[c]] = c;
    for_target_keys(context, slot_, [&](std::int32_t sample, std::uint32_t key) {
      of_sample[sample] = class_of_row[key];
    });
  }

  // log of the sum of exp, without overflow.
  double log_sum(const float* scores) const {
    const float most = *std::max_element(scores, scores + classes_);
    double sum = 0;
    for (std::int32_t c = 0; c < classes_; ++c) sum += std::exp(double{scores[c]} - most);
    return most + std::log(sum);
  }

  void rank(const OpContext& context) const {
    const Matrix scores = context.value(scores_), ranks = context.value(out_.ranks);
    const std::int32_t k = context.layout->candidates;
    for (std::int32_t g = 0; g < scores.rows; ++g) {
      const float own = scores.row(g)[class_of(context, g * k)];
      std::int32_t better = 0, equal = -1;  // not itself
      for (std::int32_t c = 0; c < classes_; ++c) {
        better += scores.row(g)[c] > own;
        equal += scores.row(g)[c] == own;
      }
      *ranks.row(g) = static_cast<float>(std::isnan(own) ? classes_ - 1 : better + equal / 2);
    }
  }

  std::string name_;
  TensorId scores_;
  std::int32_t classes_, table_, slot_;
  ClassHead out_;
};

}  // namespace

ClassHead class_head(Graph& graph, std::string name, TensorId scores, std::int32_t slot) {
  CHECK(graph.spec(scores).rows == Rows::kGroup) << name;
  const std::int32_t table = graph.slots().at(slot).table;
  for (const bool training : {false, true}) {
    graph.use_catalogue(table, training, Graph::CatalogueUse::kAll);
  }
  const ClassHead out = {graph.tensor(Rows::kSample, 1), graph.tensor(Rows::kGroup, 1, false)};
  graph.add(std::make_unique<ClassHeadOp>(std::move(name), scores, graph.spec(scores).width, table,
                                          slot, out));
  return out;
}

}  // namespace meander::nn
