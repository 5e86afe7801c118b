// SPDX-License-Identifier: Apache-2.0
#include <sys/mman.h>
#include <xmmintrin.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <utility>

#include "common/check.h"
#include "common/rng.h"
#include "nn/graph.h"
#include "nn/ops/click.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;
constexpr std::size_t kLineFloats = 16;           // a cache line
constexpr std::size_t kSumChunkFloats = 1 << 14;  // of gradients, added up by one task
constexpr unsigned kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040;

// Denormals cost a hundred cycles each and mean nothing in a gradient. Set on whatever thread runs
// a part, so that results do not depend on who set it before.
class FlushDenormals {
 public:
  FlushDenormals() : before_(_mm_getcsr()) {
    _mm_setcsr(before_ | kFlushToZero | kDenormalsAreZero);
  }
  ~FlushDenormals() { _mm_setcsr(before_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned before_;
};

// Runs the tasks of an op at batch scope as the op itself runs: with the kernels and the treatment
// of denormals of the thread that called.
class StepExecutor final : public Executor {
 public:
  StepExecutor(Executor& executor, Precision precision)
      : executor_(executor), precision_(precision) {}
  void submit(std::function<void()>, std::function<void()>) override {
    LOG(FATAL) << "an op may only run tasks that it waits for";
  }
  void parallel(std::size_t n, const std::function<void(std::size_t)>& body) override {
    executor_.parallel(n, [&](std::size_t i) {
      FlushDenormals guard;
      PrecisionScope scope(precision_);
      body(i);
    });
  }
  std::size_t threads() const override { return executor_.threads(); }

 private:
  Executor& executor_;
  const Precision precision_;
};

// Memory that is planned first and then had in one piece, on huge pages where it is large: a step
// goes through all of it twice. It grows, and never shrinks.
class Arena {
 public:
  void plan() { planned_ = 0; }
  // Place of `floats` floats at a cache line, good once commit() was called.
  std::size_t take(std::size_t floats) {
    const std::size_t offset = planned_;
    planned_ += (floats + kLineFloats - 1) / kLineFloats * kLineFloats;
    return offset;
  }
  void commit() {
    if (planned_ <= capacity_) return;
    // A half more, for the next batch is of another size.
    const std::size_t bytes = (planned_ + planned_ / 2) * sizeof(float);
    const std::size_t align = bytes < kHugePage ? kLineFloats * sizeof(float) : kHugePage;
    const std::size_t size = (bytes + align - 1) / align * align;
    memory_.reset();
    memory_.reset(static_cast<float*>(std::aligned_alloc(align, size)));
    CHECK(memory_ != nullptr) << "no memory for the " << size << " bytes of a training step";
    if (align == kHugePage) madvise(memory_.get(), size, MADV_HUGEPAGE);  // a wish
    capacity_ = size / sizeof(float);
  }
  std::size_t planned() const { return planned_; }
  float* at(std::size_t offset) const { return memory_.get() + offset; }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::unique_ptr<float[], Free> memory_;
  std::size_t planned_ = 0, capacity_ = 0;
};

void zero(float* data, std::size_t floats) {
  if (floats != 0) std::memset(data, 0, floats * sizeof(float));
}

// Of a matrix without gaps.
std::size_t floats_of(const Matrix& matrix) {
  return static_cast<std::size_t>(matrix.rows) * matrix.cols;
}

std::size_t floats_packed(const Op& op, Precision precision) {
  PrecisionScope scope(precision);
  return op.packed_floats();
}

// Valid negatives that have a state before them: all but those of the first step.
std::int32_t negatives_of(const PartInput& part) {
  const std::span<const float> valid = part.negative_valid;
  CHECK_EQ(valid.size(), static_cast<std::size_t>(part.layout.history_rows));
  const auto first = valid.begin() + part.layout.groups;
  return static_cast<std::int32_t>(
      std::count_if(first, valid.end(), [](float x) { return x != 0; }));
}

// What the ops of one scope work in: of one part, or of the whole batch.
struct Workspace {
  Arena arena;
  std::vector<std::size_t> value_at, grad_at, saved_at, dtable_at;
  std::size_t scratch_at = 0, dparams_at = 0;
  // Gradients: of tensors, then of parameters and tables.
  std::size_t grads_begin = 0, sums_begin = 0, sums_end = 0;
  std::vector<Matrix> values, grads, dtables;
  Layout layout;
  OpContext context;
  double loss = 0;

  explicit Workspace(const Graph& graph)
      : value_at(graph.tensor_specs().size()),
        grad_at(graph.tensor_specs().size()),
        saved_at(graph.ops().size()),
        dtable_at(graph.tables()),
        values(graph.tensor_specs().size()),
        grads(graph.tensor_specs().size()),
        dtables(graph.tables()) {}

  void zero(std::size_t begin, std::size_t end) { nn::zero(arena.at(begin), end - begin); }
};

}  // namespace

struct Session::Memory {
  Memory(const Graph& graph, Precision precision);

