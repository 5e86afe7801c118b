// SPDX-License-Identifier: Apache-2.0
#include "ps/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/ps/fakes.h"

namespace meander::ps {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::uint64_t kCluster = 99;
using Keys = std::vector<std::uint64_t>;
using Floats = std::vector<float>;

TimePoint ms(std::int64_t count) { return TimePoint(std::chrono::milliseconds(count)); }

// A client of tables of widths 2 and 1, and the lanes that it talks to.
class ClientTest : public testing::Test {
 protected:
  ClientTest() { make_client(2); }

  void make_client(std::uint32_t lanes, WireFormat format = {}) {
    ClientOptions options;
    options.format = format;
    options.widths = {2, 1};
    options.cluster = kCluster;
    client = std::make_unique<Client>(
        box, options,
        Client::Events{[this](TimePoint, BatchId id, std::vector<Buffer> r) {
                         pulled.push_back(id.seq);
                         rows = std::move(r);
                       },
                       [this](TimePoint, BatchId id) { pushed.push_back(id.seq); },
                       [this](TimePoint, std::uint32_t stream) { fenced.push_back(stream); }});
    ASSERT_TRUE(client->set_lanes(std::vector<std::string>(lanes, "inproc://x")).ok());
  }

  Keys grouped(Keys keys) const {
    std::stable_sort(keys.begin(), keys.end(), [&](std::uint64_t a, std::uint64_t b) {
      return client->partitions().lane_of(a) < client->partitions().lane_of(b);
    });
    return keys;
  }
  void pull(BatchId id, bool read_only = false) {
    client->pull(now, id, {buffer_of(first), buffer_of(second)}, read_only);
  }
  void push(BatchId id) {
    Floats gradients(2 * first.size()), others(second.size(), 7);
    for (std::size_t i = 0; i < gradients.size(); ++i) gradients[i] = static_cast<float>(i);
    client->push(now, id, {buffer_of(gradients), buffer_of(others)}, true);
  }

  // What a lane answers to a pull: key, key + 1/2 in table 0; key in table 1.
  net::Message answer(const net::Message& question) {
    net::Message reply{question.peer, {}, {}};
    reply.header.set_cluster(kCluster);
    reply.header.set_request(question.header.request());
    const wire::Pull& pull = question.header.pull();
    reply.header.mutable_pulled()->set_stream(pull.stream());
    reply.header.mutable_pulled()->set_seq(pull.seq());
    reply.header.mutable_pulled()->set_epoch(pull.epoch());
    Floats wide, narrow;
    for (const std::uint64_t key : values_of<std::uint64_t>(question.frames[0])) {
      wide.push_back(static_cast<float>(key));
      wide.push_back(static_cast<float>(key) + 0.5f);
    }
    for (const std::uint64_t key : values_of<std::uint64_t>(question.frames[1])) {
      narrow.push_back(static_cast<float>(key));
    }
    reply.frames = {buffer_of(wide), buffer_of(narrow)};
    return reply;
  }
  net::Message outcome(const net::Message& question, wire::PushOutcome outcome,
                       std::uint64_t epoch = 2) {
    net::Message reply{question.peer, {}, {}};
    reply.header.set_cluster(kCluster);
    reply.header.set_request(question.header.request());
    wire::Pushed& body = *reply.header.mutable_pushed();
    const wire::Header& q = question.header;
    body.set_stream(q.has_push() ? q.push().stream() : q.pull().stream());
    body.set_seq(q.has_push() ? q.push().seq() : q.pull().seq());
    body.set_outcome(outcome);
    body.set_epoch(epoch);
    return reply;
  }
  void hear(const net::Message& message) { EXPECT_TRUE(client->on_message(now, message)); }
  void expect_right_rows() {
    ASSERT_EQ(rows.size(), 2u);
    const auto wide = values_of<float>(rows[0]), narrow = values_of<float>(rows[1]);
    ASSERT_EQ(wide.size(), 2 * first.size());
    for (std::size_t i = 0; i < first.size(); ++i) {
      EXPECT_EQ(wide[2 * i], first[i]);
      EXPECT_EQ(wide[2 * i + 1], static_cast<float>(first[i]) + 0.5f);
    }
    EXPECT_THAT(narrow, testing::ElementsAreArray(second));
  }

