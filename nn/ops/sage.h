// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "nn/graph.h"
#include "nn/neighbourhood.h"

namespace meander::nn {

struct SageOptions {
  std::int32_t layers = 2;   // hops that the step's neighbourhood has
  std::int32_t hidden = 16;  // width of all layers but the last
  std::int32_t out = 2;      // width of the last
  float dropout = 0;         // of a node's rows, and of the values of hidden layers
  // Rows of a node are already what the first layer makes of them, [own half; neighbours' half] of
  // `hidden` columns each: the table is the layer's W, a row for each word that a node may have,
  // and a step pulls the rows of words that it drew. False: W is dense, rows are vectors.
  bool rows_are_weights = false;
};

struct Sage {
  TensorId users;  // (G, out)
  TensorId items;  // (S, out); kNoTensor where only groups have a node
};

// GraphSAGE with means: what a node takes from the neighbours that were drawn for the batch. With
// N(v) those of v, each by its share,
//
//   h_v = the rows of the tables that describe v, added up by their weights
//   h_v <- act(W [h_v; sum of share h_u, u in N(v)] + b)    a layer, for the targets the last one
//
// act is ReLU, of the last layer nothing. Layer l is made for the nodes that are at most layers - l
// hops from a target, of StepInput::neighbourhood: a step holds the rows of those that were drawn
// and no others. All described tables have one width. Works on the whole batch. No ONNX form: what
// serves is h of each target.
// Source: Hamilton, Ying and Leskovec, "Inductive Representation Learning on Large Graphs", NeurIPS
// 2017 (arXiv:1706.02216), algorithm 2. Not taken over: vectors are not brought to length 1 between
// layers; and drawn neighbours differ from each other where there are enough.
Sage sage(Graph& graph, std::string name, std::int32_t width, bool has_items, SageOptions options);

}  // namespace meander::nn
