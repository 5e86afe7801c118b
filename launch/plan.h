// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/stream.h"
#include "launch/job.h"
#include "models/model.h"
#include "nn/graph.h"
#include "proto/manifest.pb.h"
#include "proto/wire.pb.h"
#include "scheduler/scheduler.h"
#include "worker/worker.h"

namespace meander::launch {

// What a job means on a prepared log: every role of a run is built from this, and two processes
// with the same job and log make the same plan.
struct Plan {
  LoadedJob job;
  std::shared_ptr<const data::PreparedLog> log;
  std::shared_ptr<const data::Content> content;  // null: no slot reads it
  // What batches draw neighbours from; null: nothing.
  std::shared_ptr<const data::NeighbourGraph> neighbours;
  std::size_t words = 0;  // distinct ones of a log of nodes
  models::ModelSpec model;
  std::shared_ptr<const nn::Graph> graph;
  data::StreamSpec train;     // index and count are set for each stream
  data::StreamSpec held_out;  // always one stream, so that its batches do not depend on the workers
  bool trains = true, evaluates = true;
  std::vector<wire::TableSpec> tables;  // the graph's, then the dense vector's
  // Kind and shape of the model: what a checkpoint must have in common with the job.
  std::string identity;

  std::uint32_t lanes() const;
  std::uint32_t workers() const { return job.spec.cluster().workers(); }
  // 0 BSP, s SSP, -1 ASP (wire.proto, LaneSetup).
  std::int64_t staleness() const;
};

// Opens the log that the job names and builds the model. kNotFound: there is no log (the message
// says how to prepare one). kInvalid: the job does not fit the log. kCorrupt: the log is damaged.
Result<Plan> make_plan(Storage& storage, LoadedJob job);

// The scheduler's part; where to restore from is left to the caller. `cluster`: id of the run.
scheduler::SchedulerOptions scheduler_options(const Plan& plan, std::uint64_t cluster);

// Samples that are trained once every stream of `manifest` stands where it says; without positions
// (null) the whole pass. What workers report falls short of it when one dies before its heartbeat.
Result<std::uint64_t> samples_until(const Plan& plan, const manifest::Manifest* manifest);

// Dense parameters are averaged over the workers each step, instead of pushed by each.
bool averages_dense(const Plan& plan);
// What a training step's products are computed in.
nn::Precision precision_of(const Plan& plan);
// kInvalid when the plan averages: only `mpirun meander train` does.
Status check_no_averaging(const Plan& plan);

// By table: the rows that every worker holds, as WorkerOptions has them. The plan must outlive
// them.
std::vector<nn::ConstMatrix> frozen_rows(const Plan& plan);

// The worker's sources of batches. They share the plan's log. Where dense parameters are averaged
// all streams have the same number of batches: the last ones of the shorter streams are empty.
worker::OpenStream open_stream(const Plan& plan);
worker::OpenSlice open_slice(const Plan& plan);

}  // namespace meander::launch
