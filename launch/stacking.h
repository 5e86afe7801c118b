// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

#include "common/status.h"

namespace meander::launch {

// A logit made of several models' logits: sum of weights[m] * logits[m] + bias.
struct Stack {
  std::vector<double> weights;
  double bias = 0;

  // The mean of the members' logits: what a fit starts at, and is not worse than where it was made.
  static Stack mean(std::size_t members);
  // `logits`: of each member, for the same samples.
  std::vector<float> apply(std::span<const std::vector<float>> logits) const;
};

// Logistic regression on the members' logits by Newton's method (iteratively reweighted least
// squares), held towards the mean so lightly that it only decides between members that are alike.
// kInvalid: labels of one class only, a logit that is not finite.
Result<Stack> fit_stack(std::span<const std::vector<float>> logits, std::span<const float> labels);

}  // namespace meander::launch
