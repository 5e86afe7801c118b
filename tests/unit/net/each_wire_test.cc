// SPDX-License-Identifier: Apache-2.0
// What every wire between processes must do.
#include <gtest/gtest.h>
#include <zmq.h>

#include <thread>
#include <zmq.hpp>

#include "net/shm_transport.h"
#include "tests/unit/net/wires.h"

namespace meander::net {
namespace {

class EachWire : public ::testing::TestWithParam<const char*> {
 protected:
  std::string bind() const { return is("inproc") ? "inproc://lane" : "tcp://127.0.0.1:0"; }
  bool is(const std::string& wire) const { return GetParam() == wire; }
  Result<std::unique_ptr<PolledTransport>> create(const std::string& name,
                                                  const std::string& where) {
    if (is("shm")) {
      ASSIGN_OR_RETURN(auto transport, ShmTransport::create(context, name, where));
      return std::unique_ptr<PolledTransport>(std::move(transport));
    }
    ASSIGN_OR_RETURN(auto transport, ZmqTransport::create(context, name, where));
    return std::unique_ptr<PolledTransport>(std::move(transport));
  }
  std::unique_ptr<PolledTransport> open(const std::string& name, const std::string& where) {
    return std::move(create(name, where)).value();
  }
  // A socket that says what it likes.
  void* raw_socket(const PolledTransport& to, const std::string& name) {
    void* raw = zmq_socket(context.get().handle(), ZMQ_DEALER);
    const int linger = 1000;
    zmq_setsockopt(raw, ZMQ_LINGER, &linger, sizeof linger);
    if (!name.empty()) zmq_setsockopt(raw, ZMQ_ROUTING_ID, name.data(), name.size());
    CHECK_EQ(zmq_connect(raw, remote_part(to.endpoint()).c_str()), 0);
    return raw;
  }
  ZmqContext context;
};

TEST_P(EachWire, CarriesAMessageThereAndBack) {
  auto lane = open("lane/3", bind());
  auto worker = open("worker/0", "");
  ASSERT_TRUE(worker->connect("lane/3", lane->endpoint()).ok());
  const Buffer small = noise(1, 24), empty, big = noise(2, 100'000);
  worker->send("lane/3", numbered(7), {small, empty, big});

  Message asked = receive(*lane);
  EXPECT_EQ(asked.peer, "worker/0");
  EXPECT_EQ(asked.header.request(), 7u);
  EXPECT_TRUE(asked.header.has_resume());
  ASSERT_EQ(asked.frames.size(), 3u);
  EXPECT_TRUE(equal(asked.frames[0], small));
  EXPECT_TRUE(equal(asked.frames[1], empty));
  EXPECT_TRUE(equal(asked.frames[2], big));

  lane->send(asked.peer, numbered(8), std::move(asked.frames));
  const Message answer = receive(*worker);
  EXPECT_EQ(answer.peer, "lane/3");
  EXPECT_EQ(answer.header.request(), 8u);
  ASSERT_EQ(answer.frames.size(), 3u);
  EXPECT_TRUE(equal(answer.frames[2], big));
}

TEST_P(EachWire, FramesOfEverySizeArriveWholeAndAligned) {
  auto lane = open("lane/0", bind());
  auto worker = open("worker/0", "");
  ASSERT_TRUE(worker->connect("lane/0", lane->endpoint()).ok());
  Rng rng(3);
  std::vector<Buffer> frames;
  for (int i = 0; i < 200; ++i) frames.push_back(noise(i, 8 * rng.below(1 << (1 + i % 12))));
  worker->send("lane/0", numbered(1), frames);
  const Message got = receive(*lane);
  ASSERT_EQ(got.frames.size(), frames.size());
  for (std::size_t i = 0; i < frames.size(); ++i) {
    EXPECT_TRUE(equal(got.frames[i], frames[i])) << "frame " << i;
    EXPECT_TRUE(got.frames[i].holds<std::uint64_t>()) << "frame " << i;
  }
}

TEST_P(EachWire, MegabytesArriveWhole) {
  auto lane = open("lane/0", bind());
  auto worker = open("worker/0", "");
  ASSERT_TRUE(worker->connect("lane/0", lane->endpoint()).ok());
  const Buffer huge = noise(4, 20 << 20);
  worker->send("lane/0", numbered(1), {huge});
  const Message got = receive(*lane);
  ASSERT_EQ(got.frames.size(), 1u);
  EXPECT_TRUE(equal(got.frames[0], huge));
}

TEST_P(EachWire, MessagesOfOnePeerStayInOrder) {
  auto lane = open("lane/0", bind());
  auto worker = open("worker/0", "");
  ASSERT_TRUE(worker->connect("lane/0", lane->endpoint()).ok());
  for (std::uint64_t i = 1; i <= 500; ++i) worker->send("lane/0", numbered(i));
  std::uint64_t last = 0;
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (last < 500 && std::chrono::steady_clock::now() < deadline) {
    const std::size_t taken = lane->poll(std::chrono::milliseconds(50), [&](Message m) {
      ASSERT_EQ(m.header.request(), last + 1);
      last = m.header.request();
    });
    EXPECT_LE(taken, 2 * PolledTransport::kTurnMessagesMax);
  }
  EXPECT_EQ(last, 500u);
  EXPECT_EQ(lane->counts().received, 500u);
  EXPECT_EQ(worker->counts().sent, 500u);
}

TEST_P(EachWire, BytesThatAreNoMessageAreDroppedAndCounted) {
  auto lane = open("lane/0", bind());
  void* raw = raw_socket(*lane, "mallory");
  const auto send = [&](const std::string& bytes, bool more) {
    ASSERT_EQ(zmq_send(raw, bytes.data(), bytes.size(), more ? ZMQ_SNDMORE : 0),
              static_cast<int>(bytes.size()));
  };
  send("\xff\xff\xff no header", false);
  send(std::string(kHeaderBytesMax + 1, '\0'), false);  // too long a header
  for (std::size_t i = 0; i <= kFramesMax; ++i) send("", true);
  send("one frame too many", false);
  send(numbered(1).SerializeAsString(), false);  // and then one that is well-formed
  EXPECT_EQ(receive(*lane).header.request(), 1u);
  EXPECT_EQ(lane->counts().malformed, 3u);
  zmq_close(raw);
}

TEST_P(EachWire, RandomBytesNeverStopTheReceiver) {
  auto lane = open("lane/0", bind());
  void* raw = raw_socket(*lane, "mallory");
  Rng rng(5);
  const std::string good = numbered(3).SerializeAsString();
  for (int i = 0; i < 500; ++i) {
    const Buffer bytes = noise(rng.next(), rng.below(i % 10 == 0 ? 5000 : 40));
    zmq_send(raw, bytes.data(), bytes.size(), rng.chance(0.5) ? ZMQ_SNDMORE : 0);
  }
  zmq_send(raw, "", 0, 0);  // ends what the last draw left open
  zmq_send(raw, good.data(), good.size(), 0);
  std::uint64_t last = 0;
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (last != 3 && std::chrono::steady_clock::now() < deadline) {
    lane->poll(std::chrono::milliseconds(50), [&](Message m) { last = m.header.request(); });
  }
  EXPECT_EQ(last, 3u);
  EXPECT_GT(lane->counts().malformed, 100u);
  const int linger = 0;
  zmq_setsockopt(raw, ZMQ_LINGER, &linger, sizeof linger);
  zmq_close(raw);
}

TEST_P(EachWire, APeerWithoutANameIsNotHeard) {
  auto lane = open("lane/0", bind());
  void* raw = raw_socket(*lane, "");
  const std::string good = numbered(1).SerializeAsString();
  ASSERT_GE(zmq_send(raw, good.data(), good.size(), 0), 0);
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (lane->counts().malformed == 0 && std::chrono::steady_clock::now() < deadline) {
    lane->poll(std::chrono::milliseconds(50), [](Message) { FAIL(); });
  }
  EXPECT_EQ(lane->counts().malformed, 1u);
  zmq_close(raw);
}

TEST_P(EachWire, ConnectMayComeBeforeBind) {
  if (!is("inproc")) GTEST_SKIP() << "the port is not known before";
  auto worker = open("worker/0", "");
  ASSERT_TRUE(worker->connect("lane/0", bind()).ok());
  worker->send("lane/0", numbered(5));
  auto lane = open("lane/0", bind());
  EXPECT_EQ(receive(*lane).header.request(), 5u);
}

TEST_P(EachWire, ARestartedPeerTakesItsNameOver) {
  auto scheduler = open("scheduler", bind());
  auto old_worker = open("worker/0", "");
  ASSERT_TRUE(old_worker->connect("scheduler", scheduler->endpoint()).ok());
  ASSERT_TRUE(ask_until_answered(*old_worker, *scheduler, "scheduler", 1));
  // The old one is still connected, as after a crash that no one has noticed.
  auto worker = open("worker/0", "");
  ASSERT_TRUE(worker->connect("scheduler", scheduler->endpoint()).ok());
  EXPECT_TRUE(ask_until_answered(*worker, *scheduler, "scheduler", 2));
}

TEST_P(EachWire, ARestartedListenerIsHeardAgain) {
  auto lane = open("lane/0", bind());
  const std::string endpoint = lane->endpoint();
  auto worker = open("worker/0", "");
  ASSERT_TRUE(worker->connect("lane/0", endpoint).ok());
  ASSERT_TRUE(ask_until_answered(*worker, *lane, "lane/0", 1));
  lane.reset();
  // The listening socket closes in the background.
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!lane && std::chrono::steady_clock::now() < deadline) {
    auto again = create("lane/0", remote_part(endpoint));
    if (again.ok()) lane = std::move(again).value();
  }
  ASSERT_TRUE(lane);
  if (is("inproc")) {
    ASSERT_TRUE(worker->connect("lane/0", endpoint).ok());
  }
  EXPECT_TRUE(ask_until_answered(*worker, *lane, "lane/0", 2));
}

TEST_P(EachWire, ConnectAgainReplacesTheEndpoint) {
  auto first = open("lane/0", bind());
  auto second = open("lane/0", is("inproc") ? bind() + "2" : bind());
  auto worker = open("worker/0", "");
  ASSERT_TRUE(worker->connect("lane/0", first->endpoint()).ok());
  ASSERT_TRUE(ask_until_answered(*worker, *first, "lane/0", 1));
  ASSERT_TRUE(worker->connect("lane/0", second->endpoint()).ok());
  EXPECT_TRUE(ask_until_answered(*worker, *second, "lane/0", 2));
}

TEST_P(EachWire, AMessageToNobodyIsDroppedAndCounted) {
  auto lane = open("lane/0", bind());
  lane->send("worker/9", numbered(1));
  auto worker = open("worker/0", "");
  worker->send("scheduler", numbered(1));
  EXPECT_EQ(lane->counts().dropped, 1u);
  EXPECT_EQ(worker->counts().dropped, 1u);
}

TEST_P(EachWire, ALastWordStillGoesOut) {
  auto lane = open("lane/0", bind());
  auto worker = open("worker/0", "");
  ASSERT_TRUE(worker->connect("lane/0", lane->endpoint()).ok());
  worker->send("lane/0", numbered(9), {noise(6, 100'000)});
  worker.reset();
  EXPECT_EQ(receive(*lane).header.request(), 9u);
}

TEST_P(EachWire, WakeEndsAWaitFromAnotherThread) {
  auto lane = open("lane/0", bind());
  std::thread other([&] { lane->wake(); });
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(lane->poll(kPatience, [](Message) { FAIL(); }), 0u);
  EXPECT_LT(std::chrono::steady_clock::now() - start, kPatience);
  other.join();
  EXPECT_EQ(lane->poll(Duration(0), [](Message) { FAIL(); }), 0u);
}

INSTANTIATE_TEST_SUITE_P(Wires, EachWire, ::testing::Values("inproc", "tcp", "shm"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace meander::net
