// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <thread>
#include <vector>

#include "common/executor.h"

namespace meander::nn {

// Every index on a thread of its own, the last one first.
class ThreadsExecutor final : public Executor {
 public:
  void submit(std::function<void()> work, std::function<void()> done) override {
    work();
    done();
  }
  void parallel(std::size_t n, const std::function<void(std::size_t)>& body) override {
    std::vector<std::thread> threads;
    for (std::size_t i = n; i-- > 0;) threads.emplace_back([&body, i] { body(i); });
    for (std::thread& thread : threads) thread.join();
  }
  std::size_t threads() const override { return 4; }
};

}  // namespace meander::nn
