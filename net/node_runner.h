// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <vector>

#include "common/clock.h"
#include "common/thread_executor.h"
#include "net/awake_clock.h"
#include "net/polled_transport.h"

namespace meander::net {

// Drives one Node on the thread that calls run(). Make it before the Node, which wants
// executor(), and let it outlive the Node.
class NodeRunner {
 public:
  NodeRunner(PolledTransport& transport, const Clock& clock, ThreadPool& pool);

  // The Node's: `done` of what is submitted runs inside run().
  Executor& executor() { return executor_; }
  // Hands messages, timers and what was posted to `node` until it has finished, or stop(). Then
  // waits for what it has submitted, whose `done` is dropped.
  void run(Node& node);
  // The node's time, which leaves out pauses of the process. For what runs inside run().
  TimePoint now() const { return awake_.now(); }
  // Any thread: `fn` runs inside run(), in the order of the calls; dropped once run() has returned.
  void post(std::function<void()> fn);
  // Any thread: run() returns after its present turn, whatever the node says.
  void stop();

 private:
  void run_posted(const Node& node);
  TimePoint look() { return awake_.look(clock_.now()); }

  PolledTransport& transport_;
  const Clock& clock_;
  AwakeClock awake_;  // run()'s thread
  std::mutex mutex_;
  std::vector<std::function<void()>> posted_;  // under the mutex
  std::vector<std::function<void()>> running_;
  std::atomic<bool> is_stopped_{false};
  ThreadExecutor executor_;  // last: it posts until it is gone
};

}  // namespace meander::net
