// SPDX-License-Identifier: Apache-2.0
#include "net/shm_transport.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "net/local_socket.h"
#include "tests/unit/net/wires.h"

namespace meander::net {
namespace {

class ShmTransportTest : public ::testing::Test {
 protected:
  std::unique_ptr<ShmTransport> open(const std::string& name, const std::string& bind) {
    return net::open<ShmTransport>(context, name, bind);
  }
  // Polls until `holds`. False: it never did.
  template <class Condition>
  static bool until(PolledTransport& at, const Condition& holds) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (!holds() && std::chrono::steady_clock::now() < deadline) {
      at.poll(std::chrono::milliseconds(20), [](Message) {});
    }
    return holds();
  }
  ZmqContext context;
};

TEST_F(ShmTransportTest, LinksToWhoeverIsOnThisHost) {
  auto lane = open("lane/0", "tcp://127.0.0.1:*"), worker = open("worker/0", "");
  ASSERT_TRUE(worker->connect("lane/0", lane->endpoint()).ok());
  EXPECT_EQ(worker->links(), 1u);
  ASSERT_TRUE(ask_until_answered(*worker, *lane, "lane/0", 1));
  EXPECT_EQ(lane->links(), 1u);
}

TEST_F(ShmTransportTest, TalksOverTcpToWhoeverIsNot) {
  auto lane = open("lane/0", "tcp://127.0.0.1:*"), worker = open("worker/0", "");
  const std::string elsewhere = remote_part(lane->endpoint()) + "?shm=meander-of-another-host";
  ASSERT_TRUE(worker->connect("lane/0", elsewhere).ok());
  EXPECT_EQ(worker->links(), 0u);
  EXPECT_TRUE(ask_until_answered(*worker, *lane, "lane/0", 1));
}

TEST_F(ShmTransportTest, UnderstandsTransportsThatKnowTcpAlone) {
  auto lane = open("lane/0", "tcp://127.0.0.1:*");
  auto worker = net::open(context, "worker/0", "");
  ASSERT_TRUE(worker->connect("lane/0", remote_part(lane->endpoint())).ok());
  EXPECT_TRUE(ask_until_answered(*worker, *lane, "lane/0", 1));
}

TEST_F(ShmTransportTest, WhatFindsNoRoomGoesOverTcp) {
  auto lane = open("lane/0", "tcp://127.0.0.1:*"), worker = open("worker/0", "");
  ASSERT_TRUE(worker->connect("lane/0", lane->endpoint()).ok());
  ASSERT_TRUE(ask_until_answered(*worker, *lane, "lane/0", 1));
  const Buffer huge = noise(1, std::size_t{300} << 20);
  worker->send("lane/0", numbered(2), {huge});
  EXPECT_TRUE(equal(receive(*lane).frames.at(0), huge));
}

TEST_F(ShmTransportTest, AFrameInAllocatedMemoryCrossesWithoutACopy) {
  auto lane = open("lane/0", "tcp://127.0.0.1:*"), worker = open("worker/0", "");
  ASSERT_TRUE(worker->connect("lane/0", lane->endpoint()).ok());
  Buffer frame = worker->allocate("lane/0", 4096);
  frame.as_mutable<std::uint64_t>()[0] = 1;
  worker->send("lane/0", numbered(1), {frame});
  frame.as_mutable<std::uint64_t>()[0] = 2;  // against the rules, to see that it is the same memory
  EXPECT_EQ(receive(*lane).frames.at(0).as<std::uint64_t>()[0], 2u);
  EXPECT_EQ(worker->allocate("nobody", 100).size(), 100u);
}

// A lane in another process, which echoes, and is killed.
TEST_F(ShmTransportTest, AKilledProcessIsNoticedAndLeavesNothing) {
  const auto leftovers = [] {
    std::size_t n = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) n += entry.exists();
    return n;
  };
  const std::size_t before = leftovers();
  int to_parent[2];
  ASSERT_EQ(pipe(to_parent), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ZmqContext own;
    auto lane = net::open<ShmTransport>(own, "lane/0", "tcp://127.0.0.1:*");
    const std::string where = lane->endpoint() + "\n";
    if (write(to_parent[1], where.data(), where.size()) < 0) std::_Exit(1);
    for (;;) {
      lane->poll(std::chrono::milliseconds(50),
                 [&](Message m) { lane->send(m.peer, m.header, std::move(m.frames)); });
    }
  }
  std::string endpoint;
  for (char c = 0; read(to_parent[0], &c, 1) == 1 && c != '\n';) endpoint += c;
  auto worker = open("worker/0", "");
  ASSERT_TRUE(worker->connect("lane/0", endpoint).ok());
  EXPECT_EQ(worker->links(), 1u);
  worker->send("lane/0", numbered(3), {noise(1, 1 << 20)});
  const Message answer = receive(*worker);
  EXPECT_EQ(answer.header.request(), 3u);
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(until(*worker, [&] { return worker->links() == 0; }));
  EXPECT_TRUE(equal(answer.frames.at(0), noise(1, 1 << 20))) << "what was taken stays";
  EXPECT_EQ(leftovers(), before);
  worker->send("lane/0", numbered(4));  // to nobody
  close(to_parent[0]);
  close(to_parent[1]);
}

