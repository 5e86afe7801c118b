// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "nn/graph.h"
#include "nn/sparse.h"

namespace meander::nn {

struct GcnOptions {
  std::int32_t hidden = 16, classes = 2;
  float dropout = 0.5f;  // of the entries of X and of the values of the hidden layer
  float decay = 0;       // adds decay / 2 times the squared norm of W_0 to the loss
};

// A graph convolution of two layers: (G, classes), the scores of the classes of each history's
// node,
//
//   relu(A dropout(X) W_0) -> dropout -> A (.) W_1       W_0 (F, hidden), W_1 (hidden, classes)
//
// A (nodes, nodes) is symmetric and normalised, X (nodes, F) has what each node is described by. A
// node is named by its key in `slot`: node n is the n-th of the catalogue of the slot's table,
// whose rows are not read. Works on the whole batch, all nodes in every step. Dropped values are
// drawn by the step's seed; the others are scaled up. No ONNX form: gcn_scores() is what serves.
// Source: Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks",
// ICLR 2017 (arXiv:1609.02907), in the form of tkipf/gcn.
TensorId gcn(Graph& graph, std::string name, std::shared_ptr<const SparseMatrix> adjacency,
             std::shared_ptr<const SparseMatrix> features, std::int32_t slot, GcnOptions options);

// The scores of every node, (nodes, classes) without gaps, from W_0 and W_1: what gcn() gives at
// inference.
void gcn_scores(const SparseMatrix& adjacency, const SparseMatrix& features, ConstMatrix w0,
                ConstMatrix w1, Matrix scores);

struct ClassHead {
  TensorId logits;  // (S, 1) the score of a candidate's class
  TensorId ranks;  // (G, 1) at inference: classes that score better than the first candidate's, and
                   // half (rounded down) of those that score the same
};

// Adds to the loss the mean of -log softmax(scores)[class of the first candidate] over the
// histories of the batch. A class is named by its key in `slot`: class c is the c-th of the
// catalogue of the slot's table, whose rows are not read. scores: kGroup, as wide as there are
// classes. Works on the whole batch. No ONNX form.
ClassHead class_head(Graph& graph, std::string name, TensorId scores, std::int32_t slot);

}  // namespace meander::nn
