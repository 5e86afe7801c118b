// SPDX-License-Identifier: Apache-2.0
#include "launch/bench/local_trainer.h"

#include <time.h>

#include <cmath>
#include <cstring>
#include <future>

#include "common/initial_row.h"
#include "ps/simd/kernels.h"
#include "worker/trainer.h"

namespace meander::launch::bench {
namespace {

constexpr std::size_t kRowsOfTask = 256;

// Rows of one table, or the dense vector as one row: weights, then Adam's two moments.
struct Rows {
  std::uint32_t width = 0;
  std::vector<float> values;  // (keys, 3 * width)

  float* at(std::uint64_t key) { return values.data() + key * 3 * width; }
};

ps::UpdateParams adam(const job::Optimizer& optimizer, std::uint32_t width, std::uint64_t step) {
  const double b1 = optimizer.beta1(), b2 = optimizer.beta2(), t = static_cast<double>(step);
  ps::UpdateParams params;
  params.width = width;
  params.rate =
      static_cast<float>(optimizer.rate() * std::sqrt(1 - std::pow(b2, t)) / (1 - std::pow(b1, t)));
  params.epsilon = optimizer.epsilon();
  params.first = static_cast<float>(1 - b1);
  params.second = static_cast<float>(1 - b2);
  return params;
}

// Of the calling thread.
double processor_seconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

}  // namespace

struct LocalTrainer::Impl {
  Impl(const Plan& the_plan, std::uint64_t keys, std::uint32_t thread_count)
      : plan(the_plan),
        graph(*the_plan.graph),
        pool(thread_count),
        threads(pool, [](const std::function<void()>& done) { done(); }),
        session(graph, precision_of(the_plan)),
        dense(graph.initial_dense(1)),
        ddense(dense.size()),
        dense_state(3 * dense.size()) {
    for (std::int32_t t = 0; t < graph.tables(); ++t) {
      Rows& rows = tables.emplace_back();
      rows.width = static_cast<std::uint32_t>(graph.table_width(t));
      rows.values.resize(keys * 3 * rows.width);
      for (std::uint64_t key = 0; key < keys; ++key) {
        initial_row(1, static_cast<std::uint32_t>(t), key, 0.01f, {rows.at(key), rows.width});
      }
    }
    gathered.resize(tables.size());
    gradients.resize(tables.size());
    std::ranges::copy(dense, dense_state.begin());
  }

  void step(const data::Batch& batch);
  void gather(const data::Batch& batch);
  void update(const data::Batch& batch);

