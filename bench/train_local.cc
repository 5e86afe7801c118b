// SPDX-License-Identifier: Apache-2.0
// How fast is a job's training without any cluster? The same batches, model and optimizers on plain
// arrays in memory that the keys index directly, the next batch built meanwhile: what training
// through lanes is measured against (bench/train_transports). Prints samples a second, as JSON.
//   bench_train_local JOB [samples = 200000] [threads = one per core] [--set a.b=v]...
#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "checkpoint/generation.h"
#include "common/clock.h"
#include "common/initial_row.h"
#include "common/thread_executor.h"
#include "launch/plan.h"
#include "ps/optimizer.h"
#include "worker/trainer.h"

namespace meander {
namespace {

template <class T>
T must(Result<T> result) {
  if (result.ok()) return std::move(result).value();
  std::fprintf(stderr, "%s\n", result.status().message().c_str());
  std::exit(2);
}

// Rows of one table: weights, then optimizer state, at the place that the key names.
class Rows {
 public:
  Rows(std::uint32_t index, const wire::TableSpec& spec)
      : index_(index),
        spec_(spec),
        stride_(spec.width() + checkpoint::state_width(spec.optimizer().kind(), spec.width())) {}

  void reserve(std::span<const std::uint64_t> keys) {
    for (const std::uint64_t key : keys) {
      CHECK_LT(key, std::uint64_t{1} << 24) << "not a job whose keys are small numbers";
      while (key >= rows_) add();
    }
  }
  void assign(std::span<const std::uint64_t> keys, std::span<const float> weights) {
    reserve(keys);
    for (std::size_t i = 0; i < keys.size(); ++i) {
      std::copy_n(&weights[i * spec_.width()], spec_.width(), &values_[keys[i] * stride_]);
    }
  }
  void pull(std::span<const std::uint64_t> keys, std::span<float> out) const {
    for (std::size_t i = 0; i < keys.size(); ++i) {
      std::copy_n(&values_[keys[i] * stride_], spec_.width(), &out[i * spec_.width()]);
    }
  }
  void push(std::span<const std::uint64_t> keys, std::span<const float> gradients) {
    rows_of_step_.clear();
    gradients_of_step_.clear();
    for (std::size_t i = 0; i < keys.size(); ++i) {
      rows_of_step_.push_back(&values_[keys[i] * stride_]);
      gradients_of_step_.push_back(&gradients[i * spec_.width()]);
    }
    ++step_;
    const wire::Optimizer& optimizer = spec_.optimizer();
    ps::update_kernel(optimizer.kind())(rows_of_step_.data(), gradients_of_step_.data(),
                                        keys.size(),
                                        ps::update_params(optimizer, spec_.width(), step_));
  }

 private:
  void add() {
    values_.resize(values_.size() + stride_);
    float* row = &values_[rows_ * stride_];
    initial_row(spec_.seed(), index_, rows_, spec_.init_range(), {row, spec_.width()});
    ps::fill_fresh_state(spec_.optimizer(), {row, spec_.width()},
                         {row + spec_.width(), stride_ - spec_.width()});
    ++rows_;
  }
  std::uint32_t index_;
  wire::TableSpec spec_;
  std::size_t stride_;
  std::uint64_t rows_ = 0;
  std::vector<float> values_;
  std::uint64_t step_ = 0;
  std::vector<float*> rows_of_step_;
  std::vector<const float*> gradients_of_step_;
};

// Builds batches one ahead, on the pool.
class Ahead {
 public:
  Ahead(ThreadPool& pool, worker::BatchSource& source) : pool_(pool), source_(source) {}
  void start(std::uint64_t seq, worker::Step& step) {
    is_done_ = false;
    pool_.run([this, seq, &step] {
      CHECK(source_.build(seq, lanes_, step.batch).ok());
      const std::lock_guard lock(mutex_);
      is_done_ = true;
      done_.notify_one();
    });
  }
  void wait() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return is_done_; });
  }

 private:
  ThreadPool& pool_;
  worker::BatchSource& source_;
  const PartitionMap lanes_ = PartitionMap::even(1);
  std::mutex mutex_;
  std::condition_variable done_;
  bool is_done_ = false;
};

