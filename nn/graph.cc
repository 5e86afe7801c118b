// SPDX-License-Identifier: Apache-2.0
#include "nn/graph.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "common/check.h"
#include "common/rng.h"

namespace meander::nn {
namespace {

// FNV-1a: a parameter's name as a number, so that its initial values do not depend on its place.
std::uint64_t hash_name(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  for (unsigned char c : name) hash = (hash ^ c) * 0x100000001b3ull;
  return hash;
}

std::size_t floats(const ParamSpec& spec) {
  return static_cast<std::size_t>(spec.rows) * static_cast<std::size_t>(spec.cols);
}

void fill(const ParamSpec& spec, std::uint64_t seed, std::span<float> out) {
  if (spec.init.kind == Init::kConstant) {
    std::fill(out.begin(), out.end(), spec.init.value);
    return;
  }
  const double fan_in = spec.init.fan_in > 0 ? spec.init.fan_in : spec.rows;
  const double fan_out = spec.init.fan_out > 0 ? spec.init.fan_out : spec.cols;
  const double bound = std::sqrt(6.0 / (fan_in + fan_out));
  const std::uint64_t name = hash_name(spec.name);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const double unit = unit_double(hash64(seed, name, i));
    out[i] = static_cast<float>((2 * unit - 1) * bound);
  }
}

}  // namespace

Graph::Graph(std::vector<SlotSpec> slots, std::int32_t numeric_features)
    : slots_(std::move(slots)), numeric_features_(numeric_features) {
  CHECK_GE(numeric_features, 0);
  for (const SlotSpec& slot : slots_) {
    CHECK_GE(slot.table, 0) << slot.name;
    CHECK_GT(slot.width, 0) << slot.name;
    CHECK_EQ(slot.width, table_width(slot.table)) << slot.name << ": one table has one width";
    CHECK_EQ(slot.frozen, is_frozen(slot.table)) << slot.name << ": of a table that is trained";
    CHECK(slot.frozen || slot.projected == 0) << slot.name << ": only frozen rows are projected";
  }
}

TensorId Graph::tensor(Rows rows, std::int32_t width, bool has_grad) {
  CHECK_GT(width, 0);
  tensors_.push_back({rows, width, has_grad});
  return static_cast<TensorId>(tensors_.size() - 1);
}

ParamId Graph::param(std::string name, std::int32_t rows, std::int32_t cols, Init init,
                     bool is_statistic) {
  CHECK(!finished_) << name;
  CHECK(rows > 0 && cols > 0) << name;
  for (const ParamSpec& other : params_) CHECK_NE(other.name, name);
  params_.push_back({std::move(name), rows, cols, init, is_statistic, 0});
  return static_cast<ParamId>(params_.size() - 1);
}

ParamId Graph::shared_param(const std::string& name, std::int32_t rows, std::int32_t cols,
                            Init init) {
  const auto found = std::ranges::find(params_, name, &ParamSpec::name);
  if (found == params_.end()) return param(name, rows, cols, init);
  CHECK(found->rows == rows && found->cols == cols) << name << ": shared in two shapes";
  return static_cast<ParamId>(found - params_.begin());
}

void Graph::use_catalogue(std::int32_t table, bool training, CatalogueUse use) {
  CHECK(!finished_);
  std::vector<CatalogueUse>& all = catalogues_[training];
  if (static_cast<std::size_t>(table) >= all.size()) all.resize(table + 1);
  CHECK(all[table] == CatalogueUse::kNone || all[table] == use)
      << "table " << table << " is asked for two kinds of catalogue";
  all[table] = use;
}

Graph::CatalogueUse Graph::catalogue(std::int32_t table, bool training) const {
  const std::vector<CatalogueUse>& all = catalogues_[training];
  return static_cast<std::size_t>(table) < all.size() ? all[table] : CatalogueUse::kNone;
}

void Graph::add(std::unique_ptr<Op> op) {
  CHECK(!finished_) << op->name();
  const bool at_batch = op->scope() == Scope::kBatch;
  CHECK(at_batch || ops_.empty() || ops_.back()->scope() == Scope::kPart)
      << op->name() << " works one part alone, but " << ops_.back()->name()
      << " before it needs the whole batch";
  const auto check_tensor = [&](TensorId id, bool is_input) {
    CHECK(id >= 0 && id < static_cast<TensorId>(tensors_.size())) << op->name();
    const Rows rows = tensors_[id].rows;
    CHECK(!at_batch || rows == Rows::kSample || rows == Rows::kGroup ||
          (is_input && rows == Rows::kHistory))
        << op->name() << ": a whole batch has only sample and group rows";
  };
  for (TensorId id : op->inputs()) check_tensor(id, true);
  for (TensorId id : op->outputs()) check_tensor(id, false);
  ops_.push_back(std::move(op));
}

std::int32_t Graph::tables() const {
  std::int32_t count = 0;
  for (const SlotSpec& slot : slots_) count = std::max(count, slot.table + 1);
  return count;
}

std::int32_t Graph::table_width(std::int32_t table) const {
  for (const SlotSpec& slot : slots_) {
    if (slot.table == table) return slot.width;
  }
  LOG(FATAL) << "no slot looks up table " << table;
}

bool Graph::is_frozen(std::int32_t table) const {
  const auto slot = std::ranges::find(slots_, table, &SlotSpec::table);
  return slot != slots_.end() && slot->frozen;
}

std::size_t Graph::dense_size() const {
  std::size_t size = 0;
  for (const ParamSpec& spec : params_) size += floats(spec);
  return size;
}

std::size_t Graph::dense_trained() const {
  std::size_t size = 0;
  for (const ParamSpec& spec : params_) size += spec.is_statistic ? 0 : floats(spec);
  return size;
}

void Graph::finish() {
  CHECK(!finished_);
  CHECK_NE(logits_, kNoTensor) << "a graph needs logits";
  CHECK(tensors_[logits_].rows == Rows::kSample && tensors_[logits_].width == 1);
  finished_ = true;
  std::size_t offset = 0;
  for (const bool statistic : {false, true}) {
    for (ParamSpec& spec : params_) {
      if (spec.is_statistic != statistic) continue;
      spec.offset = offset;
      offset += floats(spec);
    }
  }
  for (const auto& op : ops_) op->place_params(params_);
}

std::vector<float> Graph::initial_dense(std::uint64_t seed) const {
  CHECK(finished_);
  std::vector<float> dense(dense_size());
  for (const ParamSpec& spec : params_) {
    fill(spec, seed, std::span(dense).subspan(spec.offset, floats(spec)));
  }
  return dense;
}

}  // namespace meander::nn
