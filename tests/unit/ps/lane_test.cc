// SPDX-License-Identifier: Apache-2.0
#include "ps/lane.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "checkpoint/generation.h"
#include "common/partition.h"
#include "ps/streams.h"
#include "tests/unit/ps/fakes.h"

namespace meander::ps {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::uint64_t kCluster = 99, kIncarnation = 5;
using Keys = std::vector<std::uint64_t>;
using Floats = std::vector<float>;

TimePoint ms(std::int64_t count) { return TimePoint(std::chrono::milliseconds(count)); }

// A lane, and the scheduler and workers that talk to it. One table "count" of width 1, SGD with
// rate 1, zeros to start from: a gradient of -1 makes a row the number of times it was trained.
class LaneTest : public testing::Test {
 protected:
  LaneTest() : storage(make_memory_storage()) { make_lane(0); }

  void make_lane(std::uint32_t index) {
    LaneOptions options;
    options.index = index;
    options.incarnation = kIncarnation;
    options.endpoint = "inproc://lane";
    lane = std::make_unique<Lane>(options, box, *storage, executor);
  }

  static wire::Header setup_header(std::int64_t staleness, std::uint32_t streams,
                                   std::uint64_t number = 1) {
    wire::Header h;
    wire::LaneSetup& setup = *h.mutable_lane_setup();
    setup.set_lanes(1);
    setup.set_streams(streams);
    setup.set_staleness(staleness);
    setup.set_setup(number);
    setup.set_incarnation(kIncarnation);
    wire::TableSpec& table = *setup.add_tables();
    table.set_name("count");
    table.set_width(1);
    table.mutable_optimizer()->set_kind(wire::Optimizer::SGD);
    table.mutable_optimizer()->set_rate(1);
    return h;
  }

  void tell(const std::string& peer, wire::Header header, std::vector<Buffer> frames = {}) {
    header.set_cluster(kCluster);
    if (header.request() == 0) header.set_request(++last_request);
    lane->on_message(now, {peer, std::move(header), std::move(frames)});
  }
  void set_up(std::int64_t staleness, std::uint32_t streams) {
    tell("scheduler", setup_header(staleness, streams));
    ASSERT_TRUE(box.take().header.has_lane_ready());
  }

  void pull(std::uint32_t stream, std::uint64_t seq, const Keys& keys, std::uint64_t epoch = 0) {
    wire::Header h;
    h.mutable_pull()->set_stream(stream);
    h.mutable_pull()->set_seq(seq);
    h.mutable_pull()->set_epoch(epoch);
    tell("worker/" + std::to_string(stream), h, {buffer_of(keys)});
  }
  static wire::Header push_header(std::uint32_t stream, std::uint64_t seq, std::uint64_t epoch) {
    wire::Header h;
    h.mutable_push()->set_stream(stream);
    h.mutable_push()->set_seq(seq);
    h.mutable_push()->set_epoch(epoch);
    return h;
  }
  void push(std::uint32_t stream, std::uint64_t seq, const Floats& gradients, bool last = false,
            std::uint64_t epoch = 0) {
    wire::Header h = push_header(stream, seq, epoch);
    h.mutable_push()->set_last(last);
    tell("worker/" + std::to_string(stream), h, {buffer_of(gradients)});
  }
  void push_with_keys(std::uint32_t stream, std::uint64_t seq, const Keys& keys,
                      const Floats& gradients) {
    wire::Header h = push_header(stream, seq, 0);
    h.mutable_push()->set_keys_included(true);
    tell("worker/" + std::to_string(stream), h, {buffer_of(keys), buffer_of(gradients)});
  }
  void fence(std::uint32_t stream, std::uint64_t epoch) {
    wire::Header h;
    h.mutable_fence()->set_stream(stream);
    h.mutable_fence()->set_epoch(epoch);
    tell("scheduler", h);
  }
  void save(std::uint64_t generation) {
    wire::Header h;
    h.mutable_save()->set_generation(generation);
    h.mutable_save()->set_dir("c/" + checkpoint::generation_name(generation));
    h.mutable_save()->set_setup(1);
    tell("scheduler", h);
  }

