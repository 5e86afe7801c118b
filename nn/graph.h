// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/executor.h"
#include "nn/op.h"
#include "nn/precision.h"

namespace meander::nn {

// A slot as the graph sees it: a key column whose rows come from a table of this width.
struct SlotSpec {
  std::string name;
  std::int32_t table = 0;
  std::int32_t width = 0;
  bool in_history = false;  // exists for history rows too, not only for samples
  // The table's rows are given and never trained: a step has all of them, and no gradient.
  bool frozen = false;
  // Of a frozen slot: columns that one trained layer, shared by all its look-ups, brings its rows
  // to; 0: the rows as they are.
  std::int32_t projected = 0;

  // Columns that a look-up has.
  std::int32_t columns() const { return projected > 0 ? projected : width; }
};

// A model: a static list of ops over tensors, declared once, that trains, infers and exports. A
// model file calls the functions of nn/ops/*.h, each of which adds an op and returns its output.
// Read-only once built: any number of Sessions and threads share it.
class Graph {
 public:
  Graph(std::vector<SlotSpec> slots, std::int32_t numeric_features);
  Graph(Graph&&) = default;

  // For ops, while the graph is built.
  TensorId tensor(Rows rows, std::int32_t width, bool has_grad = true);
  ParamId param(std::string name, std::int32_t rows, std::int32_t cols, Init init,
                bool is_statistic = false);
  // The parameter of this name if there is one, else a new one: for ops that share it.
  ParamId shared_param(const std::string& name, std::int32_t rows, std::int32_t cols, Init init);
  void add(std::unique_ptr<Op> op);  // CHECKs the scope rule of nn/op.h
  // The scope of an op that could be at either, were it added now.
  Scope scope() const { return ops_.empty() ? Scope::kPart : ops_.back()->scope(); }
  // Declares the result: kSample logits of width 1; the score is sigmoid(logit).
  void set_logits(TensorId logits) { logits_ = logits; }
  // Declares the result of a second task, of the same form; it shall be read by a loss at batch
  // scope, and asks for second labels in training.
  void set_second_logits(TensorId logits) { second_logits_ = logits; }
  // Declares, beside the logits, where the first candidate of each history stands among the
  // catalogue: kGroup of width 1, 0 for the best. At inference only.
  void set_ranks(TensorId ranks) { ranks_ = ranks; }

  const std::vector<SlotSpec>& slots() const { return slots_; }
  std::int32_t numeric_features() const { return numeric_features_; }
  std::int32_t tables() const;  // 1 + highest table of any slot
  std::int32_t table_width(std::int32_t table) const;
  bool is_frozen(std::int32_t table) const;
  const TensorSpec& spec(TensorId id) const { return tensors_[id]; }
  const ParamSpec& param_spec(ParamId id) const { return params_[id]; }
  const std::vector<TensorSpec>& tensor_specs() const { return tensors_; }
  const std::vector<ParamSpec>& params() const { return params_; }
  const std::vector<std::unique_ptr<Op>>& ops() const { return ops_; }
  TensorId logits() const { return logits_; }
  TensorId second_logits() const { return second_logits_; }  // kNoTensor: no second task
  TensorId ranks() const { return ranks_; }                  // kNoTensor: none
  // Floats of the dense vector. Statistics come last, from dense_trained() on.
  std::size_t dense_size() const;
  std::size_t dense_trained() const;
  // Orders parameters (trained, then statistics), fixes offsets. Called once, after the last add().
  void finish();
  // The dense vector at the start of training.
  std::vector<float> initial_dense(std::uint64_t seed) const;
  // Does a forward pass read auxiliary negatives (Source::kNegative) in training?
  bool needs_negatives() const { return needs_negatives_; }
  void set_needs_negatives() { needs_negatives_ = true; }
  // What else the ops read, said by those that do: ages of behaviours, and a table's catalogue, in
  // training and at inference: every item, or (in training) those drawn for the batch.
  bool needs_age() const { return needs_age_; }
  void set_needs_age() { needs_age_ = true; }
  enum class CatalogueUse { kNone, kDrawn, kAll };
  CatalogueUse catalogue(std::int32_t table, bool training) const;
  void use_catalogue(std::int32_t table, bool training, CatalogueUse use);

 private:
  std::vector<SlotSpec> slots_;
  std::int32_t numeric_features_ = 0;
  std::vector<TensorSpec> tensors_;
  std::vector<ParamSpec> params_;
  std::vector<std::unique_ptr<Op>> ops_;
  TensorId logits_ = kNoTensor;
  TensorId second_logits_ = kNoTensor;
  TensorId ranks_ = kNoTensor;
  bool needs_negatives_ = false, needs_age_ = false;
  std::vector<CatalogueUse> catalogues_[2];  // [training], by table
  bool finished_ = false;
};

// One step's input: the parts of a batch, the rows of its keys, the dense vector.
struct StepInput {
  std::span<const PartInput> parts;
  // By table: (keys of the batch, width); of a frozen one all its rows.
  std::span<const ConstMatrix> tables;
  std::span<const float> dense;                // (dense_size)
  std::span<const Catalogue> catalogues = {};  // by table; may be empty
  std::uint64_t seed = 0;                      // of this step, for OpContext::seed
  const Neighbourhood* neighbourhood = nullptr;
};

// One step's result. The caller owns the memory; train() overwrites it.
struct StepOutput {
  // By table: dLoss/drow, (keys, width), duplicates summed; (0, width) of a frozen one.
  std::span<const Matrix> dtables;
  std::span<float> ddense;   // (dense_size)
  std::span<float> logits;   // (samples of the batch) parts one after another
  double loss = 0;           // what was minimised, with auxiliary losses
  double cross_entropy = 0;  // mean binary cross-entropy of the logits, natural log
};

// The working memory of one step at a time. It grows to the largest batch seen and then allocates
// nothing. Results depend on the number of parts, never on the number of threads.
class Session {
 public:
  // `precision` is that of train(); infer() is always in float32.
  explicit Session(const Graph& graph, Precision precision = Precision::kF32);
  ~Session();
  // Forward, losses and backward. Parts run in parallel; their gradients are added in part order.
  void train(const StepInput& input, Executor& executor, StepOutput& output);
  // Forward only; fills `logits` (samples) and, where the graph has ranks, `ranks` (groups; may be
  // empty), part after part.
  void infer(const StepInput& input, Executor& executor, std::span<float> logits,
             std::span<float> ranks = {});

  // What the last step left: a tensor's rows in one part (a tensor of batch-scope ops: all rows,
  // and `part` is ignored), and after train() its gradient. Valid until the next step.
  ConstMatrix value(TensorId id, std::size_t part) const;
  ConstMatrix gradient(TensorId id, std::size_t part) const;

 private:
  struct Memory;
  std::unique_ptr<Memory> memory_;
};

}  // namespace meander::nn
