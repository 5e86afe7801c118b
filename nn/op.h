// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/executor.h"
#include "nn/layout.h"
#include "nn/matrix.h"

namespace meander::nn {

using TensorId = std::int32_t;
using ParamId = std::int32_t;
constexpr TensorId kNoTensor = -1;

// Initial values of a dense parameter; each is a pure function of (seed, parameter name, index).
struct Init {
  enum Kind { kConstant, kGlorotUniform } kind = kConstant;
  float value = 0;  // kConstant
  // kGlorotUniform draws from +-sqrt(6 / (fan_in + fan_out)); 0 takes the parameter's rows, cols.
  std::int32_t fan_in = 0, fan_out = 0;
};

struct ParamSpec {
  std::string name;  // "gru1/gates/kernel": unique in the graph, part of the checkpoint
  std::int32_t rows = 0, cols = 0;
  Init init;
  // A moving statistic: the op's backward writes (param - observed) as its gradient, and plain SGD
  // with a small rate makes it a moving mean. Excluded from clipping and from regularisation.
  bool is_statistic = false;
  std::size_t offset = 0;  // in the dense vector; set by the graph
};

// A parameter as its op holds it. place() is for Op::place_params(); then in() finds it in the
// dense vector or in its gradient.
struct OpParam {
  ParamId id = -1;
  std::size_t offset = 0;
  void place(const std::vector<ParamSpec>& params) { offset = params[id].offset; }
  const float* in(const float* dense) const { return dense + offset; }
  float* in(float* dense) const { return dense + offset; }
};

struct TensorSpec {
  Rows rows = Rows::kSample;
  std::int32_t width = 0;
  bool has_grad = true;
};

// kPart: works one part alone, on any thread. kBatch: sees the kSample and kGroup rows of all parts
// at once (a mean over the batch, a graph of all rows); every op after one of these is at batch
// scope too. Its inputs may also be kHistory tensors, which it finds part by part.
enum class Scope { kPart, kBatch };

// The tensors of one part, by TensorId.
struct PartTensors {
  std::span<const Matrix> values, grads;
};

// What forward() and backward() work on. Everything is preallocated.
struct OpContext {
  const Layout* layout = nullptr;
  const PartInput* input = nullptr;  // null at batch scope
  bool training = false;             // false: inference; no loss, nothing kept for backward
  const float* params = nullptr;     // the dense vector; a parameter starts at its offset
  float* dparams = nullptr;          // += here; each part has its own
  const float* packed = nullptr;     // this op's packed_floats(), filled by pack() once a step
  float* saved = nullptr;            // this op's saved_floats(), kept from forward to backward
  float* scratch = nullptr;          // scratch_floats(), shared by all ops: no value survives an op
  double* loss = nullptr;            // += the op's share of the batch's loss (losses only)
  std::span<const float> labels;     // of this scope's kSample rows; empty at inference
  std::span<const Matrix> values;    // by TensorId
  std::span<const Matrix> grads;     // by TensorId; zero at the start of training; ops add
  // Embedding tables of this step: rows (keys, width) and their gradients (add), by table. A frozen
  // table has no rows of gradients.
  std::span<const ConstMatrix> tables;
  std::span<const Matrix> dtables;
  std::span<const Catalogue> catalogues;  // by table; empty where the graph asked for none
  // Differs from step to step and from part to part, for draws (dropout) that do not depend on
  // threads: value i of an op is drawn from hash64(seed, the op's own number, i).
  std::uint64_t seed = 0;
  // At batch scope alone: all parts' inputs, in order, and who runs tasks beside each other (each
  // with the precision of the step, whatever its thread).
  std::span<const PartInput> parts;
  std::span<const PartTensors> part_tensors;  // of each part
  Executor* executor = nullptr;

  Matrix value(TensorId t) const { return values[t]; }
  Matrix grad(TensorId t) const { return grads[t]; }
};

class GraphWriter;

// One big operation: forward, backward and its ONNX form side by side in one file of nn/ops.
// Ops hold no state between calls: all of it is in the context, so one graph serves all threads.
class Op {
 public:
  virtual ~Op() = default;
  virtual std::string name() const = 0;  // "din/attention": for profiles and messages
  virtual Scope scope() const { return Scope::kPart; }
  virtual std::vector<TensorId> inputs() const = 0;
  virtual std::vector<TensorId> outputs() const = 0;

  // Called once, by Graph::finish(): the op notes where its parameters start in the dense vector
  // (params[id].offset).
  virtual void place_params(const std::vector<ParamSpec>& params) {}
  // Floats of weights in kernel order; pack() fills them from the dense vector once a step.
  virtual std::size_t packed_floats() const { return 0; }
  virtual void pack(const float* params, float* packed) const {}
  virtual std::size_t saved_floats(const Layout& layout) const { return 0; }
  virtual std::size_t scratch_floats(const Layout& layout) const { return 0; }

  // Writes its output tensors. In training, losses also add to *context.loss, and may add to the
  // gradients of their inputs there, while the rows are at hand.
  virtual void forward(const OpContext& context) const = 0;
  // Adds into the gradients of its inputs (those with has_grad), parameters and tables. A loss
  // starts the chain: its backward is scaled so that the batch's loss is the mean the op promises.
  virtual void backward(const OpContext& context) const = 0;
  // Adds the nodes that compute the same for inference. Shapes in nn/graph_writer.h.
  virtual void emit_onnx(GraphWriter& writer) const = 0;
};

}  // namespace meander::nn
