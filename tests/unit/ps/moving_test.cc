// SPDX-License-Identifier: Apache-2.0
// Lanes that hand their records to others while they serve (docs/protocol.md, "Other lanes").
#include "ps/moving.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/partition.h"
#include "ps/lane.h"
#include "tests/unit/ps/fakes.h"

namespace meander::ps {
namespace {

using ::testing::ElementsAre;
using Keys = std::vector<std::uint64_t>;
using Floats = std::vector<float>;

constexpr std::uint64_t kCluster = 99, kMove = 7;
constexpr std::uint32_t kLanes = 4;

// Lanes, and this test as scheduler and worker: one lane at first, rows that count.
class MovingTest : public testing::Test {
 protected:
  struct Process {
    SentBox box;
    std::unique_ptr<Lane> lane;
  };
  MovingTest() : storage_(make_memory_storage()) {
    for (std::uint32_t i = 0; i < kLanes; ++i) {
      LaneOptions options;
      options.index = i;
      options.incarnation = 10 + i;
      options.cluster = kCluster;
      options.endpoint = "at lane/" + std::to_string(i);
      processes_[i].lane = std::make_unique<Lane>(options, processes_[i].box, *storage_, executor_);
    }
    wire::Header h;
    *h.mutable_lane_setup() = setup(1, 1);
    h.mutable_lane_setup()->set_incarnation(10);
    tell(0, "scheduler", h);
    while (key_of_lane_.size() < kLanes) {
      const std::uint64_t key = next_key_++;
      key_of_lane_.emplace(PartitionMap::even(kLanes).lane_of(key), key);
    }
  }
  static wire::LaneSetup setup(std::uint64_t number, std::uint32_t lanes) {
    wire::LaneSetup setup;
    setup.set_lanes(lanes);
    setup.set_streams(1);
    setup.set_staleness(-1);
    setup.set_setup(number);
    setup.set_first_epoch(number);
    wire::TableSpec& table = *setup.add_tables();
    table.set_name("count");
    table.set_width(1);
    table.mutable_optimizer()->set_kind(wire::Optimizer::SGD);
    table.mutable_optimizer()->set_rate(1);
    return setup;
  }
  void tell(std::uint32_t lane, const std::string& peer, wire::Header header,
            std::vector<Buffer> frames = {}) {
    header.set_cluster(kCluster);
    header.set_request(++last_request_);
    processes_[lane].lane->on_message(now_, {peer, std::move(header), std::move(frames)});
  }
  void order(std::uint32_t lane, bool finish, std::uint64_t move = kMove) {
    wire::Header h;
    wire::Move& body = *h.mutable_move();
    body.set_setup(1);
    body.set_move(move);
    body.set_lanes(1);
    *body.mutable_next() = setup(2, kLanes);
    body.mutable_next()->set_incarnation(10 + lane);
    for (std::uint32_t i = 0; i < kLanes; ++i) body.add_endpoints("somewhere");
    body.set_finish(finish);
    tell(lane, "scheduler", h);
  }
  void order_all(bool finish) {
    for (std::uint32_t i = 0; i < kLanes; ++i) order(i, finish);
    settle();
  }
  // Delivers what lanes say to each other, until nobody has anything to say; and counts it.
  void settle() {
    for (bool is_quiet = false; !is_quiet;) {
      is_quiet = true;
      for (std::uint32_t from = 0; from < kLanes; ++from) {
        SentBox& box = processes_[from].box;
        while (!box.sent.empty()) {
          const net::Message message = box.take();
          if (message.header.has_moved()) stage_[from] = message.header.moved().stage();
          if (!message.peer.starts_with("lane/")) {
            said_[from].push_back(message);
            continue;
          }
          is_quiet = false;
          rows_sent_ += message.header.has_rows();
          const auto to = static_cast<std::uint32_t>(message.peer.back() - '0');
          processes_[to].lane->on_message(
              now_, {"lane/" + std::to_string(from), message.header, message.frames});
        }
        Lane& lane = *processes_[from].lane;
        if (lane.next_timer() <= now_) lane.on_timer(now_);
        is_quiet &= lane.next_timer() > now_ && box.sent.empty();
      }
    }
  }
  void push(std::uint32_t lane, std::uint64_t seq, const Keys& keys, std::uint64_t epoch) {
    wire::Header h;
    h.mutable_push()->set_seq(seq);
    h.mutable_push()->set_epoch(epoch);
    h.mutable_push()->set_keys_included(true);
    tell(lane, "worker/0", h, {buffer_of(keys), buffer_of(Floats(keys.size(), -1.0f))});
  }
  Floats read(std::uint32_t lane, const Keys& keys) {
    settle();
    said_[lane].clear();
    wire::Header h;
    h.mutable_pull()->set_read_only(true);
    tell(lane, "worker/0", h, {buffer_of(keys)});
    const net::Message answer = processes_[lane].box.take();
    return answer.frames.empty() ? Floats() : values_of<float>(answer.frames[0]);
  }
  wire::Header take_over(std::uint32_t lane, std::uint64_t move) {
    settle();
    wire::Header h;
    *h.mutable_lane_setup() = setup(2, kLanes);
    h.mutable_lane_setup()->set_move(move);
    h.mutable_lane_setup()->set_incarnation(10 + lane);
    tell(lane, "scheduler", h);
    return processes_[lane].box.take().header;
  }
  Keys all_keys() const {
    Keys keys;
    for (const auto& [lane, key] : key_of_lane_) keys.push_back(key);
    return keys;
  }

