// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "common/thread_executor.h"
#include "launch/plan.h"

namespace meander::launch::bench {

// The same training without a cluster: rows in plain arrays, the key being the index, no messages,
// no hash, no clock. What the lanes, the messages and the scheduler cost is the difference to this.
// The next batch is built while one is trained on, as a worker does.
class LocalTrainer {
 public:
  // Adam only. Keys of the log lie below `keys`.
  LocalTrainer(const Plan& plan, std::uint64_t keys, std::uint32_t threads);
  ~LocalTrainer();
  // One pass over the log, `epochs` times; returns the samples trained.
  std::uint64_t train(std::uint32_t epochs);
  // Samples a second of this thread's processor time, it alone working: the first `batches` batches
  // of the log, built before, trained on over and over for about `seconds`.
  double steps_rate(std::uint32_t batches, double seconds);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace meander::launch::bench
