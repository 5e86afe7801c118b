// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "nn/graph.h"

namespace meander::launch::bench {

// One part of a batch with everything that a model's ops need to work on it, so that each op's
// forward and backward pass can be timed by itself, between its neighbours as in training. Random
// rows; histories of one length. One thread at a time; the graph outlives it.
class OpStep {
 public:
  OpStep(const nn::Graph& graph, std::int32_t groups, std::int32_t candidates, std::int32_t length);

  // Of one step, by op of the graph. Ops that see the whole batch are left out: 0.
  struct Times {
    std::vector<double> forward_s, backward_s;
  };
  // Goes through all ops forward and then back, `steps` times, and adds up what each took.
  Times run(int steps);
  const nn::Layout& layout() const { return input_.layout; }

 private:
  void lay_out_rows(std::int32_t groups, std::int32_t candidates, std::int32_t length);
  void draw_columns();
  void allocate();
  void clear_gradients();

  static constexpr std::uint32_t kKeys = 2000;  // distinct ones of a batch, in each table

  const nn::Graph& graph_;
  std::size_t ops_ = 0;  // before the first that sees the whole batch
  std::vector<std::int32_t> lengths_, step_rows_, step_offset_;
  std::vector<std::vector<std::uint32_t>> columns_;
  std::vector<float> valid_, label_;
  std::vector<float> memory_, dense_, ddense_;
  std::vector<std::vector<float>> rows_, drows_;
  std::vector<nn::Matrix> values_, grads_, dtables_;
  std::vector<nn::ConstMatrix> tables_;
  std::vector<nn::OpContext> contexts_;  // by op
  nn::PartInput input_;
  double loss_ = 0;
};

}  // namespace meander::launch::bench
