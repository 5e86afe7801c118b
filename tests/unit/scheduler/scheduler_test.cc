// SPDX-License-Identifier: Apache-2.0
#include "scheduler/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <memory>

#include "checkpoint/generation.h"
#include "common/partition.h"

namespace meander::scheduler {
namespace {

using testing::HasSubstr;

constexpr std::uint64_t kCluster = 77;

struct Sent {
  std::string peer;
  wire::Header header;
  std::vector<Buffer> frames;
};

class Recorder final : public net::Transport {
 public:
  Status connect(const std::string&, const std::string&) override { return {}; }
  void send(const std::string& peer, const wire::Header& header,
            const std::vector<Buffer>& frames) override {
    sent.push_back({peer, header, frames});
  }
  std::deque<Sent> sent;
};

// A scheduler, and this test as all of its peers.
class SchedulerTest : public testing::Test {
 protected:
  void SetUp() override {
    options_.cluster = kCluster;
    options_.checkpoint_dir = "ckpt";
    options_.model = "counting/2";
    wire::TableSpec& table = options_.tables.emplace_back();
    table.set_name("items");
    table.set_width(2);
    table.mutable_optimizer()->set_kind(wire::Optimizer::ADAM);
  }
  void start(std::uint32_t lanes, std::uint32_t workers, std::uint32_t streams) {
    options_.lanes = lanes;
    options_.workers = workers;
    options_.streams = streams;
    start();
  }
  void start() {
    scheduler_ = std::make_unique<Scheduler>(options_, transport_, *storage_, clock_);
    scheduler_->on_timer(now_);
  }
  void advance(Duration d) {
    now_ += d;
    if (scheduler_->next_timer() <= now_) scheduler_->on_timer(now_);
  }
  void say(const std::string& peer, wire::Header header, std::vector<Buffer> frames = {}) {
    header.set_cluster(kCluster);
    scheduler_->on_message(now_, {peer, std::move(header), std::move(frames)});
  }
  // The latest message of this kind to `peer`.
  template <class Has>
  Sent take(const std::string& peer, Has has) {
    Sent found;
    for (Sent& sent : transport_.sent) {
      if (sent.peer == peer && (sent.header.*has)()) found = sent;
    }
    EXPECT_EQ(found.peer, peer) << "not sent";
    return found;
  }
  template <class Has>
  int count(const std::string& peer, Has has) {
    int n = 0;
    for (Sent& sent : transport_.sent) n += sent.peer == peer && (sent.header.*has)();
    return n;
  }

