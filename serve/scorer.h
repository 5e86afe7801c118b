// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/executor.h"
#include "export/samples.h"
#include "nn/graph.h"
#include "serve/artefact.h"

namespace meander::serve {

// Scores raw ids with an export, by the graph that trained it. Keeps working memory, so each thread
// needs its own.
class Scorer {
 public:
  explicit Scorer(std::shared_ptr<const Artefact> artefact);

  // Groups [first, first + groups) of `samples`, scored together; logits is (groups, K), and so is
  // `second` of a model with a second task, unless it is empty.
  void score(const artefact::Samples& samples, std::int64_t first, std::int64_t groups,
             Executor& executor, std::span<float> logits, std::span<float> second = {});
  // What the last score() left in a tensor of rows for each group: (groups, width), in the order of
  // `samples`.
  void last(nn::TensorId groups, std::span<float> out) const;

 private:
  void pack(const artefact::Samples& samples, std::int64_t first, std::int64_t groups);

  std::shared_ptr<const Artefact> artefact_;
  nn::Session session_;
  // The one part of the step, as nn wants it: groups with longest history first, histories packed.
  std::vector<std::int64_t> order_;
  std::int64_t first_ = 0;
  std::vector<std::int32_t> lengths_, step_rows_, step_offset_;
  std::vector<std::vector<std::uint32_t>> target_, history_;
  std::vector<float> numeric_, age_, logits_;
};

}  // namespace meander::serve
