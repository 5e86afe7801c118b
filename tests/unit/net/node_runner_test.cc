// SPDX-License-Identifier: Apache-2.0
#include "net/node_runner.h"

#include <gtest/gtest.h>

#include <thread>

#include "net/zmq_transport.h"

namespace meander::net {
namespace {

// Counts to a goal: each message, timer or finished piece of work is one.
class CountingNode : public Node {
 public:
  explicit CountingNode(int goal) : goal_(goal) {}
  void on_message(TimePoint, const Message& message) override {
    EXPECT_FALSE(finished()) << "a finished node is left alone";
    threads.push_back(std::this_thread::get_id());
    requests.push_back(message.header.request());
  }
  void on_timer(TimePoint now) override {
    EXPECT_FALSE(finished()) << "a finished node is left alone";
    EXPECT_TRUE(timers.empty() || now >= timer_at) << "a timer is never early";
    timers.push_back(now);
    timer_at = timers.size() <= 3 ? now + std::chrono::milliseconds(1) : kNever;
  }
  TimePoint next_timer() const override { return timer_at; }
  bool finished() const override {
    return static_cast<int>(requests.size() + timers.size() + works) >= goal_;
  }

  std::vector<std::thread::id> threads;
  std::vector<std::uint64_t> requests;
  std::vector<TimePoint> timers;
  TimePoint timer_at = kNever;
  int works = 0;

 private:
  const int goal_;
};

class NodeRunnerTest : public ::testing::Test {
 protected:
  std::unique_ptr<ZmqTransport> open(const std::string& name, const std::string& bind) {
    return std::move(ZmqTransport::create(context, name, bind)).value();
  }
  ZmqContext context;
  SystemClock clock;
  ThreadPool pool{2};
};

TEST_F(NodeRunnerTest, CallsTimersAtTheirTimeAndOnceAtTheStart) {
  auto transport = open("lane/0", "");
  NodeRunner runner(*transport, clock, pool);
  CountingNode node(4);
  runner.run(node);
  EXPECT_EQ(node.timers.size(), 4u);
}

TEST_F(NodeRunnerTest, HandsMessagesToTheNodeInOrderAndStopsWhenItHasFinished) {
  auto lane = open("lane/0", "inproc://lane"), worker = open("worker/0", "");
  ASSERT_TRUE(worker->connect("lane/0", "inproc://lane").ok());
  for (std::uint64_t i = 1; i <= 20; ++i) {
    wire::Header header;
    header.set_request(i);
    worker->send("lane/0", header);
  }
  NodeRunner runner(*lane, clock, pool);
  CountingNode node(4 + 10);
  runner.run(node);
  EXPECT_GE(node.requests.size(), 10u);
  for (std::size_t i = 0; i < node.requests.size(); ++i) EXPECT_EQ(node.requests[i], i + 1);
}

TEST_F(NodeRunnerTest, DoneRunsOnTheNodesThread) {
  auto transport = open("worker/0", "");
  NodeRunner runner(*transport, clock, pool);
  CountingNode node(4 + 100);
  std::vector<std::thread::id> threads;
  for (int i = 0; i < 100; ++i) {
    runner.executor().submit([] {},
                             [&] {
                               threads.push_back(std::this_thread::get_id());
                               ++node.works;
                             });
  }
  runner.run(node);
  EXPECT_EQ(threads, std::vector<std::thread::id>(threads.size(), std::this_thread::get_id()));
  EXPECT_EQ(node.works, static_cast<int>(threads.size()));
}

TEST_F(NodeRunnerTest, PostWakesARunThatWaits) {
  auto transport = open("worker/0", "");
  NodeRunner runner(*transport, clock, pool);
  CountingNode node(5);
  std::thread other([&] { runner.post([&] { ++node.works; }); });
  runner.run(node);
  other.join();
  EXPECT_EQ(node.works, 1);
}

TEST_F(NodeRunnerTest, StopEndsANodeThatWouldNot) {
  auto transport = open("worker/0", "");
  NodeRunner runner(*transport, clock, pool);
  CountingNode node(1000);
  std::thread other([&] { runner.stop(); });
  runner.run(node);
  other.join();
  EXPECT_FALSE(node.finished());
}

TEST_F(NodeRunnerTest, ReturnsOnlyWhenSubmittedWorkHasEnded) {
  auto transport = open("worker/0", "");
  NodeRunner runner(*transport, clock, pool);
  std::atomic<int> worked{0};
  CountingNode node(1);
  for (int i = 0; i < 20; ++i) {
    runner.executor().submit([&] { ++worked; }, [] { ADD_FAILURE() << "the node has finished"; });
  }
  runner.run(node);
  EXPECT_EQ(worked, 20);
}

}  // namespace
}  // namespace meander::net