  // The answer that must be next: rows of a pull.
  Floats take_rows() {
    const net::Message message = box.take();
    EXPECT_TRUE(message.header.has_pulled()) << message.header.ShortDebugString();
    return message.frames.empty() ? Floats() : values_of<float>(message.frames[0]);
  }
  wire::PushOutcome take_outcome() {
    const net::Message message = box.take();
    EXPECT_TRUE(message.header.has_pushed()) << message.header.ShortDebugString();
    return message.header.pushed().outcome();
  }
  Floats read(const Keys& keys) {
    wire::Header h;
    h.mutable_pull()->set_read_only(true);
    tell("worker/0", h, {buffer_of(keys)});
    return take_rows();
  }

  std::unique_ptr<Storage> storage;
  SentBox box;
  ManualExecutor executor;
  std::unique_ptr<Lane> lane;
  TimePoint now{};
  std::uint64_t last_request = 0;
};

TEST_F(LaneTest, SaysHelloUntilItIsSetUpAndReadyUntilItIsUsed) {
  lane->on_timer(now);
  const wire::Hello hello = box.take().header.hello();
  EXPECT_EQ(hello.incarnation(), kIncarnation);
  EXPECT_EQ(hello.endpoint(), "inproc://lane");
  EXPECT_EQ(lane->next_timer(), ms(200));
  lane->on_timer(ms(100));
  EXPECT_TRUE(box.sent.empty());
  lane->on_timer(ms(200));
  EXPECT_TRUE(box.take().header.has_hello());
  set_up(0, 1);
  lane->on_timer(ms(400));
  EXPECT_TRUE(box.take().header.has_lane_ready());
  now = ms(500);
  fence(0, 1);
  EXPECT_TRUE(box.take().header.has_fenced());
  EXPECT_EQ(lane->next_timer(), ms(500 + 15'000));
}

TEST_F(LaneTest, AsksAfterASilentSchedulerAndEndsWithoutIt) {
  lane->on_timer(now);
  box.sent.clear();
  set_up(0, 1);
  fence(0, 1);
  box.sent.clear();
  int hellos = 0;
  while (!lane->finished()) {
    ASSERT_NE(lane->next_timer(), kNever);
    now = lane->next_timer();
    lane->on_timer(now);
    for (; !box.sent.empty(); box.take()) ++hellos;
  }
  EXPECT_EQ(now, ms(60'000));
  EXPECT_GE(hellos, 3);
  EXPECT_LE(hellos, 8);
}

TEST_F(LaneTest, SetUpOfAnotherIncarnationIsAnsweredByHelloOfAnotherClusterNotAtAll) {
  wire::Header header = setup_header(0, 1);
  header.mutable_lane_setup()->set_incarnation(4);
  tell("scheduler", header);
  EXPECT_TRUE(box.take().header.has_hello());
  EXPECT_TRUE(box.sent.empty());
  set_up(0, 1);
  header = setup_header(0, 1, 2);
  header.set_cluster(kCluster + 1);
  lane->on_message(now, {"scheduler", header, {}});
  EXPECT_TRUE(box.sent.empty());
}

TEST_F(LaneTest, BadSetUpIsAFailureThatIsSaidUntilStop) {
  lane->on_timer(now);
  box.sent.clear();
  wire::Header header = setup_header(0, 1);
  header.mutable_lane_setup()->mutable_tables(0)->set_width(0);
  tell("scheduler", header);
  EXPECT_THAT(box.take().header.failure().message(), HasSubstr("table count: width 0"));
  lane->on_timer(ms(200));
  EXPECT_TRUE(box.take().header.has_failure());
  wire::Header stop;
  stop.mutable_stop();
  tell("scheduler", stop);
  EXPECT_TRUE(box.take().header.has_stopped());
  EXPECT_TRUE(lane->finished());
}

TEST_F(LaneTest, ASchedulerThatWasReplacedIsNotHeard) {
  wire::Header header = setup_header(0, 1);
  header.set_term(3);
  tell("scheduler", header);
  EXPECT_EQ(box.take().header.term(), 3u) << "so that a sleeper learns of it";
  wire::Header stop;
  stop.mutable_stop();
  stop.set_term(2);
  tell("scheduler", stop);
  EXPECT_TRUE(box.sent.empty());
  EXPECT_FALSE(lane->finished());
  stop.set_term(4);
  tell("scheduler", stop);
  EXPECT_TRUE(lane->finished());
}

// It was meant for the process before, or was sent before a change of lanes that needs this one.
TEST_F(LaneTest, LateWordThatItIsNotNeededIsNotHeard) {
  set_up(-1, 1);
  const auto stop = [&](std::uint64_t incarnation, std::uint64_t move) {
    wire::Header h;
    h.mutable_stop()->set_incarnation(incarnation);
    h.mutable_stop()->set_move(move);
    tell("scheduler", h);
  };
  stop(kIncarnation + 1, 9);
  EXPECT_TRUE(box.sent.empty());
  wire::Header move;
  move.mutable_move()->set_move(4);
  move.mutable_move()->set_setup(1);
  move.mutable_move()->mutable_next()->set_incarnation(kIncarnation);
  tell("scheduler", move);
  stop(kIncarnation, 3);
  EXPECT_TRUE(box.sent.empty());
  stop(kIncarnation, 4);
  EXPECT_TRUE(box.take().header.has_stopped());
}

TEST_F(LaneTest, TellsANewSchedulerWhatItHolds) {
  lane->on_timer(now);
  EXPECT_EQ(box.take().header.hello().setup(), 0u);
  set_up(0, 1);
  wire::Header question;
  question.mutable_lane_setup()->set_setup(1);
  tell("scheduler", question);
  const wire::Hello hello = box.take().header.hello();
  EXPECT_EQ(hello.incarnation(), kIncarnation);
  EXPECT_EQ(hello.setup(), 1u);
}

TEST_F(LaneTest, PresetRowsAreThere) {
  wire::Header header = setup_header(0, 1);
  header.mutable_lane_setup()->add_preset_tables(0);
  tell("scheduler", header, {buffer_of(Keys{1, 2}), buffer_of(Floats{10, 20})});
  EXPECT_EQ(box.take().header.lane_ready().rows(), 2u);
  EXPECT_THAT(read({2, 1, 3}), ElementsAre(20, 10, 0));
}

TEST_F(LaneTest, PushIsAppliedOnceAndAcknowledgedEachTime) {
  set_up(-1, 1);
  pull(0, 0, {7, 8});
  EXPECT_THAT(take_rows(), ElementsAre(0, 0));
  for (int i = 0; i < 3; ++i) {
    push(0, 0, {-1, -2});
    EXPECT_EQ(take_outcome(), wire::APPLIED);
  }
  EXPECT_THAT(read({7, 8}), ElementsAre(1, 2));
  EXPECT_EQ(lane->next_seq(0), 1u);
}

// Two workers pull the same row; the second one's push knows what the first one's has changed.
TEST_F(LaneTest, LatePushIsCompensatedByTheRowsOfItsOwnPull) {
  wire::Header setup = setup_header(-1, 2);
  setup.mutable_lane_setup()->mutable_tables(0)->mutable_optimizer()->set_delay_compensation(0.5f);
  tell("scheduler", setup);
  ASSERT_TRUE(box.take().header.has_lane_ready());
  for (const std::uint32_t stream : {0u, 1u}) {
    pull(stream, 0, {7});
    EXPECT_THAT(take_rows(), ElementsAre(0));
  }
  push(0, 0, {-2});
  EXPECT_EQ(take_outcome(), wire::APPLIED);
  EXPECT_THAT(read({7}), ElementsAre(2));
  push(1, 0, {-3});  // -3 + 0.5 * 9 * (2 - 0) = 6
  EXPECT_EQ(take_outcome(), wire::APPLIED);
  EXPECT_THAT(read({7}), ElementsAre(-4));
  pull(0, 1, {7});
  EXPECT_THAT(take_rows(), ElementsAre(-4));
  push_with_keys(0, 1, {7}, {1});  // keys alone: as it is
  EXPECT_EQ(take_outcome(), wire::APPLIED);
  EXPECT_THAT(read({7}), ElementsAre(-5));
}

TEST_F(LaneTest, RepliesEchoTheRequestAndGoToTheOneWhoAskedLast) {
  set_up(-1, 1);
  wire::Header h = push_header(0, 1, 0);
  h.set_request(1234);
  tell("worker/0", h, {Buffer()});
  EXPECT_TRUE(box.sent.empty());  // early
  h.set_request(1235);
  tell("worker/3", h, {Buffer()});
  push(0, 0, {});
  EXPECT_EQ(box.take().header.pushed().seq(), 0u);
  const net::Message late = box.take();
  EXPECT_EQ(late.peer, "worker/3");
  EXPECT_EQ(late.header.request(), 1235u);
}

TEST_F(LaneTest, PushesOfAStreamAreAppliedInItsOrder) {
  set_up(-1, 1);
  for (std::uint64_t seq : {2, 1, 0}) pull(0, seq, {7});
  box.sent.clear();
  push(0, 2, {-4});
  push(0, 1, {-2});
  EXPECT_TRUE(box.sent.empty());
  EXPECT_THAT(read({7}), ElementsAre(0));
  push(0, 0, {-1});
  for (std::uint64_t seq : {0, 1, 2}) EXPECT_EQ(box.take().header.pushed().seq(), seq);
  EXPECT_THAT(read({7}), ElementsAre(7));
}

TEST_F(LaneTest, WhatIsTooFarAheadIsDropped) {
  set_up(-1, 1);
  push_with_keys(0, kEarlyPushesMax, {1}, {-1});
  pull(0, kPullsKeptMax, {1});
  EXPECT_TRUE(box.sent.empty());
  push_with_keys(0, 0, {1}, {-1});
  EXPECT_EQ(take_outcome(), wire::APPLIED);
  push_with_keys(0, kEarlyPushesMax, {1}, {-1});  // now it is in reach, and held
  EXPECT_TRUE(box.sent.empty());
}

TEST_F(LaneTest, ForgottenPullNeedsKeys) {
  set_up(-1, 1);
  push(0, 0, {-1});
  EXPECT_EQ(take_outcome(), wire::NEED_KEYS);
  push_with_keys(0, 0, {7}, {-1});
  EXPECT_EQ(take_outcome(), wire::APPLIED);
  push(0, 1, {});  // nothing to remember where there is no gradient
  EXPECT_EQ(take_outcome(), wire::APPLIED);
  EXPECT_THAT(read({7}), ElementsAre(1));
}

TEST_F(LaneTest, BspAppliesAClockWhenAllItsPushesAreThere) {
  set_up(0, 3);
  for (std::uint32_t s : {0, 1, 2}) pull(s, 0, {7});
  for (int i = 0; i < 3; ++i) EXPECT_THAT(take_rows(), ElementsAre(0));
  pull(1, 1, {7});  // waits
  push(2, 0, {-1});
  push(1, 0, {-2});
  EXPECT_TRUE(box.sent.empty());
  push(0, 0, {-4});
  // Applied and acknowledged in the order of streams; then the pull is answered.
  for (std::uint32_t s : {0, 1, 2}) EXPECT_EQ(box.take().header.pushed().stream(), s);
  EXPECT_THAT(take_rows(), ElementsAre(7));
  EXPECT_TRUE(box.sent.empty());
}

TEST_F(LaneTest, BspWaitsForNoStreamThatHasEnded) {
  set_up(0, 2);
  push(1, 0, {}, true);
  push(0, 0, {});
  EXPECT_EQ(take_outcome(), wire::APPLIED);
  EXPECT_EQ(take_outcome(), wire::APPLIED);
  pull(0, 1, {7});
  EXPECT_THAT(take_rows(), ElementsAre(0));
  push(0, 1, {-1}, true);
  EXPECT_EQ(take_outcome(), wire::APPLIED);
  pull(1, 1, {7});  // behind its end
  push(1, 1, {});
  EXPECT_TRUE(box.sent.empty());
}

TEST_F(LaneTest, SspAnswersPullsWithinTheBound) {
  set_up(2, 2);
  for (std::uint64_t seq = 0; seq < 3; ++seq) {
    pull(0, seq, {7});
    take_rows();
    push(0, seq, {-1});
    EXPECT_EQ(take_outcome(), wire::APPLIED);
  }
  pull(0, 3, {7});  // stream 1 has applied nothing: 3 is one too many
  EXPECT_TRUE(box.sent.empty());
  push(1, 0, {});
  EXPECT_EQ(take_outcome(), wire::APPLIED);
  EXPECT_THAT(take_rows(), ElementsAre(3));
}

TEST_F(LaneTest, FenceRefusesTheOlderEpochAndForgetsWhatItHeld) {
  set_up(0, 2);
  pull(0, 0, {7});
  take_rows();
  push(0, 0, {-1});
  fence(0, 3);
  const wire::Fenced fenced = box.take().header.fenced();
  EXPECT_EQ(fenced.epoch(), 3u);
  EXPECT_EQ(fenced.next(), 0u);
  push(0, 0, {-1});
  const wire::Pushed stale = box.take().header.pushed();
  EXPECT_EQ(stale.outcome(), wire::STALE_EPOCH);
  EXPECT_EQ(stale.epoch(), 3u);
  pull(0, 0, {7});
  EXPECT_EQ(take_outcome(), wire::STALE_EPOCH);
  push(1, 0, {});  // the clock is not complete: what stream 0 had pushed is gone
  EXPECT_TRUE(box.sent.empty());
  pull(0, 0, {7}, 3);
  EXPECT_THAT(take_rows(), ElementsAre(0));
  push(0, 0, {-1}, false, 3);
  EXPECT_EQ(take_outcome(), wire::APPLIED);
  EXPECT_EQ(take_outcome(), wire::APPLIED);
  EXPECT_THAT(read({7}), ElementsAre(1));
  fence(0, 2);  // a late one, or the question of a new scheduler
  EXPECT_EQ(box.take().header.fenced().epoch(), 3u);
  fence(0, 3);  // a repeat
  EXPECT_EQ(box.take().header.fenced().next(), 1u);
}

TEST_F(LaneTest, BspSuccessorSeesTheRowsOfTheBatchThatWasAppliedHere) {
  set_up(0, 1);
  pull(0, 0, {7, 8});
  EXPECT_THAT(take_rows(), ElementsAre(0, 0));
  push(0, 0, {-1, -1});
  EXPECT_EQ(take_outcome(), wire::APPLIED);
  fence(0, 2);
  box.take();
  pull(0, 0, {7, 8}, 2);  // another lane has not applied it
  EXPECT_THAT(take_rows(), ElementsAre(0, 0));
  push(0, 0, {-1, -1}, false, 2);
  EXPECT_EQ(take_outcome(), wire::APPLIED);
  pull(0, 1, {7, 8}, 2);
  EXPECT_THAT(take_rows(), ElementsAre(1, 1));
}

TEST_F(LaneTest, MalformedArraysEndTheRunNotTheLane) {
  const std::vector<std::vector<Buffer>> bad_pushes = {
      {buffer_of(Keys{1, 2}), buffer_of(Floats{1})},           // too few gradients
      {buffer_of(Keys{1}), buffer_of(Floats{1, 2})},           // too many
      {buffer_of(Keys{1})},                                    // a frame is missing
      {buffer_of(std::vector<char>(7)), buffer_of(Floats{})},  // not whole keys
      {buffer_of(Keys{1}), buffer_of(std::vector<char>(5))},   // not whole floats
  };
  for (const auto& frames : bad_pushes) {
    make_lane(0);
    set_up(-1, 1);
    wire::Header h = push_header(0, 0, 0);
    h.mutable_push()->set_keys_included(true);
    tell("worker/0", h, frames);
    EXPECT_THAT(box.take().header.failure().message(), HasSubstr("worker/0 sent a malformed push"));
    EXPECT_EQ(lane->next_seq(0), 0u);
  }
  make_lane(0);
  set_up(-1, 1);
  wire::Header h;
  h.mutable_pull();
  tell("worker/0", h, {buffer_of(std::vector<char>(9))});
  EXPECT_THAT(box.take().header.failure().message(), HasSubstr("malformed pull"));
}

TEST_F(LaneTest, NarrowRowsAndGradientsAreTheRoundedOnes) {
  set_up(-1, 1);
  const Keys keys = {1, 2, 3};
  const Floats values = {-1.0f / 3, 1e-3f, -70.7f};
  const auto narrowed = [](const Floats& floats) {
    Buffer bytes = Buffer::allocate(2 * floats.size());
    encode(floats.data(), floats.size(), wire::BF16, bytes.data());
    return bytes;
  };
  wire::Header h;
  h.mutable_pull()->set_precision(wire::BF16);
  h.mutable_pull()->set_narrow_tables(1);
  tell("worker/0", h, {buffer_of(keys)});
  EXPECT_EQ(box.take().frames.at(0).size(), 6u);
  h = push_header(0, 0, 0);
  h.mutable_push()->set_precision(wire::BF16);
  h.mutable_push()->set_narrow_tables(1);
  tell("worker/0", h, {narrowed(values)});
  EXPECT_EQ(box.take().header.pushed().outcome(), wire::APPLIED);
  Floats rounded(3);
  decode(narrowed(values).data(), 3, wire::BF16, rounded.data());
  pull(0, 1, keys);
  EXPECT_EQ(take_rows(), (Floats{-rounded[0], -rounded[1], -rounded[2]})) << "stored as f32";
}

TEST_F(LaneTest, KeysOfAnotherLaneAreRefused) {
  make_lane(1);
  wire::Header header = setup_header(-1, 1);
  header.mutable_lane_setup()->set_lanes(2);
  tell("scheduler", header);
  box.take();
  std::uint64_t foreign = 0;
  while (PartitionMap::even(2).lane_of(foreign) != 0) ++foreign;
  pull(0, 0, {foreign});
  EXPECT_THAT(box.take().header.failure().message(), HasSubstr("malformed pull"));
}

TEST_F(LaneTest, StrangersAndNonsenseAreIgnored) {
  push(0, 0, {-1});  // before any set-up
  set_up(-1, 1);
  push(1, 0, {});  // no such stream
  fence(9, 1);
  wire::Header h;
  h.mutable_save()->set_generation(1);
  h.mutable_save()->set_setup(7);  // of another set-up
  tell("scheduler", h);
  tell("worker/0", setup_header(0, 1, 2));
  wire::Header stop;
  stop.mutable_stop();
  tell("worker/0", stop);
  EXPECT_TRUE(box.sent.empty());
  EXPECT_FALSE(lane->finished());
}

// Ties a lane's Saved into a manifest, as the scheduler does.
manifest::Manifest manifest_of(const wire::Saved& saved) {
  manifest::Manifest manifest;
  manifest::Table& table = *manifest.add_tables();
  table.set_name("count");
  table.set_width(1);
  table.set_optimizer("sgd");
  table.set_step(saved.table_steps(0));
  for (const wire::StreamApplied& applied : saved.applied()) {
    manifest::Stream& stream = *manifest.add_streams();
    stream.set_stream(applied.stream());
    stream.set_next(applied.next());
    stream.set_ended(applied.ended());
  }
  for (const manifest::File& file : saved.files()) {
    *manifest.add_files() = file;
    table.set_rows(table.rows() + file.rows());
  }
  manifest.set_digest(checkpoint::final_digest(saved.digest(), manifest));
  return manifest;
}

TEST_F(LaneTest, SavesAtACutAndRestoresIt) {
  set_up(-1, 2);
  push_with_keys(0, 0, {1, 2, 3}, {-1, -2, -3});
  push_with_keys(0, 1, {1}, {-1});
  box.sent.clear();
  save(4);
  EXPECT_EQ(box.take().header.flipped().generation(), 4u);
  push_with_keys(0, 2, {1}, {-1});  // of the next generation: applied at once, and not saved
  EXPECT_EQ(take_outcome(), wire::APPLIED);
  EXPECT_THAT(read({1}), ElementsAre(3));
  save(4);  // a repeat
  EXPECT_EQ(box.take().header.flipped().generation(), 4u);
  executor.run_all();
  const wire::Saved saved = box.take().header.saved();
  EXPECT_EQ(saved.generation(), 4u);
  EXPECT_EQ(saved.applied(0).next(), 2u);
  EXPECT_EQ(saved.table_steps(0), 2u);
  ASSERT_EQ(saved.files_size(), 1);
  EXPECT_EQ(saved.files(0).rows(), 3u);
  save(4);  // a repeat
  EXPECT_EQ(box.take().header.saved().digest(), saved.digest());
  save(3);  // an older one
  EXPECT_TRUE(box.sent.empty());

  const std::string dir = "c/gen-000004";
  ASSERT_TRUE(checkpoint::write_manifest(*storage, dir, manifest_of(saved)).ok());
  EXPECT_THAT(checkpoint::verify(*storage, dir)->errors, IsEmpty());
  wire::Header back = setup_header(-1, 2, 2);  // the cluster rolls back
  back.mutable_lane_setup()->set_restore_dir(dir);
  back.mutable_lane_setup()->set_restore_positions(true);
  back.mutable_lane_setup()->set_first_epoch(8);
  tell("scheduler", back);
  EXPECT_TRUE(box.sent.empty());
  lane->on_timer(ms(1'000));
  EXPECT_TRUE(box.take().header.has_hello());  // alive, though not ready
  executor.run_all();
  const wire::LaneReady ready = box.take().header.lane_ready();
  EXPECT_EQ(ready.setup(), 2u);
  EXPECT_EQ(ready.rows(), 3u);
  EXPECT_EQ(ready.applied(0).next(), 2u);
  EXPECT_THAT(read({1, 2, 3}), ElementsAre(2, 2, 3));
  push_with_keys(0, 2, {1}, {-1});  // from before the roll-back
  EXPECT_EQ(take_outcome(), wire::STALE_EPOCH);
}

TEST_F(LaneTest, RowsAloneCanBeRestored) {
  set_up(-1, 1);
  push_with_keys(0, 0, {1}, {-5});
  box.sent.clear();
  save(1);
  executor.run_all();
  box.take();  // Flipped
  ASSERT_TRUE(
      checkpoint::write_manifest(*storage, "c/gen-000001", manifest_of(box.take().header.saved()))
          .ok());
  make_lane(0);
  wire::Header back = setup_header(-1, 4);  // other data, other streams
  back.mutable_lane_setup()->set_restore_dir("c/gen-000001");
  tell("scheduler", back);
  executor.run_all();
  EXPECT_EQ(box.take().header.lane_ready().applied_size(), 4);
  EXPECT_EQ(lane->next_seq(0), 0u);
  EXPECT_THAT(read({1}), ElementsAre(5));
}

TEST_F(LaneTest, RestoreOfAnotherModelOrADamagedOneFails) {
  set_up(-1, 1);
  push_with_keys(0, 0, {1}, {-5});
  box.sent.clear();
  save(1);
  executor.run_all();
  box.take();  // Flipped
  const manifest::Manifest manifest = manifest_of(box.take().header.saved());
  const auto failure_of = [&](wire::Header header) {
    make_lane(0);
    header.mutable_lane_setup()->set_restore_dir("c/gen-000001");
    header.mutable_lane_setup()->set_restore_positions(true);
    tell("scheduler", header);
    executor.run_all();
    return box.take().header.failure();
  };
  EXPECT_EQ(failure_of(setup_header(-1, 1)).code(), static_cast<int>(Code::kNotFound));
  ASSERT_TRUE(checkpoint::write_manifest(*storage, "c/gen-000001", manifest).ok());
  EXPECT_THAT(failure_of(setup_header(-1, 2)).message(),
              HasSubstr("has 1 streams, this run has 2"));
  wire::Header wider = setup_header(-1, 1);
  wider.mutable_lane_setup()->mutable_tables(0)->set_width(2);
  EXPECT_THAT(failure_of(wider).message(), HasSubstr("table count of 1 + 0 floats is not this"));
  const std::string file = "c/gen-000001/" + manifest.files(0).name();
  const Buffer bytes = storage->read(file).value();
  ASSERT_TRUE(storage->write_atomic(file, bytes.data(), bytes.size() - 1).ok());
  const auto torn = failure_of(setup_header(-1, 1));
  EXPECT_EQ(torn.code(), static_cast<int>(Code::kCorrupt));
  EXPECT_THAT(torn.message(), HasSubstr("torn"));
}

TEST_F(LaneTest, DeltaHoldsWhatWasTouchedSinceItsBase) {
  set_up(-1, 1);
  push_with_keys(0, 0, {1, 2}, {-5, -6});
  push_with_keys(0, 1, {2}, {-1});
  box.sent.clear();
  wire::Header h;
  h.mutable_save()->set_generation(2);
  h.mutable_save()->set_dir("c/gen-000002");
  h.mutable_save()->set_setup(1);
  h.mutable_save()->add_base_steps(1);
  ASSERT_TRUE(storage->make_directories("c/gen-000002").ok());
  tell("scheduler", h);
  executor.run_all();
  box.take();  // Flipped
  EXPECT_EQ(box.take().header.saved().files(0).rows(), 1u);
}

// Also where nothing but the name tells two files apart, as on an object store.
TEST_F(LaneTest, WritesNoFileOfAnotherRunThatWritesTheSameGeneration) {
  std::vector<std::string> names;
  for (const std::uint64_t cluster : {kCluster, kCluster + 1}) {
    make_lane(0);
    const auto tell_run = [&](const std::string& peer, wire::Header h, std::vector<Buffer> frames) {
      h.set_cluster(cluster);
      h.set_request(++last_request);
      lane->on_message(now, {peer, std::move(h), std::move(frames)});
    };
    tell_run("scheduler", setup_header(-1, 1), {});
    wire::Header push = push_header(0, 0, 0);
    push.mutable_push()->set_keys_included(true);
    tell_run("worker/0", push, {buffer_of(Keys{1}), buffer_of(Floats{-1})});
    wire::Header save;
    save.mutable_save()->set_generation(1);
    save.mutable_save()->set_dir("c/gen-000001");
    save.mutable_save()->set_setup(1);
    tell_run("scheduler", save, {});
    executor.run_all();
    ASSERT_FALSE(box.sent.empty());
    const wire::Header last = box.sent.back().header;
    ASSERT_TRUE(last.has_saved()) << last.ShortDebugString();
    ASSERT_EQ(last.saved().files_size(), 1);
    names.push_back(last.saved().files(0).name());
  }
  EXPECT_NE(names[0], names[1]);
  EXPECT_EQ(storage->list("c/gen-000001").value().size(), 2u);
}

// While it trains, a lane writes 16 MiB of a generation at once and then write_bytes_per_s; once
// nobody has pushed for a second, as fast as it can.
TEST_F(LaneTest, WritesAGenerationSlowlyWhileItTrains) {
  constexpr std::uint32_t kWidth = 4096, kRows = 4096;  // 64 MiB
  wire::Header setup = setup_header(0, 1);
  setup.mutable_lane_setup()->mutable_tables(0)->set_width(kWidth);
  tell("scheduler", setup);
  ASSERT_TRUE(box.take().header.has_lane_ready());
  Keys keys(kRows);
  std::iota(keys.begin(), keys.end(), 0);
  now = ms(100);
  push_with_keys(0, 0, keys, Floats(keys.size() * kWidth, -1));
  ASSERT_EQ(take_outcome(), wire::APPLIED);
  save(1);
  ASSERT_TRUE(box.take().header.has_flipped());
  const auto run_until = [&](std::int64_t end_ms) {
    for (;;) {
      executor.run_all();
      now = std::max(now, std::min(lane->next_timer(), ms(end_ms)));
      if (now >= ms(end_ms) || !lane->is_saving()) return;
      lane->on_timer(now);
    }
  };
  // (64 - 16) MiB at 200 MB/s are some 250 ms, and nothing is written twice as fast.
  run_until(220);
  EXPECT_TRUE(lane->is_saving());
  push_with_keys(0, 1, {1}, Floats(kWidth, -1));
  ASSERT_EQ(take_outcome(), wire::APPLIED);
  run_until(400);
  EXPECT_FALSE(lane->is_saving());
  EXPECT_GT(now, ms(340));
  ASSERT_TRUE(box.take().header.has_saved());

  now = ms(5000);
  save(2);
  ASSERT_TRUE(box.take().header.has_flipped());
  executor.run_all();
  EXPECT_FALSE(lane->is_saving());
  EXPECT_TRUE(box.take().header.has_saved());
}

TEST_F(LaneTest, RollBackEndsASave) {
  set_up(-1, 1);
  push_with_keys(0, 0, {1}, {-5});
  box.sent.clear();
  save(1);
  box.take();  // Flipped
  tell("scheduler", setup_header(-1, 1, 3));
  tell("scheduler", setup_header(-1, 1, 2));
  EXPECT_EQ(box.take().header.lane_ready().setup(), 3u);
  executor.run_all();
  EXPECT_TRUE(box.sent.empty());
  EXPECT_EQ(lane->rows(), 0u);
}

TEST_F(LaneTest, GenerationThatCannotBeWrittenIsSaidAndTheLaneGoesOn) {
  set_up(-1, 1);
  push_with_keys(0, 0, {1}, {-5});
  box.sent.clear();
  ASSERT_TRUE(storage->remove("c").ok());
  auto block = storage->create("c");  // a file where the directory should be
  ASSERT_TRUE(block.ok() && block.value()->close().ok());
  wire::Header h;
  h.mutable_save()->set_generation(1);
  h.mutable_save()->set_dir("c/gen-000001");
  h.mutable_save()->set_setup(1);
  tell("scheduler", h);
  box.take();  // Flipped
  executor.run_all();
  const wire::Saved saved = box.take().header.saved();
  EXPECT_NE(saved.error(), 0u);
  EXPECT_THAT(saved.message(), HasSubstr("c/gen-000001"));
  push_with_keys(0, 1, {1}, {-1});
  EXPECT_EQ(take_outcome(), wire::APPLIED);
}

}  // namespace
}  // namespace meander::ps
