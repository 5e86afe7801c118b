// SPDX-License-Identifier: Apache-2.0
// Decaying interest: what a user did fades with time, u_t = u_{t-1} exp(-rate dt), by a rate that
// is fixed, learned, or learned for each category or user. The head sees the target, what is left
// of the interest, and their product, as the base model does with a plain mean: what the two differ
// by is what decay brings.
#include "nn/ops/decayed_pool.h"

#include "models/blocks.h"
#include "models/model.h"
#include "nn/ops/broadcast.h"
#include "nn/ops/product.h"

namespace meander::models {
namespace {

// The slot that says of what kind a behaviour is: its category; where there is none, its item.
std::int32_t kind_of(const ModelSpec& spec) {
  std::vector<std::int32_t> slots = slots_of(spec, true);
  while (slots.size() > 1 && spec.slots[slots.back()].frozen) slots.pop_back();
  return slots.back();
}

// A factor of the rate, from the category of each behaviour (or its item), or from the user.
nn::TensorId rate_offset(nn::Graph& graph, const ModelSpec& spec) {
  if (spec.decay == "category") {
    const auto rows = nn::embedding(graph, "rate/category", nn::Source::kHistory, {kind_of(spec)});
    return nn::dense(graph, "rate", rows, 1);
  }
  const auto rows =
      nn::embedding(graph, "rate/user", nn::Source::kTarget, {slots_of(spec, false).front()});
  return nn::dense(graph, "rate", rows, 1);
}

}  // namespace

nn::Graph build_decay(const ModelSpec& spec) {
  nn::Graph graph(spec.slots, spec.numeric_features);
  const nn::TensorId target = target_of(graph, spec);
  const nn::TensorId history = history_of(graph, spec);
  nn::DecayOptions options{.half_life_h = spec.half_life_h, .learned = spec.decay != "fixed"};
  if (spec.decay == "category" || spec.decay == "user") options.offset = rate_offset(graph, spec);
  const nn::TensorId interest =
      nn::broadcast(graph, "interest", nn::decayed_pool(graph, "interest/decay", history, options));
  const nn::TensorId shared = nn::product(graph, "target_interest", target, interest);
  click_head(graph, spec, {target, interest, shared});
  return graph;
}

}  // namespace meander::models