  std::unique_ptr<Storage> storage_;
  InlineExecutor executor_;
  Process processes_[kLanes];
  std::map<std::uint32_t, wire::MoveStage> stage_;
  std::map<std::uint32_t, std::vector<net::Message>> said_;
  std::map<std::uint32_t, std::uint64_t> key_of_lane_;  // a key of each lane of the four
  std::uint64_t next_key_ = 1, last_request_ = 0;
  int rows_sent_ = 0;
  TimePoint now_{std::chrono::hours(1)};
};

TEST_F(MovingTest, WhatIsPushedMeanwhileArrivesToo) {
  push(0, 0, all_keys(), 1);
  order_all(false);
  EXPECT_EQ(stage_[0], wire::NEAR);
  EXPECT_EQ(stage_[1], wire::ALL) << "it has nothing to send";
  push(0, 1, {key_of_lane_[2], key_of_lane_[3]}, 1);
  EXPECT_EQ(read(0, all_keys()), Floats({1, 1, 2, 2})) << "it serves as ever";
  order_all(true);
  EXPECT_EQ(stage_[0], wire::ALL);
  const Floats expected = {1, 1, 2, 2};
  for (std::uint32_t i = 0; i < kLanes; ++i) {
    const wire::LaneReady ready = take_over(i, kMove).lane_ready();
    EXPECT_EQ(ready.setup(), 2u);
    ASSERT_EQ(ready.applied_size(), 1);
    EXPECT_EQ(ready.applied(0).next(), 2u);
    EXPECT_EQ(read(i, {key_of_lane_[i]}), Floats({expected[i]}));
  }
}

TEST_F(MovingTest, ARepeatedOrderSendsOnlyWhatWasTouched) {
  push(0, 0, all_keys(), 1);
  order_all(false);
  EXPECT_EQ(rows_sent_, 3) << "one message to each other lane";
  order_all(false);
  EXPECT_EQ(rows_sent_, 3);
  push(0, 1, {key_of_lane_[2]}, 1);
  order_all(false);
  EXPECT_EQ(rows_sent_, 4);
}

TEST_F(MovingTest, WhatIsOfTheOldLanesIsRefused) {
  push(0, 0, all_keys(), 1);
  order_all(false);
  order_all(true);
  ASSERT_TRUE(take_over(0, kMove).has_lane_ready());
  settle();
  said_[0].clear();
  push(0, 1, all_keys(), 1);  // keys of others as well
  wire::Header pull;
  pull.mutable_pull()->set_seq(1);
  pull.mutable_pull()->set_epoch(1);
  tell(0, "worker/0", pull, {buffer_of(all_keys())});
  settle();
  ASSERT_EQ(said_[0].size(), 2u);
  for (const net::Message& said : said_[0]) {
    EXPECT_EQ(said.header.pushed().outcome(), wire::STALE_EPOCH);
  }
  EXPECT_EQ(read(0, {key_of_lane_[0]}), Floats({1}));
  wire::Header late;  // of an evaluation
  late.mutable_pull()->set_read_only(true);
  tell(0, "worker/0", late, {buffer_of(all_keys())});
  EXPECT_TRUE(processes_[0].box.sent.empty());
}

TEST_F(MovingTest, WhoDoesNotHaveItSaysSo) {
  push(0, 0, all_keys(), 1);
  order_all(false);
  EXPECT_TRUE(take_over(1, kMove).has_forgotten()) << "the rest is missing";
  order_all(true);
  EXPECT_TRUE(take_over(1, kMove + 1).has_forgotten()) << "of another move";
  EXPECT_EQ(take_over(1, kMove + 1).forgotten().setup(), 2u) << "said again";
  EXPECT_TRUE(take_over(1, kMove).has_lane_ready());
}

TEST_F(MovingTest, AMoveThatIsOffLeavesEverythingAsItWas) {
  push(0, 0, all_keys(), 1);
  order_all(false);
  for (std::uint32_t i = 0; i < kLanes; ++i) {
    wire::Header off;
    off.mutable_move()->set_setup(1);
    off.mutable_move()->set_move(kMove + 1);
    off.mutable_move()->mutable_next()->set_incarnation(10 + i);
    tell(i, "scheduler", off);
  }
  order(0, true);  // late
  settle();
  EXPECT_EQ(read(0, all_keys()), Floats({1, 1, 1, 1}));
  EXPECT_TRUE(take_over(1, kMove).has_forgotten());
}

TEST_F(MovingTest, ALaneThatLeavesGivesAllAway) {
  push(0, 0, all_keys(), 1);
  order_all(false);
  order_all(true);
  for (std::uint32_t i = 0; i < kLanes; ++i) ASSERT_TRUE(take_over(i, kMove).has_lane_ready());
  for (std::uint32_t i = 0; i < kLanes; ++i) push(i, 1, {key_of_lane_[i]}, 2);
  settle();
  stage_.clear();
  for (const bool finish : {false, true}) {
    for (std::uint32_t i = 0; i < kLanes; ++i) {
      wire::Header h;
      wire::Move& body = *h.mutable_move();
      body.set_setup(2);
      body.set_move(kMove + 2);
      body.set_lanes(kLanes);
      *body.mutable_next() = setup(3, 1);
      body.mutable_next()->set_incarnation(10 + i);
      body.add_endpoints("somewhere");
      body.set_finish(finish);
      tell(i, "scheduler", h);
    }
    settle();
  }
  for (std::uint32_t i = 0; i < kLanes; ++i) EXPECT_EQ(stage_[i], wire::ALL);
  wire::Header h;
  *h.mutable_lane_setup() = setup(3, 1);
  h.mutable_lane_setup()->set_move(kMove + 2);
  h.mutable_lane_setup()->set_incarnation(10);
  tell(0, "scheduler", h);
  EXPECT_TRUE(processes_[0].box.take().header.has_lane_ready());
  EXPECT_EQ(read(0, all_keys()), Floats({2, 2, 2, 2}));
}

}  // namespace
}  // namespace meander::ps
