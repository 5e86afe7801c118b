// SPDX-License-Identifier: Apache-2.0
// Long short-term memory over the behaviours, in two forms.
//
// One layer: its last state stands for the user, beside the target in the head of DIN.
// Two layers: the target follows the history as one more behaviour, the second layer's state after
// it is the verdict: logit = state . w + b, with plain cross-entropy. What comes before the target
// is shared by all candidates of a history.
#include "nn/ops/lstm.h"

#include "models/blocks.h"
#include "models/model.h"
#include "nn/ops/broadcast.h"

namespace meander::models {
namespace {

void one_layer(nn::Graph& graph, const ModelSpec& spec, nn::TensorId target, nn::TensorId history) {
  const nn::LstmOutputs states = nn::lstm(graph, "lstm1", history, spec.hidden);
  const nn::TensorId user = nn::broadcast(graph, "user", states.last);
  click_head(graph, spec, {target, user});
}

void two_layers(nn::Graph& graph, const ModelSpec& spec, nn::TensorId target,
                nn::TensorId history) {
  const nn::LstmOutputs first = nn::lstm(graph, "lstm1", history, spec.hidden, {target});
  const nn::LstmOutputs second = nn::lstm(graph, "lstm2", first.states, spec.hidden, {first.tail});
  const nn::TensorId verdict = sample_of(graph, spec, {second.tail});
  const nn::TensorId logits = nn::dense(graph, "output", verdict, 1);
  graph.set_logits(logits);
  nn::click_loss(graph, "loss", logits, 1.0f);
}

}  // namespace

nn::Graph build_lstm(const ModelSpec& spec) {
  nn::Graph graph(spec.slots, spec.numeric_features);
  const nn::TensorId target = target_of(graph, spec);
  const nn::TensorId history = history_of(graph, spec);
  if (spec.layers == 1) {
    one_layer(graph, spec, target, history);
  } else {
    two_layers(graph, spec, target, history);
  }
  return graph;
}

}  // namespace meander::models
