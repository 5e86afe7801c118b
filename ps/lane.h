// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/clock.h"
#include "common/executor.h"
#include "common/storage.h"
#include "net/transport.h"

namespace meander::ps {

struct LaneOptions {
  std::uint32_t index = 0;
  std::string name;               // what the scheduler calls it; empty: "lane/<index>"
  std::uint64_t cluster = 0;      // 0: taken from the scheduler's first word
  std::uint64_t incarnation = 0;  // drawn at start
  std::string endpoint;           // where workers reach this lane
  std::string host;
  std::uint32_t pid = 0;
  Duration hello_every = std::chrono::milliseconds(200);  // until it is set up
  // A generation is written so fast while there are pushes: more takes the processor from training.
  double write_bytes_per_s = 200e6;
  Duration scheduler_silence = std::chrono::seconds(60);  // then finish: the scheduler is gone
};

// A lane: owns a set of partitions of every table, applies each push at most once and in the order
// of its stream, and answers a pull when the consistency mode allows (docs/protocol.md). No locks:
// one thread, or the simulator, calls it. Files are written and read through `storage`.
class Lane final : public net::Node {
 public:
  Lane(LaneOptions options, net::Transport& transport, Storage& storage, Executor& executor);
  ~Lane() override;
  void on_message(TimePoint now, const net::Message& message) override;
  void on_timer(TimePoint now) override;
  TimePoint next_timer() const override;
  bool finished() const override;
  // Why it ended; ok after an orderly Stop.
  Status status() const;

  // For tests and metrics.
  std::uint64_t rows() const;
  std::uint64_t next_seq(std::uint32_t stream) const;
  bool is_saving() const;            // a generation is on its way to storage
  std::size_t copies_bytes() const;  // of records that changed before they were written
  std::size_t table_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace meander::ps
