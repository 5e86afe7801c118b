// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "common/status.h"
#include "data/neighbours.h"
#include "data/node_graph.h"
#include "data/prepared_log.h"
#include "nn/sparse.h"

namespace meander::launch {

// The graph of a log's users and items, each by id, symmetrically normalised: who took what in the
// training part, before `until_ms` where the log has times. An edge weighs 1 however often it was
// taken; with times and half_life_h > 0, an interest that fades: the sum over its events of
// 2^(-age / half_life_h), age being that before the newest event of the graph.
std::shared_ptr<const nn::SparseMatrix> adjacency_of(const data::PreparedLog& log,
                                                     std::int64_t until_ms, float half_life_h);

// The same graph to draw neighbours from, not normalised: an edge weighs what it weighs.
data::NeighbourGraph neighbours_of(const data::PreparedLog& log, std::int64_t until_ms,
                                   float half_life_h);

// A log's users as nodes, by id: links of both directions with a link of each node to itself,
// symmetrically normalised; and which words each has, a row's entries summing up to 1.
struct NodeMatrices {
  std::shared_ptr<const nn::SparseMatrix> adjacency;  // (users, users)
  std::shared_ptr<const nn::SparseMatrix> features;   // (users, distinct words)
};
// kInvalid: a link or a word of a node that is no user of the log.
Result<NodeMatrices> node_matrices(const data::PreparedLog& log, const data::NodeGraph& graph);

// Links to draw neighbours from, each of weight 1; a node is described by its words.
Result<data::NeighbourGraph> neighbours_of(const data::PreparedLog& log,
                                           const data::NodeGraph& graph);

}  // namespace meander::launch
