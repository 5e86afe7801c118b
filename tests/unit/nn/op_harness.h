// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "common/rng.h"
#include "nn/graph.h"

namespace meander::nn {

// Runs ops alone, on tensors that the test fills, and compares them with a naive form in float64:
// outputs, loss, and gradients by differences of the naive form. `lengths` do not rise.
class OpHarness {
 public:
  // Inputs, outputs and parameters in float64, rows and columns as in the graph.
  struct Numbers {
    std::vector<std::vector<double>> tensors;
    std::vector<double> dense;
  };
  // Fills the output tensors from inputs and parameters; returns the loss.
  using Naive = std::function<double(Numbers&)>;

  OpHarness(std::vector<std::int32_t> lengths, std::int32_t candidates)
      : graph(std::vector<SlotSpec>{}, 0), lengths_(std::move(lengths)) {
    for (std::int32_t t = 0; t < lengths_[0]; ++t) {
      const auto active = std::ranges::count_if(lengths_, [&](auto n) { return n > t; });
      step_offset_.push_back(layout.history_rows);
      step_rows_.push_back(static_cast<std::int32_t>(active));
      layout.history_rows += static_cast<std::int32_t>(active);
    }
    layout.groups = static_cast<std::int32_t>(lengths_.size());
    layout.candidates = candidates;
    layout.lengths = lengths_;
    layout.step_rows = step_rows_;
    layout.step_offset = step_offset_;
    layout.batch_groups = layout.groups;
    layout.batch_longest = lengths_[0];
    valid.assign(layout.history_rows, 1.0f);
  }
  OpHarness(const OpHarness&) = delete;
  OpHarness& operator=(const OpHarness&) = delete;

  TensorId input(Rows rows, std::int32_t width) {
    inputs_.push_back(graph.tensor(rows, width));
    return inputs_.back();
  }

  // After the ops are added: random inputs, parameters and gradients of `outputs`.
  void build(std::vector<TensorId> outputs, std::uint64_t seed = 1) {
    outputs_ = std::move(outputs);
    graph.set_logits(graph.tensor(Rows::kSample, 1));
    graph.finish();
    Rng rng(seed);
    for (const TensorSpec& spec : graph.tensor_specs()) {
      const std::size_t floats = static_cast<std::size_t>(layout.rows(spec.rows)) * spec.width;
      values_.emplace_back(floats, kUnset);
      grads_.emplace_back(floats);
    }
    for (TensorId id : inputs_) {
      for (float& x : values_[id]) x = static_cast<float>(2 * rng.uniform() - 1);
    }
    dense = graph.initial_dense(seed);
    for (float& x : dense) x += static_cast<float>(rng.uniform() - 0.5);
    ddense.resize(dense.size());
  }

  std::vector<float>& values(TensorId id) { return values_[id]; }
  std::vector<float>& grads(TensorId id) { return grads_[id]; }
  // Row of step t of group g among kHistory rows.
  std::int32_t row(std::int32_t t, std::int32_t g) const { return step_offset_[t] + g; }
  const std::vector<std::int32_t>& lengths() const { return lengths_; }
  std::size_t place(const std::string& param) const {
    for (const ParamSpec& spec : graph.params()) {
      if (spec.name == param) return spec.offset;
    }
    ADD_FAILURE() << "no parameter " << param;
    return 0;
  }
  // The gradient that output element (row, column) is given.
  static double weight(TensorId id, std::size_t element) {
    return 2 * unit_double(hash64(static_cast<std::uint64_t>(id), element)) - 1;
  }

  double forward(bool training = true) {
    views_.clear();
    dviews_.clear();
    for (std::size_t id = 0; id < values_.size(); ++id) {
      const TensorSpec& spec = graph.tensor_specs()[id];
      const std::int32_t rows = layout.rows(spec.rows);
      views_.push_back({values_[id].data(), rows, spec.width, spec.width});
      dviews_.push_back({grads_[id].data(), rows, spec.width, spec.width});
    }
    part_.layout = layout;
    part_.negative_valid = valid;
    part_.age = age;
    memory_.assign(graph.ops().size(), {});
    loss_ = 0;
    for (std::size_t op = 0; op < graph.ops().size(); ++op) {
      const Op& it = *graph.ops()[op];
      // NaN where nothing was written yet, so that a read of it shows.
      memory_[op].packed.assign(it.packed_floats(), kUnset);
      memory_[op].saved.assign(it.saved_floats(layout), kUnset);
      it.pack(dense.data(), memory_[op].packed.data());
      it.forward(context(op, training));
    }
    return loss_;
  }

  void backward() {
    std::ranges::fill(ddense, 0.0f);
    for (auto& grad : grads_) std::ranges::fill(grad, 0.0f);
    for (TensorId id : outputs_) {
      for (std::size_t i = 0; i < grads_[id].size(); ++i) {
        grads_[id][i] = static_cast<float>(weight(id, i));
      }
    }
    for (std::size_t op = graph.ops().size(); op-- > 0;) {
      graph.ops()[op]->backward(context(op, true));
    }
  }