  void hello(const std::string& peer, std::uint64_t incarnation) {
    wire::Header header;
    header.mutable_hello()->set_incarnation(incarnation);
    header.mutable_hello()->set_endpoint("at " + peer);
    say(peer, header);
  }
  void lane_ready(std::uint32_t lane, std::uint64_t setup) {
    wire::Header header;
    header.mutable_lane_ready()->set_setup(setup);
    say(net::lane_name(lane), header);
  }
  void fenced(std::uint32_t lane, std::uint32_t stream, std::uint64_t next, bool ended = false) {
    wire::Header header;
    wire::Fenced& body = *header.mutable_fenced();
    body.set_stream(stream);
    for (const Sent& sent : transport_.sent) {
      if (sent.header.has_fence() && sent.header.fence().stream() == stream) {
        body.set_epoch(sent.header.fence().epoch());
      }
    }
    body.set_next(next);
    body.set_ended(ended);
    say(net::lane_name(lane), header);
  }
  struct Held {
    std::uint32_t stream;
    std::uint64_t epoch, started, acked;
    bool ended = false;
  };
  static void add(const Held& held, wire::StreamProgress& progress) {
    progress.set_stream(held.stream);
    progress.set_epoch(held.epoch);
    progress.set_started(held.started);
    progress.set_acked(held.acked);
    progress.set_ended(held.ended);
  }
  void heartbeat(std::uint32_t worker, std::uint64_t incarnation, std::uint64_t number,
                 std::vector<Held> streams = {}, std::uint64_t samples = 0, std::uint64_t setup = 1,
                 std::uint64_t paused = 0) {
    wire::Header header;
    wire::Heartbeat& body = *header.mutable_heartbeat();
    body.set_incarnation(incarnation);
    body.set_number(number);
    body.set_setup(setup);
    body.set_paused(paused);
    for (const Held& held : streams) add(held, *body.add_streams());
    std::vector<Buffer> frames;
    if (samples > 0) {
      Accumulator metrics;
      metrics.samples = samples;
      metrics.batches = 1;
      frames.push_back(metrics.encode());
    }
    say(net::worker_name(worker), header, frames);
  }
  void saved(std::uint32_t lane, const wire::Save& save, std::vector<std::uint64_t> next,
             bool ended) {
    wire::Header header;
    wire::Saved& body = *header.mutable_saved();
    body.set_generation(save.generation());
    for (std::uint32_t stream = 0; stream < next.size(); ++stream) {
      wire::StreamApplied& applied = *body.add_applied();
      applied.set_stream(stream);
      applied.set_next(next[stream]);
      applied.set_ended(ended);
    }
    body.add_table_steps(12);
    body.set_digest(5);
    say(net::lane_name(lane), header);
  }
  // One lane, one worker, one stream, leased under the epoch that is returned.
  std::uint64_t start_one() {
    start(1, 1, 1);
    hello("lane/0", 10);
    lane_ready(0, 1);
    hello("worker/0", 20);
    heartbeat(0, 20, 1);
    fenced(0, 0, 0);
    return take("worker/0", &wire::Header::has_lease).header.lease().epoch();
  }
  wire::Save expect_save(std::uint32_t lane) {
    return take(net::lane_name(lane), &wire::Header::has_save).header.save();
  }