void run(const launch::Plan& plan, std::uint64_t samples_max, std::uint32_t threads) {
  ThreadPool pool(std::max(1u, threads - 1));
  ThreadExecutor executor(pool, [](std::function<void()> done) { done(); });
  const auto lanes = PartitionMap::even(1);
  auto source = must(launch::open_stream(plan)(0));
  worker::Trainer trainer(*plan.graph, worker::WorkerOptions().dense_block,
                          plan.job.spec.train().clip_norm());
  trainer.set_partitions(lanes);
  std::vector<Rows> tables;
  for (std::uint32_t t = 0; t < plan.tables.size(); ++t) tables.emplace_back(t, plan.tables[t]);
  const std::vector<float> dense = plan.graph->initial_dense(plan.job.spec.train().seed());
  const auto blocks = worker::dense_tables(*plan.graph, worker::WorkerOptions().dense_block);
  for (std::size_t d = 0; d < blocks.size(); ++d) {
    std::vector<float> values(blocks[d].blocks() * blocks[d].block());
    blocks[d].scatter(dense, values);
    tables[plan.graph->tables() + d].assign(blocks[d].keys(), values);
  }
  std::shared_ptr<worker::Step> steps[2] = {std::make_shared<worker::Step>(),
                                            std::make_shared<worker::Step>()};
  std::vector<worker::Floats> rows[2];
  for (auto& r : rows) r.resize(tables.size());
  Ahead ahead(pool, *source);
  ahead.start(0, *steps[0]);
  std::uint64_t samples = 0;
  const SystemClock clock;
  TimePoint begin = clock.now();
  const std::uint64_t warm_up = std::min<std::uint64_t>(50, source->batches() / 4);
  std::vector<Buffer> keys, gradients;
  for (std::uint64_t seq = 0; seq < source->batches() && samples < samples_max; ++seq) {
    if (seq == warm_up) {
      begin = clock.now();
      samples = 0;
    }
    ahead.wait();
    const auto step = steps[seq % 2];
    if (seq + 1 < source->batches()) ahead.start(seq + 1, *steps[(seq + 1) % 2]);
    trainer.keys(step, keys);
    step->rows.resize(tables.size());
    for (std::size_t t = 0; t < tables.size(); ++t) {
      const auto table_keys = keys[t].as<std::uint64_t>();
      tables[t].reserve(table_keys);
      const std::span<float> out =
          rows[seq % 2][t].take(table_keys.size() * plan.tables[t].width());
      tables[t].pull(table_keys, out);
      step->rows[t] = Buffer::view(out.data(), out.size_bytes(), nullptr);
    }
    CHECK(trainer.train(*step, executor).ok());
    trainer.gradients(step, gradients);
    for (std::size_t t = 0; t < tables.size(); ++t) {
      tables[t].push(keys[t].as<std::uint64_t>(), gradients[t].as<float>());
    }
    samples += step->batch.samples;
  }
  const double elapsed = seconds(clock.now() - begin);
  ahead.wait();
  std::printf("{\"samples\": %llu, \"seconds\": %.3f, \"samples_per_s\": %.0f}\n",
              static_cast<unsigned long long>(samples), elapsed,
              static_cast<double>(samples) / elapsed);
}

}  // namespace
}  // namespace meander

int main(int argc, char** argv) {
  using namespace meander;
  std::vector<std::string> words(argv + 1, argv + argc), sets;
  for (auto at = std::find(words.begin(), words.end(), "--set"); at != words.end();
       at = std::find(words.begin(), words.end(), "--set")) {
    if (at + 1 == words.end()) break;
    sets.push_back(at[1]);
    words.erase(at, at + 2);
  }
  if (words.empty()) {
    std::fprintf(stderr, "usage: bench_train_local JOB [samples] [threads] [--set a.b=v]...\n");
    return 2;
  }
  const auto storage = make_posix_storage();
  const launch::Plan plan =
      must(launch::make_plan(*storage, must(launch::load_job(*storage, words[0], sets))));
  const std::uint64_t samples = words.size() > 1 ? std::stoull(words[1]) : 200'000;
  const auto threads = words.size() > 2 ? static_cast<std::uint32_t>(std::stoul(words[2]))
                                        : std::max(1u, std::thread::hardware_concurrency());
  run(plan, samples, threads);
  return 0;
}
