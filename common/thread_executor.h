// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "common/executor.h"

namespace meander {

// Threads that all owners of a process share. Any thread may call it.
class ThreadPool {
 public:
  // How long a thread with nothing to do, or waiting for the last helper, looks again before it
  // sleeps: a wake-up costs more than that, and the parallel parts of a batch follow each other
  // closer.
  static constexpr std::chrono::microseconds kSpin{20};

  // At least 1 thread. `niceness`: they give way to others by so much (nice(1)), where the system
  // can do that for a thread.
  explicit ThreadPool(std::size_t threads, int niceness = 0);
  // Ends the threads; tasks that have not begun are dropped.
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Runs `task` on one of the threads; in the order of the calls when there is only one.
  void run(std::function<void()> task);
  // Executor::parallel. Allocates nothing.
  void parallel(std::size_t n, const std::function<void(std::size_t)>& body);
  std::size_t threads() const { return threads_.size(); }

 private:
  struct Loop;

  void serve(int niceness);
  void notify(std::size_t threads);
  Loop* find_loop() const;
  void help(Loop& loop, std::unique_lock<std::mutex>& lock);

  std::mutex mutex_;
  std::condition_variable work_there_, helper_gone_;
  // Under the mutex:
  std::deque<std::function<void()>> tasks_;
  Loop* loops_ = nullptr;  // those that may still want a helper, newest first
  std::size_t asleep_ = 0;
  bool is_ending_ = false;
  // Counts what was added, so that a spinning thread sees it without the mutex.
  std::atomic<std::uint64_t> added_{0};
  std::vector<std::thread> threads_;
};

// A ThreadPool as the Executor of one owner. `post` must run what it is given on the owner's
// thread, and may be called from any.
class ThreadExecutor final : public Executor {
 public:
  using Post = std::function<void(std::function<void()>)>;
  ThreadExecutor(ThreadPool& pool, Post post) : pool_(pool), post_(std::move(post)) {}
  ~ThreadExecutor() override { wait_idle(); }

  void submit(std::function<void()> work, std::function<void()> done) override;
  void parallel(std::size_t n, const std::function<void(std::size_t)>& body) override {
    pool_.parallel(n, body);
  }
  std::size_t threads() const override { return pool_.threads(); }
  // Returns when all that was submitted has run and was posted.
  void wait_idle();

 private:
  ThreadPool& pool_;
  const Post post_;
  std::mutex mutex_;
  std::condition_variable idle_;
  std::size_t running_ = 0;
};

}  // namespace meander
