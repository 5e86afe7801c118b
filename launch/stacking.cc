// SPDX-License-Identifier: Apache-2.0
#include "launch/stacking.h"

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <algorithm>
#include <cmath>

#include "common/check.h"

namespace meander::launch {
namespace {

using Eigen::Index;
using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr double kRidge = 1e-6;       // beside curvatures of some 0.1
constexpr double kStepMin = 1e-9;     // of a weight
constexpr int kStepsMax = 100;        // a handful does
constexpr double kShrinkMin = 1e-10;  // of a step that does not pay

// Mean log loss of sigmoid(rows * w), and the ridge around `start`.
class Objective {
 public:
  Objective(MatrixXd rows, VectorXd labels, VectorXd start)
      : rows_(std::move(rows)), labels_(std::move(labels)), start_(std::move(start)) {}

  double value(const VectorXd& w) const {
    const Eigen::ArrayXd x = (rows_ * w).array();
    const auto losses = x.max(0) - x * labels_.array() + (-x.abs()).exp().log1p();
    return losses.mean() + kRidge / 2 * (w - start_).squaredNorm();
  }

  VectorXd newton_step(const VectorXd& w) const {
    const Eigen::ArrayXd p = 1 / (1 + (-(rows_ * w).array()).exp());
    const auto n = static_cast<double>(rows_.rows());
    const VectorXd gradient =
        rows_.transpose() * (p - labels_.array()).matrix() / n + kRidge * (w - start_);
    MatrixXd hessian = rows_.transpose() * (p * (1 - p)).matrix().asDiagonal() * rows_ / n;
    hessian.diagonal().array() += kRidge;
    return -hessian.ldlt().solve(gradient);
  }

 private:
  const MatrixXd rows_;
  const VectorXd labels_, start_;
};

VectorXd minimise(const Objective& objective, VectorXd w) {
  double value = objective.value(w);
  for (int i = 0; i < kStepsMax; ++i) {
    VectorXd step = objective.newton_step(w);
    while (!(objective.value(w + step) <= value) && step.cwiseAbs().maxCoeff() > kShrinkMin) {
      step /= 2;
    }
    if (!(objective.value(w + step) <= value)) break;
    w += step;
    value = objective.value(w);
    if (step.cwiseAbs().maxCoeff() < kStepMin) break;
  }
  return w;
}

}  // namespace

Stack Stack::mean(std::size_t members) {
  return {std::vector<double>(members, 1.0 / static_cast<double>(members)), 0};
}

std::vector<float> Stack::apply(std::span<const std::vector<float>> logits) const {
  CHECK_EQ(logits.size(), weights.size());
  std::vector<float> result(logits[0].size());
  for (std::size_t i = 0; i < result.size(); ++i) {
    double sum = bias;
    for (std::size_t m = 0; m < weights.size(); ++m) sum += weights[m] * logits[m][i];
    result[i] = static_cast<float>(sum);
  }
  return result;
}

Result<Stack> fit_stack(std::span<const std::vector<float>> logits, std::span<const float> labels) {
  const auto members = static_cast<Index>(logits.size()), n = static_cast<Index>(labels.size());
  const auto positives = std::ranges::count_if(labels, [](float label) { return label > 0.5f; });
  if (positives == 0 || positives == n) {
    return invalid("a stack is fitted on samples of both labels, and there is only one");
  }
  MatrixXd rows(n, members + 1);
  for (Index m = 0; m < members; ++m) {
    CHECK_EQ(logits[m].size(), labels.size());
    rows.col(m) = Eigen::Map<const Eigen::VectorXf>(logits[m].data(), n).cast<double>();
  }
  rows.col(members).setOnes();
  if (!rows.allFinite()) return invalid("a member scores a sample with what is not finite");
  VectorXd start = VectorXd::Constant(members + 1, 1.0 / static_cast<double>(members));
  start[members] = 0;
  const VectorXd y = Eigen::Map<const Eigen::VectorXf>(labels.data(), n).cast<double>();
  const VectorXd w = minimise(Objective(std::move(rows), y, start), start);
  return Stack{{w.begin(), w.begin() + members}, w[members]};
}

}  // namespace meander::launch
