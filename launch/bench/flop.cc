// SPDX-License-Identifier: Apache-2.0
#include "launch/bench/flop.h"

#include <algorithm>
#include <string>
#include <vector>

namespace meander::launch::bench {
namespace {

// The matrices that an op owns, in the order of its layers.
std::vector<const nn::ParamSpec*> kernels_of(const nn::Graph& graph, const nn::Op& op) {
  std::vector<const nn::ParamSpec*> kernels;
  const std::string prefix = op.name() + "/";
  for (const nn::ParamSpec& param : graph.params()) {
    if (param.name.rfind(prefix, 0) == 0 && param.name.ends_with("/kernel")) {
      kernels.push_back(&param);
    }
  }
  return kernels;
}

double size_of(const nn::ParamSpec& kernel) {
  return static_cast<double>(kernel.rows) * kernel.cols;
}

double attention(const std::vector<const nn::ParamSpec*>& kernels, const nn::Layout& layout) {
  const double first = size_of(*kernels[0]) / 4;  // of [q, k, q - k, q * k]
  double of_pair = first;
  for (std::size_t i = 1; i < kernels.size(); ++i) of_pair += size_of(*kernels[i]);
  return first * (layout.samples() + layout.history_rows) +
         of_pair * layout.rows(nn::Rows::kHistorySample);
}

double auxiliary(const std::vector<const nn::ParamSpec*>& kernels, const nn::Graph& graph,
                 const nn::Op& op, const nn::Layout& layout) {
  const double states = graph.spec(op.inputs()[0]).width,
               behaviours = graph.spec(op.inputs()[1]).width;
  const double of_row =
      kernels[0]->cols * (states + 2 * behaviours) + 2 * (size_of(*kernels[1]) + kernels[2]->rows);
  return of_row * layout.batch_negatives;
}

// The parameter `name` of an op; null if it has none.
const nn::ParamSpec* param_of(const nn::Graph& graph, const nn::Op& op, const std::string& name) {
  for (const nn::ParamSpec& param : graph.params()) {
    if (param.name == op.name() + "/" + name) return &param;
  }
  return nullptr;
}

// Of BST: kernels on a sample's query and on what it saw; scores and their sum.
double target_attention(const nn::ParamSpec& keys, const nn::Layout& layout) {
  const double pairs = layout.rows(nn::Rows::kHistorySample) + layout.samples();
  return 2 * size_of(keys) * layout.samples() + 2 * pairs * keys.rows;
}

// Of Caser: each weight of a filter's is one for a whole row of those that it may see.
double vertical(const nn::ParamSpec& kernel, double width, const nn::Layout& layout) {
  const double seen =
      std::min(double{1} * layout.history_rows, double{1} * layout.groups * kernel.cols);
  return seen * kernel.rows * width;
}

// Multiply-adds.
double products(const nn::Graph& graph, const nn::Op& op, const nn::Layout& layout) {
  const std::vector<const nn::ParamSpec*> kernels = kernels_of(graph, op);
  if (const auto* keys = param_of(graph, op, "keys")) return target_attention(*keys, layout);
  if (kernels.empty()) return 0;
  if (op.name() == "vertical") {
    return vertical(*kernels[0], graph.spec(op.inputs()[0]).width, layout);
  }
  if (op.name() == "attention") return attention(kernels, layout);
  if (op.name() == "auxiliary") return auxiliary(kernels, graph, op, layout);
  double rows = 0;
  if (op.name() == "augru") {
    rows = layout.rows(nn::Rows::kHistorySample);
  } else if (op.name() == "horizontal") {  // a window for each row
    rows = layout.history_rows;
  } else {
    // An op on histories that also takes a step for each candidate (an LSTM's tail) has both.
    bool history = false, sample = false, group = false;
    for (const nn::TensorId id : op.outputs()) {
      history = history || graph.spec(id).rows == nn::Rows::kHistory;
      sample = sample || graph.spec(id).rows == nn::Rows::kSample;
      group = group || graph.spec(id).rows == nn::Rows::kGroup;
    }
    rows = (history ? layout.history_rows : 0) + (sample ? layout.samples() : 0) +
           (group && !history && !sample ? layout.groups : 0);
  }
  double sum = 0;
  for (const nn::ParamSpec* kernel : kernels) sum += rows * size_of(*kernel);
  return sum;
}

}  // namespace

double forward_flop(const nn::Graph& graph, const nn::Op& op, const nn::Layout& layout) {
  return 2 * products(graph, op, layout);
}

double training_flop(const nn::Graph& graph, const nn::Layout& layout) {
  double flop = 0;
  for (const auto& op : graph.ops()) flop += 3 * forward_flop(graph, *op, layout);
  return flop;
}

}  // namespace meander::launch::bench
