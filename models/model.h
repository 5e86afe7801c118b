// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/status.h"
#include "nn/graph.h"

namespace meander::nn {
struct SparseMatrix;
}

namespace meander::models {

// Everything a model may be told. A field that a model does not use is left alone by it.
struct ModelSpec {
  std::string kind;                   // "dnn", "lstm", "din", "dien", ...: a file of this folder
  std::vector<nn::SlotSpec> slots;    // history slots first; content is a frozen one
  std::int32_t numeric_features = 0;  // F
  std::int32_t hidden = 36;           // recurrent state
  std::int32_t layers = 1;            // recurrent ones; of a graph: steps that a node sees
  std::vector<std::int32_t> attention = {80, 40};  // hidden layers: two
  std::vector<std::int32_t> head = {200, 80};
  std::string activation = "dice";  // of the head: dice, prelu, relu
  // Dice takes its mean and variance from the batch, also at inference ("batch", as published) or,
  // at inference, from a moving mean ("moving": a score does not depend on who shares the batch).
  std::string dice = "batch";
  float auxiliary_weight = 1.0f;          // 0: no auxiliary loss
  std::string auxiliary_mean = "padded";  // divide by B*(T-1), or by "real" positions
  std::string evolution = "augru";        // of DIEN: augru, aigru, agru
  std::string cell = "gru";               // of the recurrent models of the next item: gru, lstm
  // Of the models of the next item: bce (one negative a position), softmax (over every item),
  // sampled (over items drawn for the batch).
  std::string loss = "softmax";
  // Of the click head: what its loss counts, and that of a second head for the second label of the
  // log, a mean over samples where it is known; 0: no second head.
  float click_weight = 1, second_weight = 0;
  float l2 = 0;                 // of matrix factorisation: of a sample's rows, in the loss
  float dropout = 0;            // share of values set to 0 in training
  std::int32_t blocks = 2;      // of a transformer encoder
  std::int32_t heads = 1;       // of its attention; divides the width
  std::int32_t positions = 50;  // behaviours of the longest history
  // How an interest decays: u = sum of exp(-rate * age) * behaviour. The rate is fixed, learned, or
  // learned for each user or category.
  std::string decay = "fixed";
  float half_life_h = 72;  // of the fixed rate, and where learned ones start
  // Of those that draw neighbours: how many at most of a target, of each of these, ...
  std::vector<std::int32_t> fanout = {10, 10};
  // Of the models of a whole graph (graph_of()), normalised: (users, items) or (users, users), by
  // id.
  std::shared_ptr<const nn::SparseMatrix> adjacency;
  // Of those of nodes, which are users: (users, words), and how many items, which are their
  // classes; 0: users and items are nodes.
  std::shared_ptr<const nn::SparseMatrix> features;
  std::int32_t classes = 0;
};

// What the models of a kind need of a graph: nothing; in ModelSpec::adjacency who took what, or
// which nodes are linked; or in every batch what was drawn of either.
enum class GraphKind { kNone, kUsersAndItems, kNodes, kDrawn };
GraphKind graph_of(const std::string& kind);

// The names of all models, sorted.
std::vector<std::string> model_kinds();

// Builds the graph of spec.kind. kInvalid: unknown kind (with the nearest name), or a field out of
// range for it. Each models/<kind>.cc defines `nn::Graph build_<kind>(const ModelSpec&)`; the build
// writes the list, so adding a file adds a model.
Result<nn::Graph> build_model(const ModelSpec& spec);

}  // namespace meander::models
