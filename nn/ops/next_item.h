// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "nn/graph.h"

namespace meander::nn {

// Heads and losses of models that predict the next item. A group is the sequence s_1 ... s_n of one
// user: its history is s_1 ... s_{n-1}, its first candidate s_n. The state at a behaviour predicts
// the behaviour that follows; the state at the last one predicts the first candidate. d is the
// width of a state and of an item's vector; a score is the dot product of the two.

// Logits (kSample, 1): the last state of the group . candidate.
// states: kHistory d, of which the last row of each group counts, or kGroup d. candidates: kSample
// d, the vectors of the target slot.
TensorId score_candidates(Graph& graph, std::string name, TensorId states, TensorId candidates);

// One negative for each position:
//   -log sigmoid(s . positive) - log(1 - sigmoid(s . negative))
// summed over the positions of the batch and divided by their number. A position whose negative is
// not valid (PartInput.negative_valid) does not count. In training there are at least two
// candidates: the second is the negative of the first.
// states, history, negatives: kHistory d; row t of the latter two holds the behaviour at t and what
// was drawn in its place (Source::kNegative). candidates: kSample d. Nothing at inference.
// Source: Kang and McAuley, "Self-Attentive Sequential Recommendation", ICDM 2018
// (arXiv:1808.09781), without the 1e-24 that its code adds within the logarithms.
void next_bce_loss(Graph& graph, std::string name, TensorId states, TensorId history,
                   TensorId negatives, TensorId candidates);

struct NextSoftmaxOptions {
  // kAll: the softmax runs over every item of the slot's table. kDrawn: over the positive and the
  // items drawn for the batch, each weighted by 1 / (how often it was to be expected among them),
  // an unbiased estimate of the sum over all; a drawn item that is the position's positive is left
  // out.
  Graph::CatalogueUse catalogue = Graph::CatalogueUse::kAll;
  bool last_only = false;  // only the last state of each group predicts
};

// -log softmax(s . item)[positive], mean over the positions of the batch. Works on the whole batch
// (Scope::kBatch), so ops on one part come before it. Rows of the table that hold the items are
// read and given their gradients directly. Nothing at inference. states: kHistory d, or kGroup d
// (last states). slot: a history slot whose table is d wide. The logits are never whole in memory:
// they are made in tiles, twice.
void next_softmax_loss(Graph& graph, std::string name, TensorId states, std::int32_t slot,
                       NextSoftmaxOptions options = {});

// kGroup of width 1, at inference: how many items of the slot's table score better than the group's
// first candidate; of those that score the same, half (rounded down). Left out are the items in
// PartInput.seen of the group, and the candidate itself. Declares itself as the graph's ranks.
// Works on the whole batch. Without a catalogue (serving) it does nothing; it has no ONNX form.
// states: kHistory d or kGroup d. A candidate whose score is not a number comes last.
TensorId rank_target(Graph& graph, std::string name, TensorId states, std::int32_t slot);

}  // namespace meander::nn
