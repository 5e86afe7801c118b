// SPDX-License-Identifier: Apache-2.0
#include "common/thread_executor.h"

#include <immintrin.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/check.h"

namespace meander {
namespace {

// Looks at `is_over` until it holds or ThreadPool::kSpin has passed. True: it holds.
template <class Predicate>
bool spin_until(const Predicate& is_over) {
  const auto end = std::chrono::steady_clock::now() + ThreadPool::kSpin;
  do {
    for (int i = 0; i < 16; ++i) {
      if (is_over()) return true;
      _mm_pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

// One call of parallel(), on its caller's stack. Helpers enter and leave it under the pool's mutex.
struct ThreadPool::Loop {
  const std::size_t n;
  const std::function<void(std::size_t)>& body;
  std::atomic<std::size_t> next{0};     // the first index nobody has taken
  std::atomic<std::size_t> helpers{0};  // threads besides the caller that are inside
  bool is_awaited = false;              // the caller sleeps until the last helper has gone
  Loop* following = nullptr;

  bool is_exhausted() const { return next.load(std::memory_order_relaxed) >= n; }
  void work() {
    for (;;) {
      const std::size_t i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= n) return;
      body(i);
    }
  }
};

ThreadPool::ThreadPool(std::size_t threads, int niceness) {
  CHECK_GT(threads, 0u);
  for (std::size_t i = 0; i < threads; ++i) {
    threads_.emplace_back([this, niceness] { serve(niceness); });
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    CHECK(loops_ == nullptr) << "a pool ends while somebody works in it";
    is_ending_ = true;
    added_.fetch_add(1);
  }
  work_there_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::notify(std::size_t threads) {
  for (std::size_t i = 0; i < threads; ++i) work_there_.notify_one();
}

void ThreadPool::run(std::function<void()> task) {
  std::size_t sleepers = 0;
  {
    const std::lock_guard lock(mutex_);
    tasks_.push_back(std::move(task));
    added_.fetch_add(1);
    sleepers = std::min<std::size_t>(asleep_, 1);
  }
  notify(sleepers);
}

void ThreadPool::parallel(std::size_t n, const std::function<void(std::size_t)>& body) {
  if (n == 1) return body(0);
  if (n == 0) return;
  Loop loop{.n = n, .body = body};
  std::size_t sleepers = 0;
  {
    const std::lock_guard lock(mutex_);
    loop.following = std::exchange(loops_, &loop);
    added_.fetch_add(1);
    sleepers = std::min(asleep_, n - 1);
  }
  notify(sleepers);
  loop.work();

  std::unique_lock lock(mutex_);
  Loop** link = &loops_;
  while (*link != &loop) link = &(*link)->following;
  *link = loop.following;  // from here on nobody enters
  if (loop.helpers.load() == 0) return;
  lock.unlock();
  if (spin_until([&] { return loop.helpers.load(std::memory_order_acquire) == 0; })) return;
  lock.lock();
  loop.is_awaited = true;
  helper_gone_.wait(lock, [&] { return loop.helpers.load() == 0; });
}

ThreadPool::Loop* ThreadPool::find_loop() const {
  Loop* loop = loops_;
  while (loop != nullptr && loop->is_exhausted()) loop = loop->following;
  return loop;
}

void ThreadPool::help(Loop& loop, std::unique_lock<std::mutex>& lock) {
  loop.helpers.fetch_add(1);
  lock.unlock();
  loop.work();
  lock.lock();
  const bool is_awaited = loop.is_awaited;
  // The caller may return, and the loop be gone, as soon as it reads zero.
  if (loop.helpers.fetch_sub(1, std::memory_order_release) == 1 && is_awaited) {
    helper_gone_.notify_all();
  }
}

void ThreadPool::serve(int niceness) {
  // On Linux a thread has a priority of its own; elsewhere this may be refused, and is only slower.
  if (niceness != 0) setpriority(PRIO_PROCESS, 0, niceness);
  std::unique_lock lock(mutex_);
  while (!is_ending_) {
    if (Loop* loop = find_loop()) {
      help(*loop, lock);
    } else if (!tasks_.empty()) {
      std::function<void()> task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      task();
      task = nullptr;
      lock.lock();
    } else {
      const std::uint64_t seen = added_.load();
      const auto is_something_new = [&] { return added_.load(std::memory_order_acquire) != seen; };
      lock.unlock();
      const bool is_new = spin_until(is_something_new);
      lock.lock();
      if (is_new) continue;
      ++asleep_;
      work_there_.wait(lock, is_something_new);
      --asleep_;
    }
  }
}

void ThreadExecutor::submit(std::function<void()> work, std::function<void()> done) {
  {
    const std::lock_guard lock(mutex_);
    ++running_;
  }
  pool_.run([this, work = std::move(work), done = std::move(done)]() mutable {
    work();
    work = nullptr;  // what it holds is released before the owner hears of its end
    post_(std::move(done));
    const std::lock_guard lock(mutex_);
    if (--running_ == 0) idle_.notify_all();
  });
}

void ThreadExecutor::wait_idle() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [&] { return running_ == 0; });
}

}  // namespace meander
