// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/metrics.h"
#include "worker/trainer.h"
#include "worker/worker.h"

namespace meander::worker {

// The stages of a worker, each bounded: build -> pull -> compute -> push. A stream has at most
// `depth` batches between pull and acknowledgement and one more that is built and waits; one batch
// is computed at a time, of all streams in turn. It says what has happened only when it is asked.
//
// Belongs to the worker's thread. Building and computing run in the executor; what they finish is
// taken up by the next advance(), which is due at once (next_timer()).
class Pipeline {
 public:
  Pipeline(const WorkerOptions& options, const nn::Graph& graph, OpenStream open_stream,
           OpenSlice open_slice, net::Transport& transport, Executor& executor,
           Collective* collective);
  ~Pipeline();

  // Forgets every stream and works with these lanes from now on.
  Status set_up(std::uint64_t cluster, const std::vector<std::string>& lane_endpoints);
  // Where the lanes are now; those that are elsewhere than before are asked for all that they owe.
  Status relocate(TimePoint now, const std::vector<std::string>& lane_endpoints);

  // Trains a stream from seq `next` on, instead of what was held of it.
  void lease(std::uint32_t stream, std::uint64_t epoch, std::uint64_t next);
  // A cut: no batch starts (its pull is sent) until resume(), but those that run_to() allows.
  void pause();
  void run_to(std::uint32_t stream, std::uint64_t until);
  void resume();
  // All that may start is acknowledged.
  bool drained() const;

  // Every stream held. `ended` is said once the stream's metrics are acknowledged as well.
  std::vector<wire::StreamProgress> progress() const;
  // Metrics of the batches acknowledged by every lane since the last call.
  Accumulator take_metrics();
  bool has_metrics() const { return metrics_.batches > 0; }
  void forget_metrics() { metrics_.clear(); }
  // A stream has ended since the last take_metrics().
  bool has_end() const;
  // What was last taken has arrived. True: so progress() now says that some stream has ended.
  bool metrics_arrived();

  // Scores a slice of the held-out part instead of the slice before it.
  void evaluate(std::uint32_t slice, std::uint32_t slices);
  // The scores of the slice, once all of it is scored.
  const Accumulator* evaluation() const;

  bool on_message(TimePoint now, const net::Message& message);
  void advance(TimePoint now);
  TimePoint next_timer() const;
  std::size_t in_flight() const { return client_ ? client_->in_flight() : 0; }
  // The first error of a source.
  const Status& status() const { return status_; }

 private:
  struct Run;
  using StepPtr = std::shared_ptr<Step>;
  using RunPtr = std::shared_ptr<Run>;

  StepPtr new_step();
  Run* find(const ps::BatchId& id);
  void list_in_turn();
  bool has_lanes();
  void drop(const RunPtr& run);
  bool may_start(const Run& run, std::uint64_t seq) const;
  void open(const RunPtr& run);
  void opened(Run& run, Result<std::unique_ptr<BatchSource>> source);
  void build(const RunPtr& run);
  static void fill(Run& run, Step& step);
  void built(Run& run);
  void send_pulls(TimePoint now, Run& run);
  void compute(Run& run);
  void work_on(Step& step);
  void computed();
  void send_push(TimePoint now, Run& run, const StepPtr& step);
  void finish_steps(Run& run);
  void pulled(ps::BatchId id, std::vector<Buffer>& rows);
  void pushed(ps::BatchId id);
  void drop_fenced();

  const WorkerOptions& options_;
  OpenStream open_stream_;
  OpenSlice open_slice_;
  net::Transport& transport_;
  Executor& executor_;
  Trainer trainer_;
  std::vector<std::string> lane_endpoints_;
  std::unique_ptr<ps::Client> client_;
  // Of the present lanes; a step that is worked on may be of the lanes before.
  std::shared_ptr<const PartitionMap> partitions_;
  bool is_regrouped_ = false;  // the trainer knows them
  std::map<std::uint32_t, RunPtr> streams_;
  // Streams of the set-up before: their sources need not be opened again.
  std::map<std::uint32_t, RunPtr> former_;
  RunPtr slice_;
  std::vector<std::uint32_t> fenced_;  // streams that a lane says are another's
  std::uint64_t slices_opened_ = 0;
  std::uint32_t last_computed_ = 0;  // stream
  bool paused_ = false;
  bool opening_ = false;
  bool work_done_ = false;  // in the executor: advance() has something to take up
  // What the executor works on, kept here so that its tasks need no memory of their own.
  std::vector<RunPtr> building_;  // dropped ones too
  StepPtr computing_;             // null: nothing
  std::vector<RunPtr> in_turn_;   // of advance()
  std::vector<Buffer> buffers_;   // of the request being sent
  std::vector<StepPtr> steps_;    // all that there are
  Accumulator metrics_;
  Status status_;
};

}  // namespace meander::worker
