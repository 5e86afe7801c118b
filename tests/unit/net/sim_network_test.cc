// SPDX-License-Identifier: Apache-2.0
#include "net/sim_network.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

namespace meander::net {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

wire::Header numbered(std::uint64_t request) {
  wire::Header header;
  header.set_request(request);
  return header;
}

TimePoint ms(std::int64_t count) { return TimePoint(std::chrono::milliseconds(count)); }

// Writes down what it is told.
class Recorder : public Node {
 public:
  void on_message(TimePoint now, const Message& message) override {
    requests.push_back(message.header.request());
    peers.push_back(message.peer);
    times.push_back(now);
  }
  void on_timer(TimePoint now) override {
    timers.push_back(now);
    timer = kNever;
  }
  TimePoint next_timer() const override { return timer; }
  bool finished() const override { return is_finished; }

  std::vector<std::uint64_t> requests;
  std::vector<std::string> peers;
  std::vector<TimePoint> times, timers;
  TimePoint timer = kNever;
  bool is_finished = false;
};

// Asks `peer` every millisecond; the peer, a Pinger too, answers what is even.
class Pinger : public Recorder {
 public:
  Pinger(Transport& transport, std::string peer) : transport_(transport), peer_(std::move(peer)) {}
  void on_message(TimePoint now, const Message& message) override {
    if (message.header.request() % 2 == 0) {
      transport_.send(message.peer, numbered(message.header.request() + 1));
    }
    Recorder::on_message(now, message);
  }
  void on_timer(TimePoint now) override {
    Recorder::on_timer(now);
    const std::uint64_t values[] = {asked_, 7};
    transport_.send(peer_, numbered(2 * asked_++), {Buffer::copy_of(values, sizeof values)});
    timer = asked_ < 300 ? now + std::chrono::milliseconds(1) : kNever;
  }

 private:
  Transport& transport_;
  const std::string peer_;
  std::uint64_t asked_ = 0;
};

struct Outcome {
  std::uint64_t trace, delivered;
  std::vector<std::uint64_t> requests;
};

Outcome ping_pong(std::uint64_t seed, SimFaults faults) {
  SimNetwork network(seed, faults);
  Pinger a(network.transport("a"), "b"), b(network.transport("b"), "a");
  network.attach("a", &a);
  network.attach("b", &b);
  while (network.step()) {
  }
  return {network.trace(), network.delivered(), b.requests};
}

SimFaults bad() {
  return {.loss = 0.05, .duplication = 0.05, .delay_max = Duration(3'000'000), .long_delay = 0.02};
}

TEST(SimNetwork, TheSameSeedGivesTheSameTrace) {
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    const Outcome one = ping_pong(seed, bad()), two = ping_pong(seed, bad());
    EXPECT_EQ(one.trace, two.trace) << "seed " << seed;
    EXPECT_EQ(one.requests, two.requests) << "seed " << seed;
    EXPECT_NE(one.trace, ping_pong(seed + 1000, bad()).trace) << "seed " << seed;
  }
}

TEST(SimNetwork, WithoutFaultsEachMessageArrivesOnce) {
  EXPECT_EQ(ping_pong(1, {}).delivered, 2u * 2 * 300);
}

TEST(SimNetwork, FaultsHappenAsOftenAsAsked) {
  const auto share_of = [](SimFaults faults) {
    return static_cast<double>(ping_pong(2, faults).delivered) / (2 * 2 * 300);
  };
  // Of a question and its answer, p and p squared arrive.
  EXPECT_NEAR(share_of({.loss = 0.2}), (0.8 + 0.64) / 2, 0.05);
  EXPECT_NEAR(share_of({.duplication = 0.2}), (1.2 + 1.44) / 2, 0.07);
}

TEST(SimNetwork, DelaysReorder) {
  const Outcome calm = ping_pong(3, {});
  EXPECT_TRUE(std::is_sorted(calm.requests.begin(), calm.requests.end(),
                             [](auto x, auto y) { return x / 2 < y / 2; }));
  const Outcome wild = ping_pong(3, {.delay_max = Duration(10'000'000)});
  std::size_t overtaken = 0;
  for (std::size_t i = 1; i < wild.requests.size(); ++i) {
    overtaken += wild.requests[i] / 2 < wild.requests[i - 1] / 2;
  }
  EXPECT_GT(overtaken, 50u);
}

TEST(SimNetwork, WhoIsDownSendsNothing) {
  SimNetwork network(5, {});
  Recorder a, b;
  network.attach("a", &a);
  network.attach("b", &b);
  network.transport("a").send("b", numbered(1));
  network.attach("a", nullptr);
  network.transport("a").send("b", numbered(2));
  while (network.step()) {
  }
  EXPECT_THAT(b.requests, ElementsAre(1));
}

