// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>

namespace meander {

// Where a state machine sends heavy work (a batch's compute, a file's compression), so that its own
// thread stays free for messages.
class Executor {
 public:
  virtual ~Executor() = default;
  // Runs `work` away from the owner's thread, then `done` on the owner's thread. Work submitted by
  // one owner may run concurrently and finish in any order.
  virtual void submit(std::function<void()> work, std::function<void()> done) = 0;
  // Runs body(0) ... body(n-1) in any order, on this thread and on idle ones; returns when all are
  // done. For use inside `work`.
  virtual void parallel(std::size_t n, const std::function<void(std::size_t)>& body) = 0;
  virtual std::size_t threads() const = 0;
};

// Runs everything at once on the calling thread: for tests and simulation.
class InlineExecutor final : public Executor {
 public:
  void submit(std::function<void()> work, std::function<void()> done) override {
    work();
    done();
  }
  void parallel(std::size_t n, const std::function<void(std::size_t)>& body) override {
    for (std::size_t i = 0; i < n; ++i) body(i);
  }
  std::size_t threads() const override { return 1; }
};

}  // namespace meander
