// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>

#include "nn/graph.h"

namespace meander::nn {

// The logit of a softmax over two columns, of which the first says "clicked":
// out (S, 1) = pair[:, 0] - pair[:, 1], for softmax(pair)[0] = sigmoid(out).
TensorId pair_logit(Graph& graph, std::string name, TensorId pair);

// Adds to the loss `weight` times the binary cross-entropy of the logits (S, 1) against the labels,
// a mean over the samples of the batch. DIN and DIEN take the mean over the two columns of their
// softmax, which is half of that: weight 0.5.
void click_loss(Graph& graph, std::string name, TensorId logits, float weight);

// Adds to the loss `weight` times the binary cross-entropy of the logits (S, 1) of a second task
// against PartInput::second_label, a mean over those samples of the batch whose label is known; 0
// if there is none. At batch scope: how many are known is seen there only.
void second_loss(Graph& graph, std::string name, TensorId logits, float weight);

// What the session's last step says of the second task: a logit for each sample, part after part.
// Empty where the graph has no second task.
std::span<const float> second_logits(const Graph& graph, const Session& session);

// The mean of -log(probability of the label), natural logarithm; 0 of nothing.
double binary_cross_entropy(std::span<const float> logits, std::span<const float> labels);

}  // namespace meander::nn