  const Plan& plan;
  const nn::Graph& graph;
  ThreadPool pool;
  ThreadExecutor threads;
  Executor* executor = &threads;
  nn::Session session;
  std::vector<Rows> tables;
  std::vector<float> dense, ddense, dense_state;
  std::vector<worker::Floats> gathered, gradients;
  std::vector<float> logits;
  std::vector<nn::PartInput> parts;
  std::vector<nn::ConstMatrix> inputs;
  std::vector<nn::Matrix> outputs;
  std::uint64_t steps = 0;
};

void LocalTrainer::Impl::gather(const data::Batch& batch) {
  inputs.clear();
  outputs.clear();
  for (std::size_t t = 0; t < tables.size(); ++t) {
    const std::vector<std::uint64_t>& keys = batch.keys[t];
    Rows& rows = tables[t];
    const std::size_t width = rows.width;
    const auto n = static_cast<std::int32_t>(keys.size()), w = static_cast<std::int32_t>(width);
    float* const to = gathered[t].take(keys.size() * width).data();
    float* const dto = gradients[t].take(keys.size() * width).data();
    inputs.push_back({to, n, w, w});
    outputs.push_back({dto, n, w, w});
    executor->parallel((keys.size() + kRowsOfTask - 1) / kRowsOfTask, [&](std::size_t task) {
      const std::size_t end = std::min(keys.size(), (task + 1) * kRowsOfTask);
      for (std::size_t i = task * kRowsOfTask; i < end; ++i) {
        std::memcpy(to + i * width, rows.at(keys[i]), width * sizeof(float));
      }
    });
  }
}

void LocalTrainer::Impl::update(const data::Batch& batch) {
  const ps::UpdateRows kernel = ps::kernels().adam;
  const job::Optimizer& optimizer = plan.job.spec.train().optimizer();
  ++steps;
  for (std::size_t t = 0; t < tables.size(); ++t) {
    const std::vector<std::uint64_t>& keys = batch.keys[t];
    Rows& rows = tables[t];
    const ps::UpdateParams params = adam(optimizer, rows.width, steps);
    const float* const gradient = gradients[t].get().data();
    executor->parallel((keys.size() + kRowsOfTask - 1) / kRowsOfTask, [&](std::size_t task) {
      float* to[kRowsOfTask];
      const float* by[kRowsOfTask];
      const std::size_t first = task * kRowsOfTask;
      const std::size_t n = std::min(keys.size() - first, kRowsOfTask);
      for (std::size_t i = 0; i < n; ++i) {
        to[i] = rows.at(keys[first + i]);
        by[i] = gradient + (first + i) * rows.width;
      }
      kernel(to, by, n, params);
    });
  }
  float* to = dense_state.data();
  const float* by = ddense.data();
  kernel(&to, &by, 1, adam(optimizer, static_cast<std::uint32_t>(dense.size()), steps));
  std::copy_n(dense_state.data(), dense.size(), dense.data());
}

void LocalTrainer::Impl::step(const data::Batch& batch) {
  gather(batch);
  parts.resize(batch.parts.size());
  for (std::size_t p = 0; p < parts.size(); ++p) {
    worker::bind_part(batch, batch.parts[p], parts[p]);
  }
  logits.resize(batch.samples);
  nn::StepOutput output{outputs, ddense, logits};
  session.train({parts, inputs, dense}, *executor, output);
  update(batch);
}

LocalTrainer::LocalTrainer(const Plan& plan, std::uint64_t keys, std::uint32_t threads)
    : impl_(std::make_unique<Impl>(plan, keys, threads)) {}
LocalTrainer::~LocalTrainer() = default;

std::uint64_t LocalTrainer::train(std::uint32_t epochs) {
  data::StreamSpec spec = impl_->plan.train;
  spec.epochs = epochs;
  const auto stream = data::Stream::open(impl_->plan.log, spec).value();
  const PartitionMap lanes = PartitionMap::even(1);
  data::Batch batches[2];
  stream->build(0, lanes, batches[0]);
  std::uint64_t samples = 0;
  for (std::uint64_t seq = 0; seq < stream->batches(); ++seq) {
    std::promise<void> built;
    impl_->pool.run([&] {
      if (seq + 1 < stream->batches()) stream->build(seq + 1, lanes, batches[(seq + 1) % 2]);
      built.set_value();
    });
    impl_->step(batches[seq % 2]);
    built.get_future().wait();
    samples += batches[seq % 2].samples;
  }
  return samples;
}

double LocalTrainer::steps_rate(std::uint32_t batches, double seconds) {
  const auto stream = data::Stream::open(impl_->plan.log, impl_->plan.train).value();
  std::vector<data::Batch> built(std::min<std::uint64_t>(batches, stream->batches()));
  for (std::size_t seq = 0; seq < built.size(); ++seq) {
    stream->build(seq, PartitionMap::even(1), built[seq]);
  }
  InlineExecutor inline_executor;
  impl_->executor = &inline_executor;
  const double begin = processor_seconds();
  double took = 0;
  std::uint64_t samples = 0;
  while (took < seconds) {
    for (const data::Batch& batch : built) {
      impl_->step(batch);
      samples += batch.samples;
    }
    took = processor_seconds() - begin;
  }
  impl_->executor = &impl_->threads;
  return static_cast<double>(samples) / took;
}

}  // namespace meander::launch::bench
