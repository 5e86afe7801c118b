// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "common/check.h"
#include "nn/ops/light_gcn.h"

namespace meander::nn {
namespace {

class BprLoss final : public Op {
 public:
  BprLoss(std::string name, Scope scope, TensorId logits)
      : name_(std::move(name)), scope_(scope), logits_(logits) {}

  std::string name() const override { return name_; }
  Scope scope() const override { return scope_; }
  std::vector<TensorId> inputs() const override { return {logits_}; }
  std::vector<TensorId> outputs() const override { return {}; }

  void forward(const OpContext& context) const override {
    if (!context.training) return;
    double sum = 0;
    for_pairs(context, [&](std::int32_t, std::int32_t, double difference) {
      sum += std::max(difference, 0.0) + std::log1p(std::exp(-std::abs(difference)));
    });
    *context.loss += sum * share(context);
  }

  void backward(const OpContext& context) const override {
    const Matrix dlogits = context.grad(logits_);
    const double scale = share(context);
    for_pairs(context, [&](std::int32_t positive, std::int32_t negative, double difference) {
      const auto d = static_cast<float>(scale / (1 + std::exp(-difference)));
      *dlogits.row(negative) += d;
      *dlogits.row(positive) -= d;
    });
  }

  void emit_onnx(GraphWriter&) const override {}

 private:
  // body(row of the positive, row of a negative, logit of the latter minus that of the former).
  template <class Body>
  void for_pairs(const OpContext& context, Body body) const {
    const Matrix logits = context.value(logits_);
    const std::int32_t k = context.layout->candidates;
    CHECK_GE(k, 2) << name_ << ": a pair needs a negative";
    for (std::int32_t g = 0; g < context.layout->groups; ++g) {
      for (std::int32_t c = 1; c < k; ++c) {
        body(g * k, g * k + c, double{*logits.row(g * k + c)} - *logits.row(g * k));
      }
    }
  }
  // Of one pair in the mean of the batch.
  static double share(const OpContext& context) {
    return 1.0 / context.layout->batch_groups / (context.layout->candidates - 1);
  }

  std::string name_;
  Scope scope_;
  TensorId logits_;
};

}  // namespace

void bpr_loss(Graph& graph, std::string name, TensorId logits) {
  CHECK(graph.spec(logits).rows == Rows::kSample && graph.spec(logits).width == 1) << name;
  graph.add(std::make_unique<BprLoss>(std::move(name), graph.scope(), logits));
}

}  // namespace meander::nn
