// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <string>
#include <vector>

#include "common/executor.h"
#include "net/transport.h"

namespace meander::ps {

// Keeps what was sent; `peer` is the receiver's name.
class SentBox final : public net::Transport {
 public:
  Status connect(const std::string& peer, const std::string& endpoint) override {
    connected.push_back(peer + "=" + endpoint);
    return {};
  }
  void send(const std::string& peer, const wire::Header& header,
            const std::vector<Buffer>& frames) override {
    sent.push_back({peer, header, frames});
  }
  using Transport::send;

  // The oldest message that was not taken yet.
  net::Message take() {
    EXPECT_FALSE(sent.empty()) << "nothing was sent";
    if (sent.empty()) return {};
    net::Message message = std::move(sent.front());
    sent.pop_front();
    return message;
  }

  std::deque<net::Message> sent;
  std::vector<std::string> connected;
};

// Runs work when told: what happens meanwhile can be tried.
class ManualExecutor final : public Executor {
 public:
  void submit(std::function<void()> work, std::function<void()> done) override {
    tasks.push_back({std::move(work), std::move(done)});
  }
  void parallel(std::size_t n, const std::function<void(std::size_t)>& body) override {
    for (std::size_t i = 0; i < n; ++i) body(i);
  }
  std::size_t threads() const override { return 1; }
  void run_all() {
    while (!tasks.empty()) {
      const Task task = std::move(tasks.front());
      tasks.pop_front();
      task.work();
      task.done();
    }
  }

 private:
  struct Task {
    std::function<void()> work, done;
  };
  std::deque<Task> tasks;
};

template <class T>
Buffer buffer_of(const std::vector<T>& values) {
  return Buffer::copy_of(std::span<const T>(values));
}

template <class T>
std::vector<T> values_of(const Buffer& buffer) {
  const auto values = buffer.as<T>();
  return {values.begin(), values.end()};
}

}  // namespace meander::ps
