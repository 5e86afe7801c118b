// SPDX-License-Identifier: Apache-2.0
#include "models/model.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "common/text.h"
#include "nn/sparse.h"

namespace meander::models {

struct Entry {
  const char* kind;
  nn::Graph (*build)(const ModelSpec& spec);
};
#include "models/registry.inc"

namespace {

constexpr std::int32_t kGraphLayersMax = 8;  // farther, all nodes look the same
constexpr std::int32_t kFanoutMax = 1000;

constexpr std::int32_t kWidthMax = 4096;  // of a row or a layer: more is a slip of the keyboard

Status check_one_of(const char* field, const std::string& value,
                    const std::vector<std::string>& allowed) {
  if (std::ranges::find(allowed, value) != allowed.end()) return {};
  std::string names;
  for (const std::string& name : allowed) names += (names.empty() ? "" : ", ") + name;
  return invalid(std::string(field) + " is '" + value + "': must be one of " + names);
}

Status check_width(const std::string& field, std::int32_t width) {
  if (width >= 1 && width <= kWidthMax) return {};
  return invalid(field + " is " + std::to_string(width) + ": must be 1 to " +
                 std::to_string(kWidthMax));
}

Status check_widths(const std::string& field, const std::vector<std::int32_t>& widths) {
  if (widths.empty()) return invalid(field + " is empty: it needs at least one layer");
  for (std::int32_t width : widths) RETURN_IF_ERROR(check_width(field, width));
  return {};
}

Status check_slots(const std::vector<nn::SlotSpec>& slots) {
  if (slots.empty() || !slots[0].in_history) {
    return invalid("a model needs a slot that is in the history, and those come first");
  }
  std::set<std::string> names;
  std::vector<std::int32_t> widths(slots.size(), 0);  // by table
  std::set<std::int32_t> frozen, trained;             // tables
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const nn::SlotSpec& slot = slots[i];
    const std::string where = "slot '" + slot.name + "'";
    if (!names.insert(slot.name).second) return invalid(where + " is there twice");
    if (i > 0 && slot.in_history && !slots[i - 1].in_history) {
      return invalid(where + " is in the history, and those come first");
    }
    RETURN_IF_ERROR(check_width(where + ": width", slot.width));
    if (slot.table < 0 || slot.table >= static_cast<std::int32_t>(slots.size())) {
      return invalid(where + ": table " + std::to_string(slot.table) +
                     " is out of range: tables count from 0");
    }
    (slot.frozen ? frozen : trained).insert(slot.table);
    if (frozen.contains(slot.table) && trained.contains(slot.table)) {
      return invalid(where + ": its table is both trained and frozen");
    }
    if (slot.projected != 0) {
      RETURN_IF_ERROR(check_width(where + ": projected", slot.projected));
      if (!slot.frozen) return invalid(where + ": only rows that are not trained are projected");
    }
    std::int32_t& width = widths[slot.table];
    if (width != 0 && width != slot.width) {
      return invalid(where + ": width " + std::to_string(slot.width) +
                     ", but its table has rows of " + std::to_string(width));
    }
    width = slot.width;
  }
  const auto unused = std::ranges::find(widths, 0);
  if (std::any_of(unused, widths.end(), [](std::int32_t width) { return width != 0; })) {
    return invalid("no slot looks up table " + std::to_string(unused - widths.begin()) +
                   ": tables count from 0 without gaps");
  }
  return {};
}

// Attention cuts what it reads, the item's row or the whole behaviour, into heads.
Status check_heads(const ModelSpec& spec) {
  std::int32_t width = 0;
  for (const nn::SlotSpec& slot : spec.slots) width += slot.in_history ? slot.columns() : 0;
  if (spec.kind == "sasrec") width = spec.slots[0].width;
  if (width % spec.heads == 0) return {};
  return invalid("heads is " + std::to_string(spec.heads) + ": must divide the width " +
                 std::to_string(width));
}

Status check_layers(const ModelSpec& spec) {
  if (graph_of(spec.kind) == GraphKind::kUsersAndItems) {
    if (spec.layers >= 1 && spec.layers <= kGraphLayersMax) return {};
    return invalid("layers is " + std::to_string(spec.layers) + ": must be 1 to " +
                   std::to_string(kGraphLayersMax));
  }
  if (spec.layers == 1 || spec.layers == 2) return {};
  return invalid("layers is " + std::to_string(spec.layers) + ": must be 1 or 2");
}

// What describes a node has rows, and nothing else but the classes.
Status check_drawn(const ModelSpec& spec) {
  const char* const described = spec.classes > 0 ? "word" : "user";
  if (spec.slots.size() != 2 || spec.slots[0].name != "item" || spec.slots[1].name != described) {
    return invalid(spec.classes > 0 ? "slots must be item and word"
                                    : "slots must be item and user");
  }
  if (spec.classes == 0 && spec.slots[0].width != spec.slots[1].width) {
    return invalid("slots must be item and user, of one width");
  }
  if (spec.classes > 0 && spec.slots[1].width != 2 * spec.hidden) {
    return invalid("embedding is " + std::to_string(spec.slots[1].width) +
                   ": must be twice model.hidden, for a word's row is what the first layer makes "
                   "of a node's own words and of its neighbours'");
  }
  const auto hops = static_cast<std::int32_t>(spec.fanout.size());
  const std::int32_t hops_min = spec.classes > 0 ? 2 : 1;
  if (hops < hops_min || hops > kGraphLayersMax) {
    return invalid("fanout has " + std::to_string(hops) + " hops: must have " +
                   std::to_string(hops_min) + " to " + std::to_string(kGraphLayersMax));
  }
  for (const std::int32_t fanout : spec.fanout) {
    if (fanout >= 1 && fanout <= kFanoutMax) continue;
    return invalid("fanout is " + std::to_string(fanout) + ": must be 1 to " +
                   std::to_string(kFanoutMax));
  }
  return {};
}

// A graph of users and items needs rows of both, and nothing else has any.
Status check_graph(const ModelSpec& spec) {
  const GraphKind kind = graph_of(spec.kind);
  if (kind == GraphKind::kNone) return {};
  if (kind == GraphKind::kDrawn) return check_drawn(spec);
  if (spec.slots.size() != 2 || spec.slots[0].name != "item" || spec.slots[1].name != "user" ||
      spec.slots[0].width != spec.slots[1].width) {
    return invalid("slots must be item and user, of one width");
  }
  if (spec.adjacency == nullptr) {
    return invalid("there is no graph here: it comes from a log, and training alone has that");
  }
  if (spec.adjacency->entries() == 0) return invalid("the graph has no edges");
  if (kind == GraphKind::kNodes && (spec.features == nullptr || spec.features->cols == 0)) {
    return invalid("the nodes have no words");
  }
  if (kind == GraphKind::kNodes && spec.classes < 1) return invalid("the nodes have no classes");
  return {};
}

Status check_fields(const ModelSpec& spec) {
  RETURN_IF_ERROR(check_slots(spec.slots));
  const bool learns_items = spec.kind == "sasrec" || spec.kind == "next" || spec.kind == "mf";
  if (learns_items && spec.slots[0].frozen) {
    return invalid("learns rows of items, and slot '" + spec.slots[0].name +
                   "' has rows that nothing trains: name item first");
  }
  if (spec.numeric_features < 0 || spec.numeric_features > kWidthMax) {
    return invalid("numeric_features is " + std::to_string(spec.numeric_features) +
                   ": must be 0 to " + std::to_string(kWidthMax));
  }
  RETURN_IF_ERROR(check_width("hidden", spec.hidden));
  RETURN_IF_ERROR(check_layers(spec));
  RETURN_IF_ERROR(check_widths("attention", spec.attention));
  if (spec.attention.size() != 2) {
    return invalid("attention has " + std::to_string(spec.attention.size()) +
                   " hidden layers: must be 2");
  }
  RETURN_IF_ERROR(check_widths("head", spec.head));
  RETURN_IF_ERROR(check_one_of("activation", spec.activation, {"dice", "prelu", "relu"}));
  RETURN_IF_ERROR(check_one_of("dice", spec.dice, {"batch", "moving"}));
  RETURN_IF_ERROR(check_one_of("auxiliary_mean", spec.auxiliary_mean, {"padded", "real"}));
  RETURN_IF_ERROR(check_one_of("evolution", spec.evolution, {"augru", "aigru", "agru"}));
  RETURN_IF_ERROR(check_one_of("cell", spec.cell, {"gru", "lstm"}));
  RETURN_IF_ERROR(check_one_of("loss", spec.loss, {"bce", "softmax", "sampled"}));
  RETURN_IF_ERROR(check_one_of("decay", spec.decay, {"fixed", "learned", "user", "category"}));
  if (!(spec.half_life_h > 0)) return invalid("half_life_h must be above 0");
  if (spec.blocks < 1 || spec.heads < 1) return invalid("blocks and heads must be at least 1");
  if (spec.positions < 1 && (spec.kind == "sasrec" || spec.kind == "bst")) {
    return invalid("positions is 0: a history of at least 1 is needed");
  }
  RETURN_IF_ERROR(check_heads(spec));
  if (!(spec.dropout >= 0 && spec.dropout < 1)) return invalid("dropout must be from 0 to below 1");
  if (spec.decay == "user" && std::ranges::all_of(spec.slots, &nn::SlotSpec::in_history)) {
    return invalid("decay is 'user', and no slot is of the user: name it in model.slots");
  }
  if (spec.kind == "mf") {
    const auto user = std::ranges::find(spec.slots, false, &nn::SlotSpec::in_history);
    if (user == spec.slots.end()) {
      return invalid("no slot is of the user: name it in model.slots");
    }
    if (user->width != spec.slots[0].width || user->width < 2) {
      return invalid("rows of items and users must be of one width, 2 or more: the last is a bias");
    }
  }
  if (!(spec.auxiliary_weight >= 0) || !std::isfinite(spec.auxiliary_weight)) {
    return invalid("auxiliary_weight must be 0 or more");
  }
  if (!(spec.l2 >= 0) || !std::isfinite(spec.l2)) return invalid("l2 must be 0 or more");
  if (spec.l2 > 0 && spec.kind != "mf") {
    return invalid("model.l2 is of mf: other tables have train.optimizer.l2");
  }
  if (!(spec.second_weight >= 0) || !std::isfinite(spec.second_weight)) {
    return invalid("second_weight must be 0 or more");
  }
  if (!(spec.click_weight >= 0) || !std::isfinite(spec.click_weight)) {
    return invalid("click_weight must be 0 or more");
  }
  if (spec.second_weight == 0 && spec.click_weight != 1) {
    return invalid("click_weight weighs clicks beside a second label: give second_weight");
  }
  return check_graph(spec);
}

Status unknown_kind(const std::string& kind) {
  const std::vector<std::string> kinds = model_kinds();
  std::string message = "unknown model '" + kind + "'";
  if (const std::string nearest = nearest_name(kind, kinds); !nearest.empty()) {
    return invalid(message + ": did you mean '" + nearest + "'?");
  }
  message += ": there is";
  for (const std::string& name : kinds) message += (name == kinds.front() ? " " : ", ") + name;
  return invalid(message);
}

}  // namespace

std::vector<std::string> model_kinds() {
  std::vector<std::string> kinds;
  for (const Entry& entry : kRegistry) kinds.push_back(entry.kind);
  std::ranges::sort(kinds);
  return kinds;
}

GraphKind graph_of(const std::string& kind) {
  if (kind == "lightgcn") return GraphKind::kUsersAndItems;
  if (kind == "graphsage") return GraphKind::kDrawn;
  return kind == "gcn" ? GraphKind::kNodes : GraphKind::kNone;
}

Result<nn::Graph> build_model(const ModelSpec& spec) {
  const auto entry = std::ranges::find(kRegistry, spec.kind, &Entry::kind);
  if (entry == std::end(kRegistry)) return unknown_kind(spec.kind);
  if (Status status = check_fields(spec); !status.ok()) {
    return std::move(status).context("model " + spec.kind);
  }
  nn::Graph graph = entry->build(spec);
  if (spec.second_weight > 0 && graph.second_logits() == nn::kNoTensor) {
    return invalid("model " + spec.kind +
                   ": has no head for a second label: second_weight is of the models with the head "
                   "of DIN and DIEN");
  }
  graph.finish();
  return graph;
}

}  // namespace meander::models