  SentBox box;
  std::unique_ptr<Client> client;
  TimePoint now{};
  Keys first, second;
  std::vector<std::uint64_t> pulled, pushed;
  std::vector<std::uint32_t> fenced;
  std::vector<Buffer> rows;
};

TEST_F(ClientTest, JoinsTheRowsOfAllLanesInTheOrderOfTheKeys) {
  for (const std::uint32_t lanes : {1, 2, 5}) {
    make_client(lanes);
    first = grouped({5, 900, 3, 77, 1, 12, 13, 14, 15});
    second = grouped({8});
    pull({1, 2, 3});
    ASSERT_EQ(box.sent.size(), lanes);
    std::vector<net::Message> answers;
    for (std::uint32_t i = 0; i < lanes; ++i) answers.push_back(answer(box.take()));
    std::reverse(answers.begin(), answers.end());
    pulled.clear();
    for (const auto& a : answers) {
      EXPECT_THAT(pulled, IsEmpty());
      hear(a);
      hear(a);  // a repeat
    }
    EXPECT_THAT(pulled, ElementsAre(3));
    expect_right_rows();
    EXPECT_EQ(rows[0].data() == answers[0].frames[0].data(), lanes == 1);  // one: not copied
  }
}

TEST_F(ClientTest, PushGoesToEveryLaneAndIsDoneWhenAllHaveSaidSo) {
  first = grouped({5, 900, 3, 77});
  pull({1, 2, 3});
  std::vector<Keys> keys_of_lane;
  for (int lane = 0; lane < 2; ++lane) {
    const net::Message question = box.take();
    keys_of_lane.push_back(values_of<std::uint64_t>(question.frames[0]));
    hear(answer(question));
  }
  push({1, 2, 3});
  ASSERT_EQ(box.sent.size(), 2u);
  const net::Message a = box.take(), b = box.take();
  EXPECT_TRUE(a.header.push().last());
  EXPECT_FALSE(a.header.push().keys_included());
  EXPECT_EQ(a.frames[0].size(), keys_of_lane[0].size() * 8);
  EXPECT_EQ(values_of<float>(b.frames[0]).back(), 7.0f);  // the last of 8 gradients
  hear(outcome(a, wire::APPLIED));
  hear(outcome(a, wire::APPLIED));
  hear(outcome(b, wire::APPLIED, 1));  // from before a roll-back: to this name, not to this push
  EXPECT_THAT(pushed, IsEmpty());
  hear(outcome(b, wire::APPLIED));
  EXPECT_THAT(pushed, ElementsAre(3));
  EXPECT_EQ(client->in_flight(), 0u);
  EXPECT_EQ(client->next_timer(), kNever);
}

TEST_F(ClientTest, AsksOnlyThoseWhoAreSilentAndMoreAndMoreRarely) {
  first = grouped({5, 900, 3, 77});
  pull({1, 2, 3});
  hear(answer(box.take()));
  box.take();
  std::vector<std::int64_t> times;
  while (now < ms(20'000)) {
    now = client->next_timer();
    client->on_timer(now);
    times.push_back(now.time_since_epoch() / std::chrono::milliseconds(1));
    EXPECT_EQ(box.take().peer, "lane/1");
    EXPECT_TRUE(box.sent.empty());
  }
  EXPECT_THAT(times, ElementsAre(500, 1500, 3500, 7500, 11500, 15500, 19500, 23500));
  EXPECT_EQ(client->retries(), 8u);
}

TEST_F(ClientTest, SendsKeysToALaneThatHasForgottenThem) {
  first = grouped({5, 900, 3, 77});
  pull({1, 2, 3});
  const Keys keys = values_of<std::uint64_t>(box.sent[0].frames[0]);
  for (int lane = 0; lane < 2; ++lane) hear(answer(box.take()));
  push({1, 2, 3});
  const net::Message a = box.take();
  box.take();
  hear(outcome(a, wire::NEED_KEYS));
  hear(outcome(a, wire::NEED_KEYS));  // a repeat
  const net::Message with_keys = box.take();
  EXPECT_TRUE(box.sent.empty());
  EXPECT_TRUE(with_keys.header.push().keys_included());
  ASSERT_EQ(with_keys.frames.size(), 4u);
  EXPECT_EQ(values_of<std::uint64_t>(with_keys.frames[0]), keys);
  EXPECT_EQ(with_keys.frames[1].size(), keys.size() * 8);
}

TEST_F(ClientTest, FencedStreamIsForgottenAndReportedOnce) {
  first = grouped({5, 900});
  pull({1, 2, 3});
  const net::Message a = box.take(), b = box.take();
  pull({1, 2, 4});
  pull({6, 2, 0});
  hear(outcome(a, wire::STALE_EPOCH, 2));  // not newer than ours: a late word
  EXPECT_THAT(fenced, IsEmpty());
  hear(outcome(a, wire::STALE_EPOCH, 3));
  hear(outcome(b, wire::STALE_EPOCH, 3));
  EXPECT_THAT(fenced, ElementsAre(1));
  EXPECT_EQ(client->in_flight(), 1u);
  hear(answer(b));
  EXPECT_THAT(pulled, IsEmpty());
}

TEST_F(ClientTest, LateAndMalformedAnswersAreIgnored) {
  first = grouped({5, 900});
  pull({1, 2, 3});
  const net::Message a = box.take(), b = box.take();
  net::Message wrong = answer(a);
  wrong.frames[0] = Buffer::allocate(4);
  hear(wrong);
  wrong = answer(a);
  wrong.frames.pop_back();
  hear(wrong);
  wrong = answer(a);
  wrong.peer = "lane/1";
  hear(wrong);
  wrong = answer(a);
  wrong.header.set_cluster(3);
  hear(wrong);
  wrong = answer(a);
  wrong.header.mutable_pulled()->set_epoch(1);
  hear(wrong);
  hear(outcome(a, wire::APPLIED));  // of a push that was not made
  hear(answer(b));
  EXPECT_THAT(pulled, IsEmpty());
  hear(answer(a));
  EXPECT_THAT(pulled, ElementsAre(3));
  expect_right_rows();
  wire::Header other;
  other.mutable_resume();
  EXPECT_FALSE(client->on_message(now, {"scheduler", other, {}}));
}

TEST_F(ClientTest, ReadOnlyPullIsOverWhenAnswered) {
  first = grouped({5, 900});
  pull({1, 2, 3}, true);
  EXPECT_TRUE(box.sent[0].header.pull().read_only());
  hear(answer(box.take()));
  hear(answer(box.take()));
  EXPECT_THAT(pulled, ElementsAre(3));
  EXPECT_EQ(client->in_flight(), 0u);
  client->release({1, 2, 3});
}

TEST_F(ClientTest, DroppedStreamIsNotAskedForAgain) {
  pull({1, 2, 3});
  pull({2, 2, 3});
  client->drop(1);
  box.sent.clear();
  client->on_timer(ms(500));
  EXPECT_EQ(box.sent.size(), 2u);
  EXPECT_EQ(box.sent[0].header.pull().stream(), 2u);
}

TEST_F(ClientTest, NarrowTablesCrossTheWireRoundedAndOthersAsTheyAre) {
  make_client(2, {wire::BF16, 1});
  const auto narrowed = [](const Floats& floats) {
    Buffer bytes = Buffer::allocate(2 * floats.size());
    encode(floats.data(), floats.size(), wire::BF16, bytes.data());
    return bytes;
  };
  first = grouped({1, 300, 5, 7});
  second = grouped({4});
  pull({0, 0, 0});
  for (int lane = 0; lane < 2; ++lane) {
    const net::Message question = box.take();
    EXPECT_EQ(question.header.pull().precision(), wire::BF16);
    EXPECT_EQ(question.header.pull().narrow_tables(), 1u);
    net::Message reply = answer(question);
    reply.frames[0] = narrowed(values_of<float>(reply.frames[0]));
    EXPECT_TRUE(client->on_message(now, reply));
  }
  ASSERT_EQ(pulled.size(), 1u);
  Floats expected;
  for (const std::uint64_t key : first) {
    expected.push_back(static_cast<float>(key));
    expected.push_back(key == 300 ? 300 : static_cast<float>(key) + 0.5f);  // 9 bits are too many
  }
  EXPECT_EQ(values_of<float>(rows[0]), expected);
  push({0, 0, 0});
  std::size_t wide = 0, narrow = 0;
  for (int lane = 0; lane < 2; ++lane) {
    const net::Message message = box.take();
    EXPECT_EQ(message.header.push().precision(), wire::BF16);
    narrow += message.frames[0].size();
    wide += message.frames[1].size();
  }
  EXPECT_EQ(narrow, 2 * 2 * first.size());
  EXPECT_EQ(wide, 4 * second.size());
}

}  // namespace
}  // namespace meander::ps
