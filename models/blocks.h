// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "models/model.h"
#include "nn/ops/affine.h"
#include "nn/ops/click.h"
#include "nn/ops/concat.h"
#include "nn/ops/dense.h"
#include "nn/ops/dice.h"
#include "nn/ops/embedding.h"
#include "nn/ops/next_item.h"
#include "nn/ops/numeric.h"
#include "nn/ops/prelu.h"

namespace meander::models {

// What the models of this folder have in common.

// The slots that a behaviour has (item, category), or those that only a sample has (user, context).
inline std::vector<std::int32_t> slots_of(const ModelSpec& spec, bool in_history) {
  std::vector<std::int32_t> slots;
  for (std::size_t i = 0; i < spec.slots.size(); ++i) {
    if (spec.slots[i].in_history == in_history) slots.push_back(static_cast<std::int32_t>(i));
  }
  return slots;
}

// q: the target as a behaviour. kSample.
inline nn::TensorId target_of(nn::Graph& graph, const ModelSpec& spec) {
  return nn::embedding(graph, "target", nn::Source::kTarget, slots_of(spec, true));
}
// h: the behaviours of the history. kHistory, as wide as the target.
inline nn::TensorId history_of(nn::Graph& graph, const ModelSpec& spec) {
  return nn::embedding(graph, "history", nn::Source::kHistory, slots_of(spec, true));
}

// What only a sample has, in front of `columns`, beside each other.
inline nn::TensorId sample_of(nn::Graph& graph, const ModelSpec& spec,
                              std::vector<nn::TensorId> columns) {
  std::vector<nn::TensorId> all;
  const std::vector<std::int32_t> slots = slots_of(spec, false);
  if (!slots.empty()) all.push_back(nn::embedding(graph, "sample", nn::Source::kTarget, slots));
  if (spec.numeric_features > 0) all.push_back(nn::numeric_features(graph, "numeric"));
  all.insert(all.end(), columns.begin(), columns.end());
  return all.size() == 1 ? all[0] : nn::concat(graph, "head/inputs", std::move(all));
}

inline nn::TensorId hidden_layer(nn::Graph& graph, const ModelSpec& spec, const std::string& tower,
                                 const std::string& number, nn::TensorId x, std::int32_t units) {
  const std::string layer = tower + "/dense" + number;
  if (spec.activation == "relu") return nn::dense(graph, layer, x, units, nn::Activation::kRelu);
  x = nn::dense(graph, layer, x, units);
  if (spec.activation == "prelu") return nn::prelu(graph, tower + "/prelu" + number, x);
  return nn::dice(graph, tower + "/dice" + number, x,
                  spec.dice == "moving" ? nn::DiceStatistics::kMoving : nn::DiceStatistics::kBatch);
}

// Scale and shift, the hidden layers of spec.head, and `columns` columns.
inline nn::TensorId tower(nn::Graph& graph, const ModelSpec& spec, const std::string& name,
                          nn::TensorId x, std::int32_t columns) {
  x = nn::fixed_affine(graph, name + "/scale", x);
  for (std::size_t i = 0; i < spec.head.size(); ++i) {
    x = hidden_layer(graph, spec, name, std::to_string(i + 1), x, spec.head[i]);
  }
  return nn::dense(graph, name + "/output", x, columns);
}

// A click's head on its inputs x (kSample), and its loss: a tower of two columns, softmax, mean
// cross-entropy over both columns. With spec.second_weight another tower reads the same, and its
// one column is the logit of the second label.
inline void click_layers(nn::Graph& graph, const ModelSpec& spec, nn::TensorId x) {
  const nn::TensorId pair = tower(graph, spec, "head", x, 2);
  const nn::TensorId logits = nn::pair_logit(graph, "head/logit", pair);
  graph.set_logits(logits);
  nn::click_loss(graph, "loss", logits, 0.5f * spec.click_weight);
  if (spec.second_weight == 0) return;
  const nn::TensorId second = tower(graph, spec, "second", x, 1);
  graph.set_second_logits(second);
  nn::second_loss(graph, "second/loss", second, spec.second_weight);
}

// The head of DIN and DIEN on what only a sample has and `columns` (kSample) beside each other.
inline void click_head(nn::Graph& graph, const ModelSpec& spec, std::vector<nn::TensorId> columns) {
  click_layers(graph, spec, sample_of(graph, spec, std::move(columns)));
}

// The loss of spec.loss on states (kHistory, as wide as the item's row), and at inference the rank
// of the target among all items. Comes last in a graph.
inline void next_loss(nn::Graph& graph, const ModelSpec& spec, nn::TensorId states,
                      nn::TensorId target, std::int32_t item) {
  if (spec.loss == "bce") {
    const auto items = [&](const char* name, nn::Source source) {
      return nn::embedding(graph, name, source, {item});
    };
    nn::next_bce_loss(graph, "loss", states, items("loss/positives", nn::Source::kHistory),
                      items("loss/negatives", nn::Source::kNegative), target);
  } else {
    using Use = nn::Graph::CatalogueUse;
    nn::next_softmax_loss(graph, "loss", states, item,
                          {.catalogue = spec.loss == "sampled" ? Use::kDrawn : Use::kAll});
  }
  nn::rank_target(graph, "rank", states, item);
}

}  // namespace meander::models
