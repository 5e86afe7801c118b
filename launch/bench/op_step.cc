// SPDX-License-Identifier: Apache-2.0
#include "launch/bench/op_step.h"

#include <xmmintrin.h>

#include <algorithm>

#include "common/clock.h"
#include "common/rng.h"

namespace meander::launch::bench {
namespace {

constexpr std::size_t kLineFloats = 16;

double now_s() { return seconds(SystemClock().now().time_since_epoch()); }

float* at_line(std::vector<float>& memory) {
  const auto misplaced = reinterpret_cast<std::uintptr_t>(memory.data()) / sizeof(float);
  return memory.data() + (kLineFloats - misplaced % kLineFloats) % kLineFloats;
}

std::vector<float> draw(Rng& rng, std::size_t floats, double range) {
  std::vector<float> values(floats);
  for (float& x : values) x = static_cast<float>(range * (2 * rng.uniform() - 1));
  return values;
}

}  // namespace

OpStep::OpStep(const nn::Graph& graph, std::int32_t groups, std::int32_t candidates,
               std::int32_t length)
    : graph_(graph) {
  const auto& ops = graph.ops();
  while (ops_ < ops.size() && ops[ops_]->scope() == nn::Scope::kPart) ++ops_;
  lay_out_rows(groups, candidates, length);
  draw_columns();
  allocate();
}

void OpStep::lay_out_rows(std::int32_t groups, std::int32_t candidates, std::int32_t length) {
  lengths_.assign(static_cast<std::size_t>(groups), length);
  for (std::int32_t t = 0; t < length; ++t) {
    step_rows_.push_back(groups);
    step_offset_.push_back(t * groups);
  }
  nn::Layout& layout = input_.layout;
  layout.groups = layout.batch_groups = groups;
  layout.candidates = candidates;
  layout.lengths = lengths_;
  layout.step_rows = step_rows_;
  layout.step_offset = step_offset_;
  layout.history_rows = groups * length;
  layout.batch_longest = length;
  layout.batch_negatives = groups * (length - 1);
}

void OpStep::draw_columns() {
  Rng rng(1);
  const nn::Layout& layout = input_.layout;
  const std::int32_t rows[] = {layout.samples(), layout.history_rows, layout.history_rows};
  for (const std::int32_t n : rows) {
    for (std::size_t slot = 0; slot < graph_.slots().size(); ++slot) {
      std::vector<std::uint32_t>& column = columns_.emplace_back(static_cast<std::size_t>(n));
      for (std::uint32_t& key : column) key = static_cast<std::uint32_t>(rng.below(kKeys));
    }
  }
  for (std::size_t i = 0; i < columns_.size(); ++i) {
    input_.columns[i / graph_.slots().size()].push_back(columns_[i]);
  }
  valid_.assign(static_cast<std::size_t>(layout.history_rows), 1.0f);
  label_.assign(static_cast<std::size_t>(layout.samples()), 1.0f);
  input_.negative_valid = valid_;
  input_.label = label_;
}

void OpStep::allocate() {
  Rng rng(2);
  const nn::Layout& layout = input_.layout;
  std::size_t planned = 0;
  const auto plan = [&](std::size_t floats) {
    const std::size_t offset = planned;
    planned += (floats + kLineFloats - 1) / kLineFloats * kLineFloats;
    return offset;
  };
  const auto& specs = graph_.tensor_specs();
  std::vector<std::size_t> value_at, grad_at, packed_at, saved_at;
  for (const nn::TensorSpec& spec : specs) {
    const auto floats = static_cast<std::size_t>(layout.rows(spec.rows)) * spec.width;
    value_at.push_back(plan(floats));
    grad_at.push_back(plan(spec.has_grad ? floats : 0));
  }
  std::size_t scratch = 0;
  for (const auto& op : graph_.ops()) {
    packed_at.push_back(plan(op->packed_floats()));
    saved_at.push_back(plan(op->saved_floats(layout)));
    scratch = std::max(scratch, op->scratch_floats(layout));
  }
  const std::size_t scratch_at = plan(scratch);
  memory_.resize(planned + kLineFloats);
  float* const memory = at_line(memory_);
  for (std::size_t id = 0; id < specs.size(); ++id) {
    const std::int32_t rows = layout.rows(specs[id].rows), width = specs[id].width;
    values_.push_back({memory + value_at[id], rows, width, width});
    grads_.push_back({specs[id].has_grad ? memory + grad_at[id] : nullptr, rows, width, width});
  }
  dense_ = graph_.initial_dense(1);
  ddense_.resize(dense_.size());
  for (std::int32_t t = 0; t < graph_.tables(); ++t) {
    const std::int32_t width = graph_.table_width(t);
    rows_.push_back(draw(rng, std::size_t{kKeys} * width, 0.1));
    drows_.emplace_back(rows_.back().size());
  }
  for (std::int32_t t = 0; t < graph_.tables(); ++t) {
    const std::int32_t width = graph_.table_width(t);
    tables_.push_back({rows_[t].data(), kKeys, width, width});
    dtables_.push_back({drows_[t].data(), kKeys, width, width});
  }
  for (std::size_t i = 0; i < graph_.ops().size(); ++i) {
    nn::OpContext& context = contexts_.emplace_back();
    context.layout = &input_.layout;
    context.input = &input_;
    context.training = true;
    context.params = dense_.data();
    context.dparams = ddense_.data();
    context.packed = memory + packed_at[i];
    context.saved = memory + saved_at[i];
    context.scratch = memory + scratch_at;
    context.loss = &loss_;
    context.labels = label_;
    context.values = values_;
    context.grads = grads_;
    context.tables = tables_;
    context.dtables = dtables_;
    graph_.ops()[i]->pack(dense_.data(), memory + packed_at[i]);
  }
}

// What comes back from the ops that are left out is made up.
void OpStep::clear_gradients() {
  constexpr float kFromTheHead = 1e-3f;
  for (const nn::Matrix& grad : grads_) {
    if (grad.data != nullptr) std::fill_n(grad.data, std::size_t(grad.rows) * grad.cols, 0.0f);
  }
  for (std::size_t op = ops_; op < graph_.ops().size(); ++op) {
    for (const nn::TensorId id : graph_.ops()[op]->inputs()) {
      const nn::Matrix& grad = grads_[id];
      if (grad.data == nullptr) continue;
      std::fill_n(grad.data, std::size_t(grad.rows) * grad.cols, kFromTheHead);
    }
  }
  std::ranges::fill(ddense_, 0.0f);
  for (std::vector<float>& drows : drows_) std::ranges::fill(drows, 0.0f);
  loss_ = 0;
}

OpStep::Times OpStep::run(int steps) {
  const auto& ops = graph_.ops();
  Times times{std::vector<double>(ops.size()), std::vector<double>(ops.size())};
  const unsigned before = _mm_getcsr();
  _mm_setcsr(before | 0x8040);  // denormals are zero, as in a Session
  for (int step = 0; step < steps; ++step) {
    clear_gradients();
    double then = now_s();
    for (std::size_t op = 0; op < ops_; ++op) {
      ops[op]->forward(contexts_[op]);
      const double now = now_s();
      times.forward_s[op] += now - then;
      then = now;
    }
    for (std::size_t op = ops_; op-- > 0;) {
      ops[op]->backward(contexts_[op]);
      const double now = now_s();
      times.backward_s[op] += now - then;
      then = now;
    }
  }
  _mm_setcsr(before);
  return times;
}

}  // namespace meander::launch::bench