  // Forward and backward against the naive form: every output, every `stride`-th gradient.
  void expect_matches(const Naive& naive, std::size_t stride = 1) {
    const double loss = forward();
    backward();
    Numbers numbers = as_numbers();
    EXPECT_NEAR(loss, naive(numbers), 1e-5);
    for (TensorId id : outputs_) {
      for (std::size_t i = 0; i < values_[id].size(); ++i) {
        ASSERT_NEAR(values_[id][i], numbers.tensors[id][i], 1e-5) << "output " << id << " at " << i;
      }
    }
    for (TensorId id : inputs_) {
      for (std::size_t i = 0; i < values_[id].size(); i += stride) {
        expect_gradient(naive, numbers, numbers.tensors[id][i], grads_[id][i],
                        "input " + std::to_string(id) + "[" + std::to_string(i) + "]");
      }
    }
    for (const ParamSpec& spec : graph.params()) {
      const std::size_t size = static_cast<std::size_t>(spec.rows) * spec.cols;
      for (std::size_t i = 0; i < size; i += stride) {
        expect_gradient(naive, numbers, numbers.dense[spec.offset + i], ddense[spec.offset + i],
                        spec.name + "[" + std::to_string(i) + "]");
      }
    }
  }

  // The outputs' rows of group g here equal, bit for bit, those of `alone`, a harness with the same
  // ops and only that group. kGroup, kSample, kHistory and kHistorySample tensors.
  void expect_group_equals(std::int32_t g, OpHarness& alone) {
    alone.dense = dense;
    for (TensorId id : inputs_) copy_group(g, alone, id);
    forward(false);
    alone.forward(false);
    for (TensorId id : outputs_) {
      const TensorSpec& spec = graph.spec(id);
      const std::vector<std::int32_t> rows = rows_of(spec.rows, g);
      for (std::size_t r = 0; r < rows.size(); ++r) {
        for (std::int32_t c = 0; c < spec.width; ++c) {
          ASSERT_EQ(values_[id][rows[r] * spec.width + c], alone.values_[id][r * spec.width + c])
              << "group " << g << " output " << id << " row " << r;
        }
      }
    }
  }

  Layout layout;
  Graph graph;
  std::vector<float> dense, ddense;
  std::uint64_t seed = 0;    // of the step
  std::vector<float> valid;  // of auxiliary negatives, by kHistory row
  std::vector<float> age;    // of behaviours, by kHistory row; empty: no op reads it

 private:
  static constexpr float kUnset = std::numeric_limits<float>::quiet_NaN();
  struct Memory {
    std::vector<float> packed, saved, scratch;
  };

  OpContext context(std::size_t op, bool training) {
    memory_[op].scratch.assign(graph.ops()[op]->scratch_floats(layout), kUnset);
    OpContext context;
    context.layout = &layout;
    context.input = &part_;
    context.training = training;
    context.params = dense.data();
    context.dparams = ddense.data();
    context.packed = memory_[op].packed.data();
    context.saved = memory_[op].saved.data();
    context.scratch = memory_[op].scratch.data();
    context.loss = &loss_;
    context.values = views_;
    context.grads = dviews_;
    context.seed = seed;
    return context;
  }

  Numbers as_numbers() const {
    Numbers numbers;
    for (const auto& tensor : values_) numbers.tensors.emplace_back(tensor.begin(), tensor.end());
    numbers.dense.assign(dense.begin(), dense.end());
    return numbers;
  }

  void expect_gradient(const Naive& naive, Numbers& numbers, double& x, float gradient,
                       const std::string& what) {
    constexpr double kStep = 1e-5;
    const auto objective = [&] {
      double sum = naive(numbers);
      for (TensorId id : outputs_) {
        for (std::size_t i = 0; i < numbers.tensors[id].size(); ++i) {
          sum += weight(id, i) * numbers.tensors[id][i];
        }
      }
      return sum;
    };
    const double before = x;
    x = before + kStep;
    const double up = objective();
    x = before - kStep;
    const double down = objective();
    x = before;
    const double difference = (up - down) / (2 * kStep);
    EXPECT_NEAR(gradient, difference, 1e-4 * std::max(1.0, std::abs(difference))) << what;
  }

  std::vector<std::int32_t> rows_of(Rows space, std::int32_t g) const {
    std::vector<std::int32_t> rows;
    const std::int32_t k = layout.candidates;
    const bool steps = space == Rows::kHistory || space == Rows::kHistorySample;
    const bool each = space == Rows::kSample || space == Rows::kHistorySample;
    for (std::int32_t t = 0; t < (steps ? lengths_[g] : 1); ++t) {
      const std::int32_t shared = steps ? row(t, g) : g;
      for (std::int32_t c = 0; c < (each ? k : 1); ++c) {
        rows.push_back(each ? shared * k + c : shared);
      }
    }
    return rows;
  }

  void copy_group(std::int32_t g, OpHarness& alone, TensorId id) {
    const TensorSpec& spec = graph.spec(id);
    const std::vector<std::int32_t> rows = rows_of(spec.rows, g);
    for (std::size_t r = 0; r < rows.size(); ++r) {
      std::copy_n(values_[id].begin() + rows[r] * spec.width, spec.width,
                  alone.values_[id].begin() + r * spec.width);
    }
  }

  std::vector<std::int32_t> lengths_, step_rows_, step_offset_;
  std::vector<TensorId> inputs_, outputs_;
  std::vector<std::vector<float>> values_, grads_;
  std::vector<Matrix> views_, dviews_;
  std::vector<Memory> memory_;
  PartInput part_;
  double loss_ = 0;
};

}  // namespace meander::nn
