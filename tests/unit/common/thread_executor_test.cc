// SPDX-License-Identifier: Apache-2.0
#include "common/thread_executor.h"

#include <gtest/gtest.h>

#include <numeric>

namespace meander {
namespace {

// An owner's thread in a test: runs what was posted when asked to.
class Inbox {
 public:
  void post(std::function<void()> fn) {
    const std::lock_guard lock(mutex_);
    posted_.push_back(std::move(fn));
    there_.notify_one();
  }
  void run_next() {
    std::unique_lock lock(mutex_);
    there_.wait(lock, [&] { return !posted_.empty(); });
    std::function<void()> fn = std::move(posted_.front());
    posted_.pop_front();
    lock.unlock();
    fn();
  }
  ThreadExecutor::Post poster() {
    return [this](std::function<void()> fn) { post(std::move(fn)); };
  }

 private:
  std::mutex mutex_;
  std::condition_variable there_;
  std::deque<std::function<void()>> posted_;
};

TEST(ThreadPool, ParallelRunsEachIndexOnceForAnyNumberOfThreads) {
  for (std::size_t threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (std::size_t n : {0, 1, 2, 3, 4, 17, 1000}) {
      std::vector<std::atomic<int>> calls(n);
      pool.parallel(n, [&](std::size_t i) { ++calls[i]; });
      for (std::size_t i = 0; i < n; ++i) EXPECT_EQ(calls[i], 1) << "index " << i << " of " << n;
    }
  }
}

TEST(ThreadPool, ParallelReturnsOnlyWhenAllIsDone) {
  ThreadPool pool(3);
  for (int round = 0; round < 2000; ++round) {
    std::array<int, 6> squares{};  // gone after this round: a late helper would show in sanitizers
    pool.parallel(squares.size(), [&](std::size_t i) { squares[i] = static_cast<int>(i * i); });
    EXPECT_EQ(std::accumulate(squares.begin(), squares.end(), 0), 55);
  }
}

TEST(ThreadPool, IdleThreadsHelp) {
  ThreadPool pool(1);
  // Each index waits for the other: only two threads can end this.
  std::atomic<int> inside{0};
  pool.parallel(2, [&](std::size_t) {
    ++inside;
    while (inside < 2) std::this_thread::yield();
  });
  EXPECT_EQ(inside, 2);
}

TEST(ThreadPool, ParallelInsideParallelAndInsideTasksDoesNotDeadlock) {
  ThreadPool pool(2);
  Inbox inbox;
  ThreadExecutor executor(pool, inbox.poster());
  std::atomic<int> sum{0};
  for (int task = 0; task < 8; ++task) {
    executor.submit(
        [&] {
          executor.parallel(
              4, [&](std::size_t) { executor.parallel(4, [&](std::size_t) { ++sum; }); });
        },
        [] {});
  }
  for (int task = 0; task < 8; ++task) inbox.run_next();
  EXPECT_EQ(sum, 8 * 16);
}

TEST(ThreadPool, ManyOwnersMayCallParallelAtOnce) {
  ThreadPool pool(2);
  std::vector<std::thread> owners;
  std::atomic<std::size_t> sum{0};
  for (int owner = 0; owner < 3; ++owner) {
    owners.emplace_back([&] {
      for (int round = 0; round < 500; ++round) {
        pool.parallel(5, [&](std::size_t i) { sum += i; });
      }
    });
  }
  for (std::thread& owner : owners) owner.join();
  EXPECT_EQ(sum, 3u * 500 * 10);
}

TEST(ThreadPool, OneThreadRunsTasksInOrder) {
  ThreadPool pool(1);
  Inbox inbox;
  std::vector<int> order;
  for (int i = 0; i < 100; ++i) pool.run([&, i] { order.push_back(i); });
  pool.run([&] { inbox.post([] {}); });
  inbox.run_next();
  std::vector<int> expected(100);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(order, expected);
}

TEST(ThreadExecutor, WorkRunsElsewhereAndDoneOnTheOwnersThread) {
  ThreadPool pool(2);
  Inbox inbox;
  ThreadExecutor executor(pool, inbox.poster());
  const std::thread::id owner = std::this_thread::get_id();
  std::thread::id work, done;
  executor.submit([&] { work = std::this_thread::get_id(); },
                  [&] { done = std::this_thread::get_id(); });
  inbox.run_next();
  EXPECT_NE(work, owner);
  EXPECT_EQ(done, owner);
  EXPECT_EQ(executor.threads(), 2u);
}

TEST(ThreadExecutor, ItsEndWaitsForWorkThatRuns) {
  ThreadPool pool(2);
  Inbox inbox;
  std::atomic<int> finished{0};
  {
    ThreadExecutor executor(pool, inbox.poster());
    for (int i = 0; i < 50; ++i) executor.submit([&] { ++finished; }, [] {});
  }
  EXPECT_EQ(finished, 50);
}

}  // namespace
}  // namespace meander
