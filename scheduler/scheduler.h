// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/metrics.h"
#include "common/storage.h"
#include "net/transport.h"
#include "proto/manifest.pb.h"

namespace meander::scheduler {

struct SchedulerOptions {
  std::uint64_t cluster = 0;   // id of the run, drawn at start
  std::uint64_t nonce = 0;     // of this process, for the journal
  std::uint32_t lanes = 1;     // at the start
  std::uint32_t replicas = 0;  // of each lane: 0, or 1 process that stands by
  std::uint32_t workers = 1;
  std::uint32_t streams = 1;            // logical streams: one per worker of the job
  std::int64_t staleness = 0;           // wire.proto, LaneSetup
  std::vector<wire::TableSpec> tables;  // the graph's, then "dense"
  // Rows to start from, by table: keys and rows (the dense parameters). Empty where none.
  struct Preset {
    std::uint32_t table;
    std::vector<std::uint64_t> keys;
    std::vector<float> rows;  // (keys, width)
  };
  std::vector<Preset> presets;

  bool train = true;           // false: only evaluate
  bool evaluate = true;        // score the held-out part at the end
  std::string model;           // identity of the model's shape, checked against a checkpoint's
  std::string job;             // resolved job, kept in the manifest
  std::string checkpoint_dir;  // empty: nothing is written
  // Keep a journal in checkpoint_dir (journal_dir()), so that a successor goes on with the run. If
  // there is one of this run, this is the successor: `cluster` and `restore` are the journal's.
  bool journal = false;
  std::string restore;  // generation directory to start from; empty: fresh
  // With restore: go on at its stream positions (resume), or keep only rows and start the streams
  // anew (other data: incremental training).
  bool restore_positions = true;
  // With positions: streams that had ended have more batches now (a further epoch).
  bool streams_go_on = false;
  double checkpoint_every_s = 0;
  std::uint32_t keep = 2;
  std::string pinned;            // a generation of checkpoint_dir that is kept besides
  std::uint32_t full_every = 8;  // generations: the others are deltas

  Duration heartbeat = std::chrono::milliseconds(500);
  Duration lease = std::chrono::seconds(5);  // a worker silent for this long has lost its streams
  Duration join = std::chrono::seconds(60);  // all roles must have appeared by then
  Duration retry = std::chrono::milliseconds(500);
};

// What is true of the run now: for the progress line, the final JSON, the dashboard.
struct Progress {
  enum Phase { kJoining, kTraining, kCutting, kEvaluating, kStopping, kDone } phase = kJoining;
  std::uint32_t lanes_ready = 0, workers_live = 0;
  std::uint32_t lanes = 0;         // that there are now
  std::uint32_t lanes_wanted = 0;  // that there are to be
  std::uint32_t scalings = 0;      // how often their number has changed
  double done = 0;                 // share of all streams
  std::uint64_t samples = 0, batches = 0;
  std::uint64_t generation = 0;
  std::uint32_t lost_workers = 0;
  std::uint32_t backups = 0;    // in step
  std::uint32_t failovers = 0;  // a backup took over
  std::uint32_t rollbacks = 0;  // of the whole cluster, because a lane was lost
  double detection_s = 0;       // silence after which the last loss was noticed
  // Of a successor: since the run's first batch might start, until it took over; and samples that
  // were trained before the run.
  double predecessors_s = 0;
  std::uint64_t samples_before = 0;
  bool is_successor = false;  // goes on with a run whose scheduler died
};

// Where in a checkpoint directory the journal is.
std::string journal_dir(const std::string& checkpoint_dir);

// Coordinates a run: membership, leases, cuts, evaluation, the end. It never sees a row.
class Scheduler final : public net::Node {
 public:
  Scheduler(SchedulerOptions options, net::Transport& transport, Storage& storage,
            const Clock& clock);
  ~Scheduler() override;
  void on_message(TimePoint now, const net::Message& message) override;
  void on_timer(TimePoint now) override;
  TimePoint next_timer() const override;
  bool finished() const override;

  // So many lanes from now on, while training goes on. Error: why not.
  Status scale(TimePoint now, std::uint32_t lanes);
  // Cut, checkpoint, stop: Ctrl-C. status() will be kInterrupted.
  void request_stop(TimePoint now);
  // The process behind a peer has died (the launcher saw it): no need to wait for the lease to end.
  void peer_died(TimePoint now, const std::string& peer);

  Status status() const;
  Progress progress() const;
  const Accumulator& training() const;  // of the whole run, over restarts
  const Accumulator& held_out() const;  // of the evaluation (in `head`)
  // The last complete generation: its directory (empty: none) and manifest.
  const std::string& generation_dir() const;
  const manifest::Manifest& manifest() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace meander::scheduler
