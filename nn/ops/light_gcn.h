// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "nn/graph.h"
#include "nn/sparse.h"

namespace meander::nn {

struct LightGcnOptions {
  std::int32_t layers = 3;  // K, at least 1
  // Adds to the loss, for each history of the batch, decay / 2 times the squared norms of the
  // layer-0 rows of its user and of its candidates, divided by the number of histories.
  float decay = 1e-4f;
};

struct LightGcn {
  TensorId logits;  // (S, 1) vector of the user . vector of the candidate
  // (G, 1) at inference: how many items score better than the first candidate; of those that score
  // the same, half (rounded down). Left out are PartInput.seen of the group (which must rise) and
  // the candidate itself. One whose score is not a number comes last.
  TensorId ranks;
};

// Vectors of users and items from a graph of both. With R (users, items) the normalised adjacency,
//
//   u_0, i_0 = the rows of the two tables      u_k = R i_{k-1}      i_k = R^T u_{k-1}
//   vector   = mean of layers 0 ... K
//
// The two slots look up a table each, of one width, which every step holds whole: user n of R is
// the n-th of the user table's catalogue, item n the n-th of the item table's. Works on the whole
// batch. The whole graph is gone through 2 (K - 1) times a step: the last layer is made only for
// the users and items of the batch, and the first product of backward knows that only those have
// gradients. Source: He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for
// Recommendation", SIGIR 2020 (arXiv:2002.02126), in the form of gusye1234/LightGCN-PyTorch.
// No ONNX form: what serves are the propagated vectors, of propagate_all().
LightGcn light_gcn(Graph& graph, std::string name, std::shared_ptr<const SparseMatrix> adjacency,
                   std::int32_t user_slot, std::int32_t item_slot, LightGcnOptions options);

// The vectors of all users and items, from their layer-0 rows by id: what light_gcn() scores by.
// Rows without gaps (users or items, width).
void propagate_all(const SparseMatrix& adjacency, std::int32_t layers, ConstMatrix user_rows,
                   ConstMatrix item_rows, Matrix users, Matrix items);

// Adds to the loss the mean over histories of softplus(logit of a negative - logit of the first
// candidate), itself a mean over the history's negatives; -log sigmoid of their difference. At
// least two candidates in training; nothing at inference. Source: Rendle et al., "BPR: Bayesian
// Personalized Ranking from Implicit Feedback", UAI 2009 (arXiv:1205.2618).
void bpr_loss(Graph& graph, std::string name, TensorId logits);

}  // namespace meander::nn
