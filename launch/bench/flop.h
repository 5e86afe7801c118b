// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "nn/graph.h"

namespace meander::launch::bench {

// Useful floating-point operations of one op's forward pass on rows of this layout: a multiply-add
// of a matrix product counts as two, everything else (activations, sums, look-ups) as nothing. A
// training step counts as three forward passes: forward, gradient of the inputs, of the weights.
//   GRU, LSTM   2 (in + H) per gate column and row
//   AUGRU       the same for each pair of a history row and a candidate
//   attention   first layer E x A once for a key and once for a pair (q * k), its q part once a
//               sample; the second layer and the output once a pair
//   auxiliary   first layer: the state's part once, the behaviour's twice (it and the negative);
//               the second layer and one output column twice; of rows that have a state before them
//   dense       once a sample
// So work that an op does twice, or on padding, does not count.
double forward_flop(const nn::Graph& graph, const nn::Op& op, const nn::Layout& layout);

// Of all ops, times three.
double training_flop(const nn::Graph& graph, const nn::Layout& layout);

}  // namespace meander::launch::bench