  SchedulerOptions options_;
  Recorder transport_;
  std::unique_ptr<Storage> storage_ = make_memory_storage();
  ManualClock clock_;
  std::unique_ptr<Scheduler> scheduler_;
  TimePoint now_{std::chrono::hours(1)};
};

TEST_F(SchedulerTest, SetsLanesUpBeforeWorkers) {
  options_.presets.push_back({.table = 0, .keys = {1, 2, 3, 4, 5, 6}, .rows = {}});
  for (int i = 0; i < 12; ++i) options_.presets[0].rows.push_back(i);
  start(2, 1, 1);
  hello("worker/0", 20);
  hello("lane/0", 10);
  hello("lane/1", 11);
  EXPECT_EQ(count("worker/0", &wire::Header::has_worker_setup), 0);
  EXPECT_EQ(count("worker/0", &wire::Header::has_heartbeat_ack), 1) << "it shall know we live";

  std::size_t keys = 0;
  for (std::uint32_t lane : {0u, 1u}) {
    const Sent sent = take(net::lane_name(lane), &wire::Header::has_lane_setup);
    EXPECT_EQ(sent.header.lane_setup().lanes(), 2u);
    EXPECT_EQ(sent.header.lane_setup().incarnation(), 10u + lane);
    ASSERT_EQ(sent.frames.size(), 2u);
    for (std::uint64_t key : sent.frames[0].as<std::uint64_t>()) {
      EXPECT_EQ(PartitionMap::even(2).lane_of(key), lane);
    }
    keys += sent.frames[0].as<std::uint64_t>().size();
    EXPECT_EQ(sent.frames[1].size(), sent.frames[0].size());
  }
  EXPECT_EQ(keys, 6u);

  lane_ready(0, 1);
  lane_ready(1, 1);
  const Sent setup = take("worker/0", &wire::Header::has_worker_setup);
  EXPECT_EQ(setup.header.worker_setup().lane_endpoints(1), "at lane/1");
  EXPECT_EQ(setup.header.worker_setup().incarnation(), 20u);
}

TEST_F(SchedulerTest, AsksAgainUntilAnswered) {
  start(1, 1, 1);
  hello("lane/0", 10);
  EXPECT_EQ(count("lane/0", &wire::Header::has_lane_setup), 1);
  advance(options_.retry);
  EXPECT_EQ(count("lane/0", &wire::Header::has_lane_setup), 2);
}

TEST_F(SchedulerTest, FencesEveryLaneAndLeasesFromTheSmallestNext) {
  start(2, 1, 1);
  hello("lane/0", 10);
  hello("lane/1", 11);
  lane_ready(0, 1);
  lane_ready(1, 1);
  hello("worker/0", 20);
  heartbeat(0, 20, 1);
  fenced(0, 0, 7);
  EXPECT_EQ(count("worker/0", &wire::Header::has_lease), 0);
  fenced(1, 0, 6);
  const wire::Lease lease = take("worker/0", &wire::Header::has_lease).header.lease();
  EXPECT_EQ(lease.next(), 6u);
  EXPECT_GT(lease.epoch(),
            take("lane/0", &wire::Header::has_lane_setup).header.lane_setup().first_epoch());
}

TEST_F(SchedulerTest, EachStreamGoesToTheWorkerOfItsNumber) {
  start(1, 3, 3);
  hello("lane/0", 10);
  lane_ready(0, 1);
  for (std::uint32_t w = 0; w < 3; ++w) hello(net::worker_name(w), 20 + w);
  for (std::uint32_t w = 0; w < 3; ++w) heartbeat(w, 20 + w, 1);
  for (std::uint32_t stream : {2, 0, 1}) fenced(0, stream, 0);
  for (std::uint32_t w = 0; w < 3; ++w) {
    EXPECT_EQ(take(net::worker_name(w), &wire::Header::has_lease).header.lease().stream(), w);
  }
}

TEST_F(SchedulerTest, ASilentWorkerLosesItsStreamToAnother) {
  start(1, 2, 2);
  hello("lane/0", 10);
  lane_ready(0, 1);
  hello("worker/0", 20);
  hello("worker/1", 21);
  heartbeat(0, 20, 1);
  heartbeat(1, 21, 1);
  fenced(0, 0, 0);
  fenced(0, 1, 0);
  const std::uint64_t epoch = take("worker/1", &wire::Header::has_lease).header.lease().epoch();
  for (int i = 0; i < 12; ++i) {
    heartbeat(0, 20, 2 + i, {{0, epoch - 1, 3, 2}});
    advance(options_.heartbeat);
  }
  fenced(0, 1, 4);
  const wire::Lease lease = take("worker/0", &wire::Header::has_lease).header.lease();
  EXPECT_EQ(lease.stream(), 1u);
  EXPECT_EQ(lease.next(), 4u);
  EXPECT_GT(lease.epoch(), epoch);
  EXPECT_EQ(scheduler_->progress().lost_workers, 1u);
  EXPECT_GE(scheduler_->progress().detection_s, seconds(options_.lease));
}

TEST_F(SchedulerTest, AReportedDeathIsActedUponAtOnce) {
  const std::uint64_t epoch = start_one();
  heartbeat(0, 20, 2, {{0, epoch, 1, 0}});
  scheduler_->peer_died(now_, "worker/0");
  EXPECT_GT(take("lane/0", &wire::Header::has_fence).header.fence().epoch(), epoch);
  // A late word of the dead does not bring it back.
  heartbeat(0, 20, 3, {{0, epoch, 1, 0}});
  fenced(0, 0, 0);
  transport_.sent.clear();
  advance(options_.retry);
  EXPECT_EQ(count("worker/0", &wire::Header::has_lease), 0);
  hello("worker/0", 22);
  heartbeat(0, 22, 1);
  EXPECT_EQ(take("worker/0", &wire::Header::has_lease).header.lease().next(), 0u);
}

TEST_F(SchedulerTest, MetricsOfAHeartbeatCountOnce) {
  const std::uint64_t epoch = start_one();
  heartbeat(0, 20, 2, {{0, epoch, 1, 0}}, 100);
  heartbeat(0, 20, 2, {{0, epoch, 1, 0}}, 100);
  heartbeat(0, 20, 3, {{0, epoch, 1, 0}}, 10);
  EXPECT_EQ(scheduler_->training().samples, 110u);
}

TEST_F(SchedulerTest, ALateWordOfAnEarlierIncarnationIsNoRestart) {
  const std::uint64_t epoch = start_one();
  heartbeat(0, 20, 2, {{0, epoch, 1, 0}});
  hello("worker/0", 21);
  heartbeat(0, 21, 1);
  fenced(0, 0, 0);
  const std::uint64_t second = take("worker/0", &wire::Header::has_lease).header.lease().epoch();
  EXPECT_GT(second, epoch);
  transport_.sent.clear();
  hello("worker/0", 20);
  EXPECT_EQ(count("lane/0", &wire::Header::has_fence), 0);
}

TEST_F(SchedulerTest, EndsWithACutEvaluationAndStop) {
  const std::uint64_t epoch = start_one();
  heartbeat(0, 20, 2, {{0, epoch, 9, 9, true}}, 900);
  const wire::Save save = expect_save(0);
  EXPECT_EQ(save.dir(), "ckpt/gen-000001");
  saved(0, save, {9}, true);
  EXPECT_EQ(scheduler_->generation_dir(), "ckpt/gen-000001");
  EXPECT_EQ(scheduler_->manifest().streams(0).next(), 9u);
  EXPECT_EQ(scheduler_->manifest().tables(0).optimizer(), "adam");
  EXPECT_EQ(scheduler_->manifest().tables(0).state_width(), 4u);
  EXPECT_EQ(scheduler_->manifest().tables(0).step(), 12u);
  EXPECT_TRUE(storage_->exists("ckpt/gen-000001/metrics"));

  const wire::Evaluate evaluate = take("worker/0", &wire::Header::has_evaluate).header.evaluate();
  EXPECT_EQ(evaluate.slices(), 1u);
  wire::Header header;
  header.mutable_evaluated()->set_slices(1);
  header.mutable_evaluated()->set_setup(1);
  Accumulator scores;
  scores.samples = 40;
  say("worker/0", header, {scores.encode()});
  EXPECT_EQ(scheduler_->held_out().samples, 40u);

  wire::Header stopped;
  stopped.mutable_stopped();
  take("worker/0", &wire::Header::has_stop);
  say("worker/0", stopped);
  EXPECT_FALSE(scheduler_->finished());
  say("lane/0", stopped);
  EXPECT_TRUE(scheduler_->finished());
  EXPECT_TRUE(scheduler_->status().ok()) << scheduler_->status().message();
}

TEST_F(SchedulerTest, StopsWithoutTheAnswersOfTheDeaf) {
  options_.checkpoint_dir = "";
  options_.evaluate = false;
  const std::uint64_t epoch = start_one();
  heartbeat(0, 20, 2, {{0, epoch, 9, 9, true}});
  take("lane/0", &wire::Header::has_stop);
  for (int i = 0; i < 10 && !scheduler_->finished(); ++i) advance(options_.retry);
  EXPECT_TRUE(scheduler_->finished());
  EXPECT_TRUE(scheduler_->status().ok());
}

TEST_F(SchedulerTest, ACutRunsAllStreamsToTheFurthestStarted) {
  options_.checkpoint_every_s = 1;
  start(1, 2, 2);
  hello("lane/0", 10);
  lane_ready(0, 1);
  hello("worker/0", 20);
  hello("worker/1", 21);
  heartbeat(0, 20, 1);
  heartbeat(1, 21, 1);
  fenced(0, 0, 0);
  fenced(0, 1, 0);
  const std::uint64_t e0 = take("worker/0", &wire::Header::has_lease).header.lease().epoch();
  const std::uint64_t e1 = take("worker/1", &wire::Header::has_lease).header.lease().epoch();
  heartbeat(0, 20, 2, {{0, e0, 5, 4}});
  heartbeat(1, 21, 2, {{1, e1, 6, 5}});
  advance(std::chrono::milliseconds(1100));
  take("worker/1", &wire::Header::has_pause);
  for (std::uint32_t w : {0u, 1u}) {
    wire::Header header;
    header.mutable_paused()->set_cut(1);
    add({w, w == 0 ? e0 : e1, 5 + w, 4 + w}, *header.mutable_paused()->add_streams());
    say(net::worker_name(w), header);
  }
  const wire::RunTo run_to = take("worker/0", &wire::Header::has_run_to).header.run_to();
  EXPECT_EQ(run_to.bounds(0).until(), 6u);
  EXPECT_EQ(count("lane/0", &wire::Header::has_save), 0);
  for (std::uint32_t w : {0u, 1u}) {
    wire::Header header;
    header.mutable_drained()->set_cut(1);
    add({w, w == 0 ? e0 : e1, 6, 6}, *header.mutable_drained()->add_streams());
    say(net::worker_name(w), header);
  }
  EXPECT_EQ(count("worker/0", &wire::Header::has_resume), 0);
  saved(0, expect_save(0), {6, 6}, false);
  EXPECT_EQ(take("worker/0", &wire::Header::has_resume).header.resume().cut(), 1u);
  EXPECT_EQ(scheduler_->progress().generation, 1u);
}

// Writing the manifest to a slow store takes longer than the interval.
TEST_F(SchedulerTest, TheIntervalOfCheckpointsBeginsWhenTheLastIsWritten) {
  options_.checkpoint_every_s = 1;
  const std::uint64_t epoch = start_one();
  heartbeat(0, 20, 2, {{0, epoch, 2, 1}});
  advance(std::chrono::milliseconds(1100));
  wire::Header paused, drained;
  paused.mutable_paused()->set_cut(1);
  add({0, epoch, 2, 1}, *paused.mutable_paused()->add_streams());
  say("worker/0", paused);
  drained.mutable_drained()->set_cut(1);
  add({0, epoch, 2, 2}, *drained.mutable_drained()->add_streams());
  say("worker/0", drained);
  saved(0, expect_save(0), {2}, false);
  ASSERT_EQ(scheduler_->progress().generation, 1u);
  const int pauses = count("worker/0", &wire::Header::has_pause);
  advance(std::chrono::seconds(2));  // the first round after the writing
  EXPECT_EQ(count("worker/0", &wire::Header::has_pause), pauses);
  advance(std::chrono::milliseconds(900));
  EXPECT_EQ(count("worker/0", &wire::Header::has_pause), pauses);
  advance(std::chrono::milliseconds(200));
  EXPECT_EQ(take("worker/0", &wire::Header::has_pause).header.pause().cut(), 2u);
}

TEST_F(SchedulerTest, OnInterruptCutsThenStops) {
  const std::uint64_t epoch = start_one();
  heartbeat(0, 20, 2, {{0, epoch, 2, 1}});
  scheduler_->request_stop(now_);
  take("worker/0", &wire::Header::has_pause);
  wire::Header paused;
  paused.mutable_paused()->set_cut(1);
  add({0, epoch, 2, 1}, *paused.mutable_paused()->add_streams());
  say("worker/0", paused);
  wire::Header drained;
  drained.mutable_drained()->set_cut(1);
  add({0, epoch, 2, 2}, *drained.mutable_drained()->add_streams());
  say("worker/0", drained);
  saved(0, expect_save(0), {2}, false);
  take("worker/0", &wire::Header::has_stop);
  EXPECT_EQ(scheduler_->status().code(), Code::kInterrupted);
  EXPECT_THAT(scheduler_->status().message(), HasSubstr("ckpt/gen-000001"));
}

TEST_F(SchedulerTest, ARestartedLaneRollsEverybodyBack) {
  const std::uint64_t epoch = start_one();
  heartbeat(0, 20, 2, {{0, epoch, 5, 4}}, 400);
  hello("lane/0", 11);
  const wire::LaneSetup again = take("lane/0", &wire::Header::has_lane_setup).header.lane_setup();
  EXPECT_EQ(again.setup(), 2u);
  EXPECT_EQ(again.incarnation(), 11u);
  EXPECT_GT(again.first_epoch(), epoch);
  EXPECT_EQ(scheduler_->training().samples, 0u);
  lane_ready(0, 1);  // late: of the set-up before
  transport_.sent.clear();
  lane_ready(0, 2);
  EXPECT_EQ(take("worker/0", &wire::Header::has_worker_setup).header.worker_setup().setup(), 2u);
  heartbeat(0, 20, 3, {{0, epoch, 5, 5}}, 100);  // not yet set up: does not count
  EXPECT_EQ(scheduler_->training().samples, 0u);
  EXPECT_EQ(count("worker/0", &wire::Header::has_lease), 0);
  heartbeat(0, 20, 4, {}, 0, 2);
  fenced(0, 0, 0);
  const wire::Lease lease = take("worker/0", &wire::Header::has_lease).header.lease();
  EXPECT_GT(lease.epoch(), again.first_epoch());
  EXPECT_EQ(lease.setup(), 2u);
}

TEST_F(SchedulerTest, ALaneThatNeverStaysEndsTheRun) {
  start_one();
  for (std::uint64_t i = 0; i < 20; ++i) hello("lane/0", 100 + i);
  EXPECT_EQ(scheduler_->status().code(), Code::kFailed);
  EXPECT_THAT(scheduler_->status().message(), HasSubstr("without a checkpoint in between"));
}

TEST_F(SchedulerTest, SaysWhoIsMissing) {
  start(1, 4, 4);
  hello("lane/0", 10);
  lane_ready(0, 1);
  hello("worker/0", 20);
  hello("worker/2", 22);
  for (int i = 0; i < 200 && scheduler_->status().ok(); ++i) {
    hello("worker/0", 20);
    hello("worker/2", 22);
    lane_ready(0, 1);
    advance(options_.heartbeat);
  }
  EXPECT_EQ(scheduler_->status().code(), Code::kUnavailable);
  EXPECT_EQ(scheduler_->status().message(),
            "waited 60 s for 2 of 4 workers (worker/1, worker/3): start them, or lower "
            "cluster.workers");
}

TEST_F(SchedulerTest, ALaneThatStaysSilentEndsTheRun) {
  const std::uint64_t epoch = start_one();
  for (int i = 0; i < 200 && scheduler_->status().ok(); ++i) {
    heartbeat(0, 20, 2 + i, {{0, epoch, 1, 0}});
    advance(options_.heartbeat);
  }
  EXPECT_EQ(scheduler_->status().code(), Code::kUnavailable);
  EXPECT_THAT(scheduler_->status().message(), HasSubstr("lane/0"));
}

TEST_F(SchedulerTest, AFailureOfAPeerEndsTheRunWithItsWords) {
  start_one();
  wire::Header header;
  header.mutable_failure()->set_code(static_cast<std::uint32_t>(Code::kCorrupt));
  header.mutable_failure()->set_message("log shard 3: bad crc");
  say("worker/0", header);
  EXPECT_EQ(scheduler_->status().code(), Code::kCorrupt);
  EXPECT_EQ(scheduler_->status().message(), "worker/0: log shard 3: bad crc");
  take("lane/0", &wire::Header::has_stop);
}

TEST_F(SchedulerTest, DropsTheWordsOfAnotherRun) {
  start(1, 1, 1);
  wire::Header header;
  header.mutable_hello()->set_incarnation(10);
  header.set_cluster(kCluster + 1);
  scheduler_->on_message(now_, {"lane/0", header, {}});
  EXPECT_EQ(count("lane/0", &wire::Header::has_lane_setup), 0);
}

// A checkpoint of one stream that has not ended, at seq 9.
class ResumeTest : public SchedulerTest {
 protected:
  void write_generation(bool ended) {
    const std::uint64_t epoch = start_one();
    heartbeat(0, 20, 2, {{0, epoch, 9, 9, ended}}, 900);
    if (!ended) {
      scheduler_->request_stop(now_);
      wire::Header paused, drained;
      paused.mutable_paused()->set_cut(1);
      add({0, epoch, 9, 9}, *paused.mutable_paused()->add_streams());
      say("worker/0", paused);
      drained.mutable_drained()->set_cut(1);
      add({0, epoch, 9, 9}, *drained.mutable_drained()->add_streams());
      say("worker/0", drained);
    }
    saved(0, expect_save(0), {9}, ended);
    transport_.sent.clear();
    options_.restore = "ckpt";
  }
};

TEST_F(ResumeTest, GoesOnFromTheNewestGeneration) {
  write_generation(false);
  start_one();
  const wire::LaneSetup setup = take("lane/0", &wire::Header::has_lane_setup).header.lane_setup();
  EXPECT_EQ(setup.restore_dir(), "ckpt/gen-000001");
  EXPECT_TRUE(setup.restore_positions());
  EXPECT_EQ(scheduler_->training().samples, 900u) << "the metrics cover the whole run";
  heartbeat(0, 20, 2,
            {{0, take("worker/0", &wire::Header::has_lease).header.lease().epoch(), 12, 12, true}});
  EXPECT_EQ(expect_save(0).generation(), 2u);
}

TEST_F(ResumeTest, AFinishedRunIsOnlyEvaluated) {
  write_generation(true);
  const std::string digest = scheduler_->manifest().digest();
  start(1, 1, 1);
  hello("lane/0", 10);
  lane_ready(0, 1);
  hello("worker/0", 20);
  heartbeat(0, 20, 1);
  fenced(0, 0, 9, true);
  take("worker/0", &wire::Header::has_evaluate);
  EXPECT_EQ(count("worker/0", &wire::Header::has_lease), 0);
  EXPECT_EQ(count("lane/0", &wire::Header::has_save), 0);
  EXPECT_EQ(scheduler_->manifest().digest(), digest);
}

TEST_F(ResumeTest, RefusesAnotherModel) {
  write_generation(false);
  options_.model = "dien/18";
  start();
  EXPECT_TRUE(scheduler_->finished());
  EXPECT_EQ(scheduler_->status().code(), Code::kInvalid);
  EXPECT_THAT(scheduler_->status().message(),
              HasSubstr("is of model counting/2, the job's is dien/18"));
}

TEST_F(ResumeTest, RefusesAnotherNumberOfStreams) {
  write_generation(false);
  options_.streams = options_.workers = 2;
  start();
  EXPECT_EQ(scheduler_->status().code(), Code::kInvalid);
  EXPECT_THAT(scheduler_->status().message(), HasSubstr("set cluster.workers to 1"));
}

TEST_F(ResumeTest, StartsStreamsAnewWhenOnlyRowsAreWanted) {
  write_generation(true);
  options_.restore_positions = false;
  options_.streams = options_.workers = 1;
  start_one();
  EXPECT_FALSE(
      take("lane/0", &wire::Header::has_lane_setup).header.lane_setup().restore_positions());
  EXPECT_EQ(scheduler_->training().samples, 0u);
}

TEST_F(ResumeTest, SaysThatThereIsNothingToResume) {
  options_.restore = "nowhere";
  start(1, 1, 1);
  EXPECT_TRUE(scheduler_->finished());
  EXPECT_EQ(scheduler_->status().code(), Code::kNotFound);
  EXPECT_THAT(scheduler_->status().message(), HasSubstr("nowhere"));
}

}  // namespace
}  // namespace meander::scheduler
