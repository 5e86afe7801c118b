// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

#include "export/rows.h"
#include "launch/plan.h"

namespace meander::launch {

// A model of a whole graph as it serves: once it is trained, a node's vector is a row like any
// other, and a score is the product of two rows. `model` is kind mf, whose rows are a vector and a
// bias, here 0; its tables are those of the plan's slots.
struct NodeRows {
  models::ModelSpec model;
  std::vector<artefact::TableRows> tables;
};

// LightGCN: the propagated vectors of users and items. GCN: a node's scores of all classes, and for
// each class the row that picks its own. `tables`, `dense`: of the plan's model, as trained.
// kInvalid: what the model says of a node is drawn for each batch.
Result<NodeRows> node_rows(const Plan& plan, std::span<const artefact::TableRows> tables,
                           std::span<const float> dense);

}  // namespace meander::launch