TEST_F(ShmTransportTest, APeerThatHasGoneIsForgottenByWhomItConnectedTo) {
  auto lane = open("lane/0", "tcp://127.0.0.1:*");
  auto worker = open("worker/0", "");
  ASSERT_TRUE(worker->connect("lane/0", lane->endpoint()).ok());
  ASSERT_TRUE(until(*lane, [&] { return lane->links() == 1; }));
  worker.reset();
  EXPECT_TRUE(until(*lane, [&] { return lane->links() == 0; }));
}

TEST_F(ShmTransportTest, StrangersAtTheLocalSocketAreTurnedAway) {
  auto lane = open("lane/0", "tcp://127.0.0.1:*");
  const std::string name = lane->endpoint().substr(lane->endpoint().find("?shm=") + 5);
  std::vector<Descriptor> strangers;
  for (const std::string text : {"hello", "meander shm 1 ", "meander shm 1 worker/0"}) {
    strangers.push_back(std::move(connect_locally(name)).value());
    const int not_memory[] = {strangers.back().get(), strangers.back().get()};
    ASSERT_TRUE(send_locally(strangers.back(), text, not_memory));
  }
  auto worker = open("worker/0", "");
  ASSERT_TRUE(worker->connect("lane/0", lane->endpoint()).ok());
  EXPECT_TRUE(ask_until_answered(*worker, *lane, "lane/0", 1));
  EXPECT_EQ(lane->links(), 1u);
}

TEST_F(ShmTransportTest, ASleeperIsWokenByAMessage) {
  auto lane = open("lane/0", "tcp://127.0.0.1:*"), worker = open("worker/0", "");
  ASSERT_TRUE(worker->connect("lane/0", lane->endpoint()).ok());
  ASSERT_TRUE(ask_until_answered(*worker, *lane, "lane/0", 1));
  constexpr std::uint64_t kRounds = 2000;
  std::thread other([&] {
    for (std::uint64_t taken = 0; taken < kRounds;) {
      // One poll, however long: it must not be missed.
      taken += lane->poll(kPatience, [&](Message m) { lane->send(m.peer, m.header); });
    }
  });
  for (std::uint64_t i = 1; i <= kRounds; ++i) {
    worker->send("lane/0", numbered(i));
    bool is_answered = false;
    const auto begin = std::chrono::steady_clock::now();
    while (!is_answered && std::chrono::steady_clock::now() - begin < kPatience) {
      worker->poll(kPatience, [&](Message m) { is_answered = m.header.request() == i; });
    }
    ASSERT_TRUE(is_answered);
    ASSERT_LT(std::chrono::steady_clock::now() - begin, kPatience);
  }
  other.join();
}

TEST_F(ShmTransportTest, AMessageSentBeforeTheBellWasHereStillWakes) {
  auto lane = open("lane/0", "tcp://127.0.0.1:*");
  for (std::uint64_t round = 1; round <= 30; ++round) {
    auto worker = open("worker/0", "");
    ASSERT_TRUE(worker->connect("lane/0", lane->endpoint()).ok());
    // The lane has greeted, and the worker has not heard it.
    ASSERT_TRUE(until(*lane, [&] { return lane->links() == 1; }));
    std::atomic<bool> is_there{false};
    std::thread other([&] {
      while (!is_there) lane->poll(kPatience, [&](Message) { is_there = true; });
    });
    const auto begin = std::chrono::steady_clock::now();
    std::this_thread::yield();
    worker->send("lane/0", numbered(round));
    while (!is_there && std::chrono::steady_clock::now() - begin < kPatience) {
      worker->poll(std::chrono::milliseconds(1), [](Message) {});
    }
    EXPECT_TRUE(is_there) << "round " << round;
    lane->wake();
    other.join();
    worker.reset();
    ASSERT_TRUE(until(*lane, [&] { return lane->links() == 0; }));
  }
}

}  // namespace
}  // namespace meander::net
