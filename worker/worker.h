// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "common/clock.h"
#include "common/executor.h"
#include "common/partition.h"
#include "data/batch.h"
#include "net/transport.h"
#include "nn/graph.h"

namespace meander::worker {

// Where a worker's batches come from; launch/ builds it from the job (data::Stream behind it),
// tests from what they like. Each call is a pure function of its arguments, and may run on any
// thread, one call per source at a time.
class BatchSource {
 public:
  virtual ~BatchSource() = default;
  virtual std::uint64_t batches() const = 0;
  // Keys are grouped by `lanes`.
  virtual Status build(std::uint64_t seq, const PartitionMap& lanes, data::Batch& batch) = 0;
};
// A training stream, or a slice of the held-out part.
using OpenStream = std::function<Result<std::unique_ptr<BatchSource>>(std::uint32_t stream)>;
using OpenSlice =
    std::function<Result<std::unique_ptr<BatchSource>>(std::uint32_t slice, std::uint32_t slices)>;

// Sums over all workers, for `dense: allreduce`: every worker trains the stream of its own number,
// and all streams have the same number of batches (the last ones may be empty). Each step the
// worker of stream 0, who alone pulls and pushes the dense vector, hands it to the others as a sum
// in which theirs is zero; then the dense gradients of those who have samples are averaged. Called
// inside work, on any thread, by every worker in step with the others. Errors: kUnavailable, one of
// them is not there in time.
class Collective {
 public:
  virtual ~Collective() = default;
  virtual Status sum(std::span<float> values) = 0;
};

struct WorkerOptions {
  std::uint32_t index = 0;
  std::uint64_t cluster = 0;
  std::uint64_t incarnation = 0;
  std::string host;
  std::uint32_t pid = 0;
  // Batches of one stream between reading and acknowledgement. In BSP the lanes hold a pull until
  // its turn, so depth never adds staleness there; in ASP and SSP it does.
  std::uint32_t depth = 2;
  std::uint32_t dense_block = 256;  // floats of a row of the dense table
  nn::Precision precision = nn::Precision::kF32;
  // By table: all rows of the graph's frozen ones, which nobody sends. They outlive the worker.
  std::vector<nn::ConstMatrix> frozen;
  float clip_norm = 0;
  // How the rows and gradients of the graph's tables cross the wire; the dense vector's are f32.
  wire::Precision wire_precision = wire::F32;
  Duration hello_every = std::chrono::milliseconds(200);
  Duration retry = std::chrono::milliseconds(500);  // until a lane is asked again, at first
  Duration scheduler_silence = std::chrono::seconds(60);
};

// Trains the streams it holds leases for: build -> pull -> compute -> push, each stage bounded. The
// tables are the graph's, and one more behind them: the dense vector in blocks (block b is key b).
class Worker final : public net::Node {
 public:
  // `collective`: null where each push carries a dense gradient of its own (`dense: ps`).
  Worker(WorkerOptions options, const nn::Graph& graph, OpenStream open_stream,
         OpenSlice open_slice, net::Transport& transport, Executor& executor,
         Collective* collective = nullptr);
  ~Worker() override;
  void on_message(TimePoint now, const net::Message& message) override;
  void on_timer(TimePoint now) override;
  TimePoint next_timer() const override;
  bool finished() const override;
  // Why it ended; ok after an orderly Stop.
  Status status() const;
  // For tests: batches between their pull and their acknowledgement.
  std::size_t in_flight() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace meander::worker