  void begin(const StepInput& input, bool training);
  void forward(Executor& executor);
  void backward(Executor& executor, const StepOutput& output);
  void sum_gradients(Executor& executor);
  double loss() const;

  // Of the step under way.
  Precision precision() const { return training ? train_precision : Precision::kF32; }
  bool at_batch(TensorId id) const { return in_batch[id]; }
  std::int32_t gradient_rows(std::size_t table) const {
    return frozen[table] ? 0 : input->tables[table].rows;
  }
  std::span<const float> logits() const {
    const Matrix& all = batch.values[graph.logits()];
    return {all.data, static_cast<std::size_t>(all.rows)};
  }

  const Graph& graph;
  const Precision train_precision;
  std::size_t part_ops = 0;    // ops before this one work one part alone
  std::vector<char> in_batch;  // by tensor: its rows of all parts lie together
  std::vector<char> frozen;    // by table
  std::vector<std::size_t> packed_at;
  Arena packed;
  std::vector<std::unique_ptr<Workspace>> parts;
  Workspace batch;
  std::vector<PartTensors> part_tensors;
  std::vector<float> labels;
  // The step under way, for the tasks of the executor.
  const StepInput* input = nullptr;
  const StepOutput* output = nullptr;
  bool training = false;
  std::vector<std::size_t> first_task;  // of each table's sum, then of the dense vector's

