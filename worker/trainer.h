// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "common/buffer.h"
#include "common/executor.h"
#include "common/metrics.h"
#include "common/partition.h"
#include "data/batch.h"
#include "nn/graph.h"
#include "nn/neighbourhood.h"
#include "ps/client.h"
#include "worker/dense_blocks.h"
#include "worker/worker.h"

namespace meander::worker {

// Float memory that grows and is used again.
class Floats {
 public:
  // `size` floats at a cache line, not initialised; the former contents are lost.
  std::span<float> take(std::size_t size);
  std::span<float> get() { return floats_; }
  std::span<const float> get() const { return floats_; }

 private:
  Buffer memory_;
  std::span<float> floats_;
};

// One batch on its way through a worker, with all memory that it needs. Buffers handed to the
// parameter server are views that hold the step, so its memory is free when nobody else holds it.
struct Step {
  enum State { kBuilding, kBuilt, kPulling, kPulled, kComputing, kComputed, kPushing, kAcked };
  State state = kBuilding;
  ps::BatchId id;
  bool last = false;       // of its stream
  bool read_only = false;  // of a slice that is scored
  data::Batch batch;
  std::vector<Buffer> rows;       // pulled, by table
  Floats dense, logits;           // (dense_size), (samples)
  Floats second_logits;           // (samples), of a graph with a second task
  Floats ranks;                   // (groups), of a slice whose graph has them
  Floats ddense;                  // (dense_size + 1): and 1 if the step holds samples, else 0
  std::vector<Floats> gradients;  // by table: (keys, width)
  double loss = 0;
  Status status;  // of building, then of computing it

  // A stream may end with steps that hold no samples.
  bool empty() const { return batch.samples == 0; }
};

// Runs the model on steps. The parameter server's tables are the graph's and, behind them, those of
// the dense vector (dense_tables()). train() and infer() belong to one thread at a time.
class Trainer {
 public:
  // `collective`: may be null; `frozen`: by table (worker.h).
  Trainer(const nn::Graph& graph, std::uint32_t dense_block, float clip_norm,
          Collective* collective = nullptr, nn::Precision precision = nn::Precision::kF32,
          std::vector<nn::ConstMatrix> frozen = {});

  // Floats of a row, by table.
  std::vector<std::uint32_t> widths() const;
  // Tables before those of the dense vector.
  std::uint32_t graph_tables() const { return static_cast<std::uint32_t>(graph_.tables()); }
  // Before the first keys(), and not while a step is being worked on.
  void set_partitions(const PartitionMap& partitions);

  // What to pull and to push for a step, in place of what is in `all`; the buffers keep it alive.
  void keys(const std::shared_ptr<Step>& step, std::vector<Buffer>& all) const;
  void gradients(const std::shared_ptr<Step>& step, std::vector<Buffer>& all) const;

  // Whether a step must go through train() or infer(): one without samples only to be in step with
  // the other workers.
  bool has_work(const Step& step) const;
  // From step.rows to gradients, logits and loss. The dense gradient is scaled down to clip_norm
  // (0: never); statistics are not part of it. Errors: the collective's.
  Status train(Step& step, Executor& executor);
  // From step.rows to logits.
  void infer(Step& step, Executor& executor);

 private:
  bool moves_dense(const Step& step) const;
  void bind(Step& step);
  nn::StepInput input_of(const Step& step) const;  // of a bound one
  void keep_second_logits(Step& step) const;
  void bind_gradients(Step& step);
  Status gather_dense(Step& step);
  Status average(std::span<float> ddense_and_count) const;
  void clip(std::span<float> ddense) const;

  const nn::Graph& graph_;
  const float clip_norm_;
  Collective* const collective_;
  const std::vector<nn::ConstMatrix> frozen_;
  std::vector<DenseBlocks> dense_;
  std::vector<Buffer> dense_keys_;
  nn::Session session_;
  // Of the step being worked on.
  std::vector<nn::PartInput> parts_;
  std::vector<nn::ConstMatrix> tables_;
  std::vector<nn::Matrix> dtables_;
  std::vector<nn::Catalogue> catalogues_;
  nn::Neighbourhood neighbourhood_;
  std::size_t parts_used_ = 0;
};

// The part of a batch as the graph sees it: spans only. `part` must outlive it.
void bind_part(const data::Batch& batch, const data::Part& part, nn::PartInput& input);
// The same of what was drawn around a batch's targets.
void bind_neighbourhood(const data::Neighbourhood& drawn, nn::Neighbourhood& input);

// Adds the logits of a step and its labels to `scores`.
void add_scores(const Step& step, ScoreSums& scores);
// The same of the second task, where the graph has one: of the samples whose label is known.
void add_second_scores(const Step& step, ScoreSums& scores);
// Adds the places of a held-out step's targets, among their own negatives, or where they have none
// among the catalogue that the graph ranks; and all scores to the segments that they belong to.
void add_ranks(const Step& step, Accumulator& sums);
// Adds a training step's targets to the curve of the pass.
void add_curve(const Step& step, Accumulator& sums);

}  // namespace meander::worker