TEST(SimNetwork, CountsWhatItDoes) {
  SimNetwork network(6, {.loss = 0.2, .duplication = 0.2, .long_delay = 0.1});
  Recorder a, b;
  network.attach("a", &a);
  network.attach("b", &b);
  std::uint64_t seen = 0;
  network.set_observer(
      [&](TimePoint, const std::string& to, const Message&) { seen += to == "b"; });
  for (int i = 0; i < 1000; ++i) network.transport("a").send("b", numbered(i));
  network.cut("a", "b", true);
  network.transport("a").send("b", numbered(1000));
  network.cut("a", "b", false);
  EXPECT_EQ(network.counts().under_way_max,
            1000 - network.counts().lost + network.counts().doubled);
  while (network.step()) {
  }
  EXPECT_NEAR(static_cast<double>(network.counts().lost), 200, 60);
  EXPECT_NEAR(static_cast<double>(network.counts().doubled), 160, 60);
  EXPECT_NEAR(static_cast<double>(network.counts().late), 96, 60);
  EXPECT_LE(network.counts().severed, 1u);
  EXPECT_EQ(b.requests.size(), 1000 - network.counts().lost + network.counts().doubled);
  EXPECT_EQ(seen, b.requests.size());
}

TEST(SimNetwork, DelaysStayInTheirBounds) {
  SimNetwork network(4, {.delay_min = Duration(10), .delay_max = Duration(20), .long_delay = 0.1});
  Recorder node, sender;
  network.attach("a", &sender);
  network.attach("b", &node);
  for (int i = 0; i < 1000; ++i) network.transport("a").send("b", numbered(i));
  while (network.step()) {
  }
  ASSERT_EQ(node.times.size(), 1000u);
  EXPECT_EQ(node.times.front().time_since_epoch().count(), 10);
  std::size_t longer = 0;
  for (TimePoint t : node.times) {
    EXPECT_LE(t.time_since_epoch().count(), 2000);
    longer += t.time_since_epoch().count() > 20;
  }
  EXPECT_NEAR(static_cast<double>(longer), 100, 40);
}

class TwoNodes : public ::testing::Test {
 protected:
  void SetUp() override {
    network.attach("a", &a);
    network.attach("b", &b);
  }
  void send(std::uint64_t request) { network.transport("a").send("b", numbered(request)); }
  void run() {
    while (network.step()) {
    }
  }
  SimNetwork network{5, {}};
  Recorder a, b;
};

TEST_F(TwoNodes, ACutLinkCarriesNothingUntilItIsHealed) {
  send(1);
  network.cut("b", "a", true);  // 1 is still under way
  send(2);
  run();
  network.cut("a", "b", false);
  send(3);
  run();
  EXPECT_THAT(b.requests, ElementsAre(3));
}

TEST_F(TwoNodes, ANodeThatIsDownOrRestartedMissesWhatWasUnderWay) {
  send(1);
  network.attach("b", nullptr);
  send(2);
  Recorder again;
  network.attach("b", &again);
  send(3);
  run();
  EXPECT_THAT(b.requests, IsEmpty());
  EXPECT_THAT(again.requests, ElementsAre(3));
  EXPECT_THAT(again.peers, ElementsAre("a"));
  EXPECT_EQ(again.timers.size(), 1u) << "once at its start";
}

TEST_F(TwoNodes, AFinishedNodeIsLeftAlone) {
  run();
  b.is_finished = true;
  b.timer = ms(1);
  send(1);
  run();
  EXPECT_THAT(b.requests, IsEmpty());
  EXPECT_EQ(b.timers.size(), 1u);
}

TEST_F(TwoNodes, TimersAndFunctionsRunAtTheirTime) {
  run();
  std::vector<TimePoint> called;
  a.timer = ms(5);
  b.timer = ms(3);
  network.at(ms(4), [&] { called.push_back(network.now()); });
  network.at(ms(2), [&] { network.at(ms(1), [&] { called.push_back(network.now()); }); });
  run();
  EXPECT_THAT(a.timers, ElementsAre(ms(0), ms(5)));
  EXPECT_THAT(b.timers, ElementsAre(ms(0), ms(3)));
  EXPECT_THAT(called, ElementsAre(ms(2), ms(4))) << "what is asked for the past runs at once";
}

TEST_F(TwoNodes, RunUntilStopsAtItsDeadline) {
  run();
  a.timer = ms(5);
  EXPECT_FALSE(network.run_until([] { return false; }, ms(4)));
  EXPECT_LE(network.now(), ms(4));
  EXPECT_TRUE(network.run_until([&] { return a.timers.size() == 2; }, ms(6)));
  EXPECT_FALSE(network.run_until([] { return false; }, kNever)) << "nothing is left to happen";
}

TEST_F(TwoNodes, ANodeThatSpinsIsABug) {
  class Spinner : public Recorder {
    void on_timer(TimePoint now) override { timer = now; }
  } spinner;
  network.attach("c", &spinner);
  EXPECT_DEATH(run(), "c does not move its timer on");
}

TEST_F(TwoNodes, WritingIntoASentFrameIsABug) {
  Buffer frame = Buffer::allocate(8);
  std::memset(frame.data(), 1, 8);
  network.transport("a").send("b", numbered(1), {frame});
  std::memset(frame.data(), 2, 8);
  EXPECT_DEATH(run(), "a wrote into a frame after it was sent");
}

}  // namespace
}  // namespace meander::net