 private:
  void size_batch();
  void bind_inputs();
  void lay_out(Workspace& space, const Layout& layout, bool whole_batch, bool own_sums);
  void lay_out_part(std::size_t part);
  void run_part_forward(std::size_t part);
  void begin_sums();
  void run_part_backward(std::size_t part);
  OpContext batch_context(std::size_t op, Executor& executor) const;
  OpContext context_of(const Workspace& space, std::size_t op) const;
  void sum_task(std::size_t task) const;
};

Session::Memory::Memory(const Graph& g, Precision precision)
    : graph(g), train_precision(precision), batch(g) {
  CHECK_NE(g.logits(), kNoTensor);
  const auto& ops = g.ops();
  while (part_ops < ops.size() && ops[part_ops]->scope() == Scope::kPart) ++part_ops;
  in_batch.assign(g.tensor_specs().size(), 0);
  in_batch[g.logits()] = 1;
  if (g.ranks() != kNoTensor) in_batch[g.ranks()] = 1;
  for (std::size_t op = part_ops; op < ops.size(); ++op) {
    for (TensorId id : ops[op]->inputs()) in_batch[id] = g.spec(id).rows != Rows::kHistory;
    for (TensorId id : ops[op]->outputs()) in_batch[id] = 1;
  }
  for (std::int32_t t = 0; t < g.tables(); ++t) frozen.push_back(g.is_frozen(t));
  packed_at.resize(ops.size());
  for (std::size_t op = 0; op < ops.size(); ++op) {
    packed_at[op] = packed.take(
        std::max(floats_packed(*ops[op], Precision::kF32), floats_packed(*ops[op], precision)));
  }
  packed.commit();
}

void Session::Memory::begin(const StepInput& step, bool is_training) {
  input = &step;
  training = is_training;
  CHECK(!step.parts.empty());
  CHECK_EQ(step.dense.size(), graph.dense_size());
  CHECK_EQ(step.tables.size(), static_cast<std::size_t>(graph.tables()));
  while (parts.size() < step.parts.size()) parts.push_back(std::make_unique<Workspace>(graph));
  size_batch();
  PrecisionScope scope(precision());  // ops at batch scope may keep packed weights in saved memory
  lay_out(batch, batch.layout, true, false);
  bind_inputs();
}

// The batch's own layout: sample and group rows of the parts, one part after another.
void Session::Memory::size_batch() {
  batch.layout = {};
  for (const PartInput& part : input->parts) {
    const Layout& layout = part.layout;
    if (layout.groups == 0) continue;  // a small batch may leave parts empty
    if (batch.layout.groups == 0) batch.layout.candidates = layout.candidates;
    CHECK_EQ(layout.candidates, batch.layout.candidates);
    batch.layout.groups += layout.groups;
    batch.layout.batch_longest = std::max(batch.layout.batch_longest, layout.steps());
    batch.layout.batch_history_rows += layout.history_rows;
    if (training && graph.needs_negatives()) batch.layout.batch_negatives += negatives_of(part);
  }
  CHECK_GT(batch.layout.groups, 0) << "an empty batch";
  batch.layout.neighbourhood = input->neighbourhood;
  batch.layout.batch_groups = batch.layout.groups;
  for (const Catalogue& catalogue : input->catalogues) {
    batch.layout.catalogue_rows =
        std::max(batch.layout.catalogue_rows, static_cast<std::int32_t>(catalogue.rows.size()));
  }
}

void Session::Memory::bind_inputs() {
  labels.clear();
  part_tensors.clear();
  batch.context.layout = &batch.layout;
  batch.context.input = nullptr;
  batch.context.tables = input->tables;
  batch.context.catalogues = input->catalogues;
  batch.context.parts = input->parts;
  batch.context.seed = hash64(input->seed, input->parts.size());
  for (std::size_t p = 0; p < input->parts.size(); ++p) {
    const PartInput& part = input->parts[p];
    Layout& layout = parts[p]->layout;
    layout = part.layout;
    layout.batch_groups = batch.layout.batch_groups;
    layout.batch_longest = batch.layout.batch_longest;
    layout.batch_negatives = batch.layout.batch_negatives;
    layout.batch_history_rows = batch.layout.batch_history_rows;
    layout.catalogue_rows = batch.layout.catalogue_rows;
    part_tensors.push_back({parts[p]->values, parts[p]->grads});
    OpContext& context = parts[p]->context;
    context.layout = &layout;
    context.input = &part;
    context.tables = input->tables;
    context.dtables = parts[p]->dtables;
    context.catalogues = input->catalogues;
    context.seed = hash64(input->seed, p);
    context.labels = training ? part.label : std::span<const float>();
    if (training) {
      CHECK_EQ(part.label.size(), static_cast<std::size_t>(part.layout.samples()));
      labels.insert(labels.end(), part.label.begin(), part.label.end());
    }
  }
  batch.context.labels = labels;
  batch.context.part_tensors = part_tensors;
}

// Places the tensors and op memory that `space` itself holds; the rest are views of the batch's.
// `own_sums`: gradients of parameters and tables, too.
void Session::Memory::lay_out(Workspace& space, const Layout& layout, bool whole_batch,
                              bool own_sums) {
  const auto& specs = graph.tensor_specs();
  const auto& ops = graph.ops();
  const std::size_t begin = whole_batch ? part_ops : 0, end = whole_batch ? ops.size() : part_ops;
  const auto floats = [&](std::size_t id) {
    return static_cast<std::size_t>(layout.rows(specs[id].rows)) * specs[id].width;
  };
  Arena& arena = space.arena;
  arena.plan();
  for (std::size_t id = 0; id < specs.size(); ++id) {
    if (at_batch(id) == whole_batch) space.value_at[id] = arena.take(floats(id));
  }
  std::size_t scratch = 0;
  for (std::size_t op = begin; op < end; ++op) {
    space.saved_at[op] = arena.take(ops[op]->saved_floats(layout));
    scratch = std::max(scratch, ops[op]->scratch_floats(layout));
  }
  space.scratch_at = arena.take(scratch);
  space.grads_begin = arena.planned();
  for (std::size_t id = 0; training && id < specs.size(); ++id) {
    if (at_batch(id) == whole_batch && specs[id].has_grad)
      space.grad_at[id] = arena.take(floats(id));
  }
  space.sums_begin = arena.planned();
  if (training && own_sums) {
    space.dparams_at = arena.take(graph.dense_size());
    for (std::size_t t = 0; t < input->tables.size(); ++t) {
      const ConstMatrix& rows = input->tables[t];
      CHECK_EQ(rows.cols, graph.table_width(t));
      space.dtable_at[t] = arena.take(static_cast<std::size_t>(gradient_rows(t)) * rows.cols);
    }
  }
  space.sums_end = arena.planned();
  arena.commit();

  for (std::size_t id = 0; id < specs.size(); ++id) {
    if (at_batch(id) != whole_batch) continue;
    const std::int32_t rows = layout.rows(specs[id].rows), width = specs[id].width;
    space.values[id] = {arena.at(space.value_at[id]), rows, width, width};
    const bool has_grad = training && specs[id].has_grad;
    space.grads[id] = {has_grad ? arena.at(space.grad_at[id]) : nullptr, rows, width, width};
  }
  space.context.training = training;
  space.context.params = input->dense.data();
  space.context.scratch = arena.at(space.scratch_at);
  space.context.loss = &space.loss;
  space.context.values = space.values;
  space.context.grads = space.grads;
  space.loss = 0;
}

void Session::Memory::lay_out_part(std::size_t p) {
  Workspace& space = *parts[p];
  const Layout& layout = space.layout;
  const bool own_sums = p > 0 && part_ops > 0;
  lay_out(space, layout, false, own_sums);
  std::int32_t groups_before = 0;
  for (std::size_t q = 0; q < p; ++q) groups_before += input->parts[q].layout.groups;
  const auto view = [&](const Matrix& all, Rows space_of_rows) -> Matrix {
    const std::int32_t first =
        space_of_rows == Rows::kSample ? groups_before * layout.candidates : groups_before;
    return {all.data == nullptr ? nullptr : all.row(first), layout.rows(space_of_rows), all.cols,
            all.stride};
  };
  for (std::size_t id = 0; id < graph.tensor_specs().size(); ++id) {
    if (!at_batch(id)) continue;
    space.values[id] = view(batch.values[id], graph.spec(id).rows);
    space.grads[id] = view(batch.grads[id], graph.spec(id).rows);
  }
  if (!training || !own_sums) return;
  space.context.dparams = space.arena.at(space.dparams_at);
  for (std::size_t t = 0; t < input->tables.size(); ++t) {
    const ConstMatrix& rows = input->tables[t];
    space.dtables[t] = {space.arena.at(space.dtable_at[t]), gradient_rows(t), rows.cols, rows.cols};
  }
}

OpContext Session::Memory::context_of(const Workspace& space, std::size_t op) const {
  OpContext context = space.context;
  context.packed = packed.at(packed_at[op]);
  context.saved = space.arena.at(space.saved_at[op]);
  return context;
}

OpContext Session::Memory::batch_context(std::size_t op, Executor& executor) const {
  OpContext context = context_of(batch, op);
  context.executor = &executor;
  return context;
}

void Session::Memory::run_part_forward(std::size_t p) {
  FlushDenormals guard;
  PrecisionScope scope(precision());
  lay_out_part(p);
  parts[p]->zero(parts[p]->grads_begin, parts[p]->sums_begin);
  if (input->parts[p].layout.groups == 0) return;
  for (std::size_t op = 0; op < part_ops; ++op) {
    graph.ops()[op]->forward(context_of(*parts[p], op));
  }
}

void Session::Memory::forward(Executor& executor) {
  FlushDenormals guard;
  batch.zero(batch.grads_begin, batch.sums_end);
  executor.parallel(graph.ops().size(), [this](std::size_t op) {
    PrecisionScope scope(precision());
    graph.ops()[op]->pack(input->dense.data(), packed.at(packed_at[op]));
  });
  executor.parallel(input->parts.size(), [this](std::size_t p) { run_part_forward(p); });
  PrecisionScope scope(precision());
  StepExecutor tasks(executor, precision());
  for (std::size_t op = part_ops; op < graph.ops().size(); ++op) {
    graph.ops()[op]->forward(batch_context(op, tasks));
  }
}

// The first part, like the ops at batch scope before it, adds to the sums themselves.
void Session::Memory::begin_sums() {
  Workspace& space = *parts[0];
  zero(output->ddense.data(), output->ddense.size());
  batch.context.dparams = space.context.dparams = output->ddense.data();
  batch.context.dtables = output->dtables;
  for (std::size_t t = 0; t < input->tables.size(); ++t) {
    const Matrix& sum = output->dtables[t];
    CHECK_EQ(sum.rows, gradient_rows(t));
    CHECK_EQ(sum.cols, input->tables[t].cols);
    CHECK_EQ(sum.stride, sum.cols);
    space.dtables[t] = sum;
    zero(sum.data, floats_of(sum));
  }
}

void Session::Memory::run_part_backward(std::size_t p) {
  FlushDenormals guard;
  PrecisionScope scope(precision());
  Workspace& space = *parts[p];
  space.zero(space.sums_begin, space.sums_end);
  if (input->parts[p].layout.groups == 0) return;
  for (std::size_t op = part_ops; op-- > 0;) graph.ops()[op]->backward(context_of(space, op));
}

void Session::Memory::backward(Executor& executor, const StepOutput& step_output) {
  FlushDenormals guard;
  PrecisionScope scope(precision());
  output = &step_output;
  begin_sums();
  StepExecutor tasks(executor, precision());
  for (std::size_t op = graph.ops().size(); op-- > part_ops;) {
    graph.ops()[op]->backward(batch_context(op, tasks));
  }
  executor.parallel(input->parts.size(), [this](std::size_t p) { run_part_backward(p); });
}

// Adds the other parts' gradients to the first one's, in part order whatever the threads: a task
// owns a run of them.
void Session::Memory::sum_gradients(Executor& executor) {
  if (input->parts.size() == 1 || part_ops == 0) return;
  first_task.clear();
  std::size_t tasks = 0;
  const auto add = [&](std::size_t floats) {
    first_task.push_back(tasks);
    tasks += (floats + kSumChunkFloats - 1) / kSumChunkFloats;
  };
  for (const Matrix& table : output->dtables) add(floats_of(table));
  add(output->ddense.size());
  executor.parallel(tasks, [this](std::size_t task) { sum_task(task); });
}

void Session::Memory::sum_task(std::size_t task) const {
  FlushDenormals guard;
  std::size_t what = first_task.size() - 1;
  while (task < first_task[what]) --what;
  const bool is_dense = what == output->dtables.size();
  const auto gradient = [&](std::size_t part) {
    return is_dense ? parts[part]->context.dparams : parts[part]->dtables[what].data;
  };
  const std::size_t floats = is_dense ? output->ddense.size() : floats_of(output->dtables[what]);
  const std::size_t begin = (task - first_task[what]) * kSumChunkFloats;
  const std::size_t count = std::min(kSumChunkFloats, floats - begin);
  for (std::size_t p = 1; p < input->parts.size(); ++p) {
    kernels().axpy(1.0f, gradient(p) + begin, gradient(0) + begin, count);
  }
}

double Session::Memory::loss() const {
  double sum = 0;
  for (std::size_t p = 0; p < input->parts.size(); ++p) sum += parts[p]->loss;
  return sum + batch.loss;
}

Session::Session(const Graph& graph, Precision precision)
    : memory_(std::make_unique<Memory>(graph, precision)) {}
Session::~Session() = default;

void Session::train(const StepInput& input, Executor& executor, StepOutput& output) {
  Memory& m = *memory_;
  m.begin(input, true);
  CHECK_EQ(output.ddense.size(), input.dense.size());
  CHECK_EQ(output.dtables.size(), input.tables.size());
  m.forward(executor);
  m.backward(executor, output);
  m.sum_gradients(executor);
  CHECK_EQ(output.logits.size(), m.logits().size());
  std::ranges::copy(m.logits(), output.logits.begin());
  output.loss = m.loss();
  output.cross_entropy = binary_cross_entropy(m.logits(), m.labels);
}

void Session::infer(const StepInput& input, Executor& executor, std::span<float> logits,
                    std::span<float> ranks) {
  Memory& m = *memory_;
  m.begin(input, false);
  m.forward(executor);
  CHECK_EQ(logits.size(), m.logits().size());
  std::ranges::copy(m.logits(), logits.begin());
  if (ranks.empty()) return;
  const Matrix& all = m.batch.values[m.graph.ranks()];
  CHECK_EQ(ranks.size(), static_cast<std::size_t>(all.rows));
  std::copy_n(all.data, all.rows, ranks.begin());
}

ConstMatrix Session::value(TensorId id, std::size_t part) const {
  return memory_->at_batch(id) ? memory_->batch.values[id] : memory_->parts.at(part)->values[id];
}

ConstMatrix Session::gradient(TensorId id, std::size_t part) const {
  return memory_->at_batch(id) ? memory_->batch.grads[id] : memory_->parts.at(part)->grads[id];
}

}  // namespace meander::nn
