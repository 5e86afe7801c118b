// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/executor.h"
#include "data/stream.h"
#include "export/rows.h"
#include "export/samples.h"
#include "nn/graph.h"
#include "nn/ops/click.h"
#include "proto/wire.pb.h"

namespace meander::launch {

// The trainer's forward pass on a generation's rows, without a cluster: a key without a row gets
// its initial one, as a lane would answer. Keeps working memory: one thread at a time.
class Forward {
 public:
  // Everything is borrowed. `specs`: how the job makes each table's rows; `frozen`: by table, the
  // rows of those that nothing trains.
  Forward(const nn::Graph& graph, std::span<const artefact::TableRows> tables,
          std::span<const wire::TableSpec> specs, std::span<const float> dense,
          std::vector<nn::ConstMatrix> frozen);
  // Logits of the batch's samples, parts one after another; valid until the next run.
  std::span<const float> run(const data::Batch& batch, Executor& executor);
  // The same of the graph's second task; empty without one.
  std::span<const float> second_logits() const { return nn::second_logits(graph_, session_); }
  const nn::Session& session() const { return session_; }

 private:
  void look_up(const data::Batch& batch);

  const nn::Graph& graph_;
  std::span<const artefact::TableRows> tables_;
  std::span<const wire::TableSpec> specs_;
  std::span<const float> dense_;
  std::vector<nn::ConstMatrix> frozen_;
  nn::Session session_;
  std::vector<std::vector<float>> rows_;  // by table
  std::vector<float> logits_;
};

// About `samples` samples of a stream, as whole batches spread evenly over it.
Result<std::vector<data::Batch>> spread_batches(std::shared_ptr<const data::PreparedLog> log,
                                                const data::StreamSpec& spec,
                                                std::uint64_t samples);

// Batches as raw ids, groups in the order of their parts: that of Forward's logits. `content`: what
// the graph's frozen slots read; may be null where there are none.
artefact::Samples to_samples(std::span<const data::Batch> batches, const nn::Graph& graph,
                             const data::Content* content);

// The labels of a batch's samples in the same order.
std::vector<float> labels_of(const data::Batch& batch);

}  // namespace meander::launch
