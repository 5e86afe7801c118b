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
  void flipped(std::uint32_t lane, const wire::Save& save) {
    wire::Header header;
    header.mutable_flipped()->set_generation(save.generation());
    header.mutable_flipped()->set_setup(save.setup());
    say(net::lane_name(lane), header);
  }
  void save_failed(std::uint32_t lane, const wire::Save& save) {
    wire::Header header;
    header.mutable_saved()->set_generation(save.generation());
    header.mutable_saved()->set_error(static_cast<std::uint32_t>(Code::kExhausted));
    header.mutable_saved()->set_message("disk full");
    say(net::lane_name(lane), header);
  }
  // A cut of the one stream at `seq`, up to the order to save.
  wire::Save cut_at(std::uint64_t cut, std::uint64_t epoch, std::uint64_t seq) {
    wire::Header paused;
    paused.mutable_paused()->set_cut(cut);
    add({0, epoch, seq, seq}, *paused.mutable_paused()->add_streams());
    say("worker/0", paused);
    wire::Header drained;
    drained.mutable_drained()->set_cut(cut);
    add({0, epoch, seq, seq}, *drained.mutable_drained()->add_streams());
    say("worker/0", drained);
    return expect_save(0);
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
  flipped(0, expect_save(0));
  EXPECT_EQ(take("worker/0", &wire::Header::has_resume).header.resume().cut(), 1u)
      << "training goes on while the lanes write";
  EXPECT_EQ(scheduler_->progress().generation, 0u);
  saved(0, expect_save(0), {6, 6}, false);
  EXPECT_EQ(scheduler_->progress().generation, 1u);
}

TEST_F(SchedulerTest, GenerationsBetweenFullOnesAreDeltas) {
  options_.checkpoint_every_s = 1;
  options_.full_every = 3;
  const std::uint64_t epoch = start_one();
  std::vector<bool> is_delta;
  for (std::uint64_t cut = 1; cut <= 5; ++cut) {
    advance(std::chrono::milliseconds(600));
    heartbeat(0, 20, 2 * cut, {{0, epoch, cut, cut}}, 10);
    advance(std::chrono::milliseconds(1100));
    const wire::Save save = cut_at(cut, epoch, cut);
    is_delta.push_back(save.base_steps_size() != 0);
    EXPECT_EQ(save.base_steps_size() == 0 ? 12u : save.base_steps(0), 12u);
    flipped(0, save);
    // A batch that is not in the generation.
    heartbeat(0, 20, 2 * cut + 1, {{0, epoch, cut + 1, cut + 1}}, 10);
    saved(0, save, {cut}, false);
    EXPECT_EQ(scheduler_->manifest().base(), is_delta.back() ? cut - 1 : 0);
    EXPECT_EQ(scheduler_->manifest().digest().empty(), is_delta.back());
  }
  EXPECT_EQ(is_delta, (std::vector<bool>{false, true, true, false, true}));
  const Buffer bytes = storage_->read("ckpt/gen-000005/metrics").value();
  EXPECT_EQ(Accumulator::decode(bytes).value().samples, 90u) << "up to the cut";
  heartbeat(0, 20, 20, {{0, epoch, 9, 9, true}}, 10);
  EXPECT_EQ(expect_save(0).base_steps_size(), 0) << "the last one is full";
}

TEST_F(SchedulerTest, FailedSaveIsTriedAgainAndNothingOfItStays) {
  options_.checkpoint_every_s = 1;
  const std::uint64_t epoch = start_one();
  for (std::uint64_t cut = 1; cut <= 3; ++cut) {
    EXPECT_FALSE(scheduler_->finished());
    advance(std::chrono::milliseconds(1100));
    heartbeat(0, 20, cut + 1, {{0, epoch, cut, cut}}, 10);
    const wire::Save save = cut_at(cut, epoch, cut);
    EXPECT_EQ(save.generation(), cut);
    if (cut != 2) flipped(0, save);
    save_failed(0, save);
    EXPECT_FALSE(storage_->exists(save.dir()));
    if (cut == 3) break;
    EXPECT_EQ(take("worker/0", &wire::Header::has_resume).header.resume().cut(), cut);
  }
  take("worker/0", &wire::Header::has_stop);
  EXPECT_EQ(scheduler_->status().code(), Code::kExhausted);
  EXPECT_THAT(scheduler_->status().message(), HasSubstr("checkpoint: lane/0: disk full"));
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

// Nothing more can be made durable once it is full.
class FullDisk final : public Storage {
 public:
  struct File final : WritableFile {
    File(const FullDisk& d, std::unique_ptr<WritableFile> f) : disk(d), file(std::move(f)) {}
    Status append(const void* bytes, std::size_t size) override {
      return file->append(bytes, size);
    }
    Status sync() override { return disk.is_full ? exhausted() : file->sync(); }
    Status close() override { return disk.is_full ? exhausted() : file->close(); }
    static Status exhausted() { return {Code::kExhausted, "disk full"}; }
    const FullDisk& disk;
    std::unique_ptr<WritableFile> file;
  };
  Result<Buffer> read(const std::string& p) override { return memory_->read(p); }
  Result<std::unique_ptr<WritableFile>> create(const std::string& p) override {
    ASSIGN_OR_RETURN(auto file, memory_->create(p));
    return std::unique_ptr<WritableFile>(std::make_unique<File>(*this, std::move(file)));
  }
  Status rename(const std::string& a, const std::string& b) override {
    return memory_->rename(a, b);
  }
  Status remove(const std::string& p) override { return memory_->remove(p); }
  Status make_directories(const std::string& p) override { return memory_->make_directories(p); }
  Result<std::vector<std::string>> list(const std::string& p) override { return memory_->list(p); }
  bool exists(const std::string& p) override { return memory_->exists(p); }
  bool is_full = false;

 private:
  std::unique_ptr<Storage> memory_ = make_memory_storage();
};

// The process is killed and started again; lanes and workers live on.
class RestartTest : public SchedulerTest {
 protected:
  void SetUp() override {
    SchedulerTest::SetUp();
    options_.journal = true;
    options_.nonce = 1;
  }
  void restart() {
    scheduler_.reset();
    transport_.sent.clear();
    ++options_.nonce;
    ++options_.cluster;  // drawn anew, and not used
    start();
  }
  // The lane's answer to the question who is there.
  void lane_is_there(std::uint32_t lane, std::uint64_t incarnation, std::uint64_t setup) {
    const Sent asked = take(net::lane_name(lane), &wire::Header::has_lane_setup);
    EXPECT_EQ(asked.header.cluster(), kCluster);
    EXPECT_EQ(asked.header.lane_setup().incarnation(), 0u);
    wire::Header header;
    header.mutable_hello()->set_incarnation(incarnation);
    header.mutable_hello()->set_endpoint("at " + net::lane_name(lane));
    header.mutable_hello()->set_setup(setup);
    say(net::lane_name(lane), header);
  }
  // The lane says that it knows of `epoch` for stream 0.
  void knows_epoch(std::uint64_t epoch, std::uint64_t next) {
    wire::Header header;
    header.mutable_fenced()->set_epoch(epoch);
    header.mutable_fenced()->set_next(next);
    say("lane/0", header);
  }
  // Up to where the stream is held again under `epoch`.
  void come_back(std::uint64_t epoch, std::uint64_t number, std::uint64_t seq,
                 std::uint64_t paused = 0) {
    restart();
    lane_is_there(0, 10, 1);
    heartbeat(0, 20, number, {{0, epoch, seq, seq}}, 0, 1, paused);
    EXPECT_EQ(take("lane/0", &wire::Header::has_fence).header.fence().epoch(), epoch)
        << "asked about, not taken away";
    knows_epoch(epoch, seq);
    heartbeat(0, 20, number + 1, {{0, epoch, seq, seq}}, 0, 1, paused);
    EXPECT_EQ(count("worker/0", &wire::Header::has_lease), 0);
    EXPECT_EQ(scheduler_->progress().rollbacks, 0u);
    EXPECT_EQ(scheduler_->progress().phase, Progress::kTraining);
  }
  void finish(std::uint64_t epoch, std::uint64_t number) {
    heartbeat(0, 20, number, {{0, epoch, 9, 9, true}}, 10);
    saved(0, expect_save(0), {9}, true);
    take("worker/0", &wire::Header::has_evaluate);
  }
};

TEST_F(RestartTest, WhileJoiningSetsUpWhoIsNotYet) {
  start(2, 1, 1);
  hello("lane/0", 10);
  hello("lane/1", 11);
  lane_ready(0, 1);
  restart();
  lane_is_there(0, 10, 1);
  lane_is_there(1, 11, 0);
  EXPECT_EQ(take("lane/1", &wire::Header::has_lane_setup).header.lane_setup().setup(), 1u);
  lane_ready(1, 1);
  EXPECT_EQ(scheduler_->progress().rollbacks, 0u);
  EXPECT_EQ(scheduler_->progress().lanes_ready, 2u);
  hello("worker/0", 20);
  take("worker/0", &wire::Header::has_worker_setup);
}

TEST_F(RestartTest, WhileTrainingTakesLanesAndLeasesAsTheyAre) {
  const std::uint64_t epoch = start_one();
  heartbeat(0, 20, 2, {{0, epoch, 3, 3}}, 30);
  advance(std::chrono::milliseconds(5));
  come_back(epoch, 3, 4);
  EXPECT_EQ(scheduler_->training().samples, 30u);
  EXPECT_TRUE(scheduler_->progress().is_successor);
  EXPECT_GE(scheduler_->progress().predecessors_s, 0);
  EXPECT_EQ(count("worker/0", &wire::Header::has_worker_setup), 0);
  finish(epoch, 5);
  EXPECT_EQ(scheduler_->training().samples, 40u);
}

TEST_F(RestartTest, MetricsCountOnceAcrossDeaths) {
  const std::uint64_t epoch = start_one();
  heartbeat(0, 20, 2, {{0, epoch, 3, 3}}, 30);
  transport_.sent.clear();
  heartbeat(0, 20, 3, {{0, epoch, 4, 4}}, 5);
  EXPECT_EQ(count("worker/0", &wire::Header::has_heartbeat_ack), 0) << "not durable yet";
  advance(std::chrono::milliseconds(5));
  EXPECT_EQ(take("worker/0", &wire::Header::has_heartbeat_ack).header.heartbeat_ack().number(), 3u);
  heartbeat(0, 20, 4, {{0, epoch, 5, 5}}, 700);  // dies before that is durable, or acknowledged
  restart();
  EXPECT_EQ(scheduler_->training().samples, 35u);
  heartbeat(0, 20, 3, {{0, epoch, 4, 4}}, 5);
  EXPECT_EQ(scheduler_->training().samples, 35u);
  heartbeat(0, 20, 4, {{0, epoch, 5, 5}}, 700);
  EXPECT_EQ(scheduler_->training().samples, 735u);
}

TEST_F(RestartTest, AStreamThatNobodyHoldsIsLeasedAnew) {
  const std::uint64_t epoch = start_one();
  heartbeat(0, 20, 2, {{0, epoch, 3, 3}});
  restart();
  lane_is_there(0, 10, 1);
  hello("worker/0", 21);  // restarted as well
  heartbeat(0, 21, 1);
  const std::uint64_t fresh = take("lane/0", &wire::Header::has_fence).header.fence().epoch();
  EXPECT_GT(fresh, epoch);
  fenced(0, 0, 3);
  EXPECT_EQ(take("worker/0", &wire::Header::has_lease).header.lease().next(), 3u);
}

TEST_F(RestartTest, ALeaseThatWasBeingTakenAwayIsNotLeftToItsHolder) {
  const std::uint64_t epoch = start_one();
  heartbeat(0, 20, 2, {{0, epoch, 3, 3}});
  restart();
  lane_is_there(0, 10, 1);
  heartbeat(0, 20, 3, {{0, epoch, 4, 4}});
  knows_epoch(epoch + 1, 4);
  const std::uint64_t fresh = take("lane/0", &wire::Header::has_fence).header.fence().epoch();
  EXPECT_GT(fresh, epoch + 1);
}

TEST_F(RestartTest, AWorkerThatIsGoneIsNotWaitedForLongerThanALease) {
  options_.workers = options_.streams = 2;
  start(1, 2, 2);
  hello("lane/0", 10);
  lane_ready(0, 1);
  for (std::uint32_t w : {0u, 1u}) hello(net::worker_name(w), 20 + w);
  for (std::uint32_t w : {0u, 1u}) heartbeat(w, 20 + w, 1);
  restart();
  lane_is_there(0, 10, 1);
  for (int i = 0; i < 12; ++i) {
    heartbeat(0, 20, 2 + i);
    advance(options_.heartbeat);
  }
  take("lane/0", &wire::Header::has_fence);
  fenced(0, 1, 0);
  EXPECT_EQ(take("worker/0", &wire::Header::has_lease).header.lease().stream(), 1u);
}

TEST_F(RestartTest, AfterALaneHasDiedTooRollsBack) {
  const std::uint64_t epoch = start_one();
  heartbeat(0, 20, 2, {{0, epoch, 3, 3}}, 30);
  restart();
  hello("lane/0", 11);
  EXPECT_EQ(scheduler_->progress().rollbacks, 1u);
  EXPECT_EQ(scheduler_->training().samples, 0u);
  const wire::LaneSetup again = take("lane/0", &wire::Header::has_lane_setup).header.lane_setup();
  EXPECT_EQ(again.setup(), 2u);
  EXPECT_GT(again.first_epoch(), epoch);
  restart();  // while the cluster rolls back
  EXPECT_EQ(scheduler_->progress().rollbacks, 1u);
  lane_is_there(0, 11, 0);
  lane_ready(0, 2);
  EXPECT_EQ(scheduler_->progress().rollbacks, 1u);
  heartbeat(0, 20, 4, {{0, epoch, 5, 5}}, 100);
  EXPECT_EQ(scheduler_->training().samples, 0u);
  EXPECT_EQ(take("worker/0", &wire::Header::has_worker_setup).header.worker_setup().setup(), 2u);
}

TEST_F(RestartTest, WhilePausingOrDrainingLetsWorkersGoOn) {
  options_.checkpoint_every_s = 1;
  const std::uint64_t epoch = start_one();
  for (const bool is_draining : {false, true}) {
    advance(std::chrono::milliseconds(600));
    heartbeat(0, 20, is_draining ? 12 : 2, {{0, epoch, 2, 2}});
    advance(std::chrono::milliseconds(600));
    const std::uint64_t cut = take("worker/0", &wire::Header::has_pause).header.pause().cut();
    if (is_draining) {
      wire::Header paused;
      paused.mutable_paused()->set_cut(cut);
      add({0, epoch, 2, 2}, *paused.mutable_paused()->add_streams());
      say("worker/0", paused);
      take("worker/0", &wire::Header::has_run_to);
    }
    come_back(epoch, is_draining ? 13 : 3, 2, cut);
    EXPECT_EQ(take("worker/0", &wire::Header::has_resume).header.resume().cut(), cut);
    advance(std::chrono::milliseconds(600));
    heartbeat(0, 20, is_draining ? 15 : 5, {{0, epoch, 2, 2}});
    advance(std::chrono::milliseconds(600));
    EXPECT_GT(take("worker/0", &wire::Header::has_pause).header.pause().cut(), cut);
    heartbeat(0, 20, is_draining ? 16 : 6, {{0, epoch, 2, 2}});
  }
}

TEST_F(RestartTest, WhileFlippingOrWritingGivesTheGenerationUp) {
  options_.checkpoint_every_s = 1;
  const std::uint64_t epoch = start_one();
  std::uint64_t number = 2;
  for (const bool is_writing : {false, true}) {
    advance(std::chrono::milliseconds(600));
    heartbeat(0, 20, number++, {{0, epoch, 2, 2}}, 10);
    advance(std::chrono::milliseconds(600));
    const std::uint64_t cut = take("worker/0", &wire::Header::has_pause).header.pause().cut();
    const wire::Save save = cut_at(cut, epoch, 2);
    if (is_writing) flipped(0, save);
    ASSERT_TRUE(storage_->exists(save.dir()));
    come_back(epoch, number, 2, is_writing ? 0 : cut);
    number += 2;
    EXPECT_FALSE(storage_->exists(save.dir()));
    transport_.sent.clear();
    saved(0, save, {2}, false);  // late: nobody waits for it
    EXPECT_EQ(scheduler_->progress().generation, 0u);
  }
  heartbeat(0, 20, number++, {{0, epoch, 9, 9, true}}, 1);
  EXPECT_EQ(expect_save(0).generation(), 3u) << "numbers are never used twice";
  EXPECT_EQ(scheduler_->training().samples, 21u);
}

TEST_F(RestartTest, AfterAGenerationGoesBackToItWhenALaneIsLost) {
  options_.checkpoint_every_s = 1;
  const std::uint64_t epoch = start_one();
  advance(std::chrono::milliseconds(600));
  heartbeat(0, 20, 2, {{0, epoch, 2, 2}}, 10);
  advance(std::chrono::milliseconds(600));
  const wire::Save save = cut_at(1, epoch, 2);
  flipped(0, save);
  saved(0, save, {2}, false);
  heartbeat(0, 20, 3, {{0, epoch, 5, 5}}, 7);
  come_back(epoch, 4, 5);
  EXPECT_EQ(scheduler_->training().samples, 10u) << "what was not durable comes again";
  hello("lane/0", 12);
  EXPECT_EQ(scheduler_->training().samples, 10u);
  EXPECT_EQ(take("lane/0", &wire::Header::has_lane_setup).header.lane_setup().restore_dir(),
            "ckpt/gen-000001");
}

TEST_F(RestartTest, WhileEvaluatingScoresAgain) {
  const std::uint64_t epoch = start_one();
  finish(epoch, 2);
  restart();
  lane_is_there(0, 10, 1);
  heartbeat(0, 20, 3, {{0, epoch, 9, 9, true}});
  knows_epoch(epoch, 9);
  heartbeat(0, 20, 4, {{0, epoch, 9, 9, true}});
  take("worker/0", &wire::Header::has_evaluate);
  EXPECT_EQ(count("lane/0", &wire::Header::has_save), 0) << "all is saved";
}

TEST_F(RestartTest, WhileStoppingStopsAndKnowsTheScores) {
  const std::uint64_t epoch = start_one();
  finish(epoch, 2);
  wire::Header header;
  header.mutable_evaluated()->set_slices(1);
  header.mutable_evaluated()->set_setup(1);
  Accumulator scores;
  scores.samples = 40;
  say("worker/0", header, {scores.encode()});
  take("worker/0", &wire::Header::has_stop);
  restart();
  take("worker/0", &wire::Header::has_stop);
  take("lane/0", &wire::Header::has_stop);
  for (int i = 0; i < 10 && !scheduler_->finished(); ++i) advance(options_.retry);
  EXPECT_TRUE(scheduler_->finished());
  EXPECT_TRUE(scheduler_->status().ok()) << scheduler_->status().message();
  EXPECT_EQ(scheduler_->held_out().samples, 40u);
  EXPECT_EQ(scheduler_->training().samples, 10u);
  EXPECT_EQ(scheduler_->generation_dir(), "ckpt/gen-000001");
}

TEST_F(RestartTest, ASleeperThatWasReplacedDoesNoHarm) {
  const std::uint64_t epoch = start_one();
  heartbeat(0, 20, 2, {{0, epoch, 3, 3}}, 30);
  const std::unique_ptr<Scheduler> sleeper = std::move(scheduler_);
  restart();
  transport_.sent.clear();
  wire::Header header;
  header.set_cluster(kCluster);
  header.mutable_hello()->set_incarnation(11);  // it would roll back
  sleeper->on_message(now_, {"lane/0", header, {}});
  EXPECT_TRUE(sleeper->finished());
  EXPECT_EQ(sleeper->status().code(), Code::kUnavailable);
  EXPECT_TRUE(transport_.sent.empty());
  restart();
  EXPECT_EQ(scheduler_->progress().rollbacks, 0u);
}

TEST_F(RestartTest, EndsWhenAPeerKnowsALaterScheduler) {
  start_one();
  wire::Header header;
  header.set_cluster(kCluster);
  header.set_term(2);
  header.mutable_lane_ready()->set_setup(1);
  scheduler_->on_message(now_, {"lane/0", header, {}});
  EXPECT_TRUE(scheduler_->finished());
  EXPECT_EQ(scheduler_->status().code(), Code::kUnavailable);
}

TEST_F(RestartTest, AnotherJobStartsAnew) {
  const std::uint64_t epoch = start_one();
  heartbeat(0, 20, 2, {{0, epoch, 3, 3}}, 30);
  options_.job = "train: {batch: 7}";
  restart();
  EXPECT_EQ(scheduler_->training().samples, 0u);
  EXPECT_EQ(transport_.sent.size(), 0u) << "nobody is looked for";
}

TEST_F(RestartTest, AFullDiskCostsTheJournalAndNotTheRun) {
  auto disk = std::make_unique<FullDisk>();
  FullDisk& full = *disk;
  storage_ = std::move(disk);
  const std::uint64_t epoch = start_one();
  full.is_full = true;
  transport_.sent.clear();
  heartbeat(0, 20, 2, {{0, epoch, 3, 3}}, 30);
  advance(std::chrono::milliseconds(5));
  EXPECT_EQ(take("worker/0", &wire::Header::has_heartbeat_ack).header.heartbeat_ack().number(), 2u);
  EXPECT_FALSE(scheduler_->finished());
  EXPECT_FALSE(storage_->exists(journal_dir("ckpt"))) << "nobody goes on with what is not true";
  full.is_full = false;
  finish(epoch, 3);
}

TEST_F(RestartTest, ARunWithoutAJournalLeavesNoneBehind) {
  start_one();
  EXPECT_TRUE(storage_->exists(journal_dir("ckpt")));
  options_.journal = false;
  restart();
  EXPECT_FALSE(storage_->exists(journal_dir("ckpt")));
}

TEST_F(RestartTest, SaysWhichLaneDoesNotComeBack) {
  const std::uint64_t epoch = start_one();
  heartbeat(0, 20, 2, {{0, epoch, 3, 3}});
  restart();
  for (int i = 0; i < 200 && scheduler_->status().ok(); ++i) {
    heartbeat(0, 20, 3 + i, {{0, epoch, 3, 3}});
    advance(options_.heartbeat);
  }
  EXPECT_EQ(scheduler_->status().code(), Code::kUnavailable);
  EXPECT_THAT(scheduler_->status().message(), HasSubstr("waited 60 s for lane/0"));
}

// One lane, and another that joins.
class ScaleTest : public RestartTest {
 protected:
  wire::Scaled scale(std::uint32_t lanes) {
    wire::Header header;
    header.mutable_scale()->set_lanes(lanes);
    scheduler_->on_message(now_, {"scale/1", header, {}});
    return take("scale/1", &wire::Header::has_scaled).header.scaled();
  }
  void join(std::uint32_t lane, std::uint64_t incarnation) {
    wire::Header header;
    header.mutable_hello()->set_role(wire::LANE);
    header.mutable_hello()->set_index(lane);
    header.mutable_hello()->set_incarnation(incarnation);
    header.mutable_hello()->set_endpoint("at " + net::lane_name(lane));
    say(net::lane_name(lane), header);
  }
  void moved(std::uint32_t lane, std::uint64_t move, wire::MoveStage stage) {
    wire::Header header;
    header.mutable_moved()->set_move(move);
    header.mutable_moved()->set_stage(stage);
    say(net::lane_name(lane), header);
  }
  wire::Move move_of(std::uint32_t lane) {
    return take(net::lane_name(lane), &wire::Header::has_move).header.move();
  }
  void stand_still(std::uint64_t cut, std::uint64_t epoch, std::uint64_t seq) {
    wire::Header paused, drained;
    paused.mutable_paused()->set_cut(cut);
    add({0, epoch, seq, seq}, *paused.mutable_paused()->add_streams());
    say("worker/0", paused);
    drained.mutable_drained()->set_cut(cut);
    add({0, epoch, seq, seq}, *drained.mutable_drained()->add_streams());
    say("worker/0", drained);
  }
  // Training stands still for the change to two lanes; returns the move.
  std::uint64_t up_to_the_rest(std::uint64_t epoch) {
    EXPECT_EQ(scale(2).wanted(), 2u);
    join(1, 11);
    const std::uint64_t move = move_of(0).move();
    EXPECT_EQ(move_of(1).next().setup(), 2u);
    EXPECT_EQ(move_of(1).endpoints(1), "at lane/1");
    moved(1, move, wire::ALL);
    moved(0, move, wire::NEAR);
    const std::uint64_t cut = take("worker/0", &wire::Header::has_pause).header.pause().cut();
    EXPECT_FALSE(move_of(0).finish());
    stand_still(cut, epoch, 5);
    EXPECT_TRUE(move_of(0).finish());
    return move;
  }
};

TEST_F(ScaleTest, OtherLanesTakeOverWhenAllIsThere) {
  const std::uint64_t epoch = start_one();
  heartbeat(0, 20, 2, {{0, epoch, 5, 5}}, 3);
  const std::uint64_t move = up_to_the_rest(epoch);
  moved(1, move, wire::ALL);
  EXPECT_EQ(scheduler_->progress().lanes, 1u);
  moved(0, move, wire::ALL);
  EXPECT_EQ(scheduler_->progress().lanes, 2u);
  for (std::uint32_t lane : {0u, 1u}) {
    const auto setup =
        take(net::lane_name(lane), &wire::Header::has_lane_setup).header.lane_setup();
    EXPECT_EQ(setup.setup(), 2u);
    EXPECT_EQ(setup.move(), move);
    EXPECT_EQ(setup.lanes(), 2u);
    EXPECT_EQ(setup.restore_dir(), "");
    EXPECT_GT(setup.first_epoch(), epoch);
    lane_ready(lane, 2);
  }
  const auto workers = take("worker/0", &wire::Header::has_worker_setup).header.worker_setup();
  EXPECT_EQ(workers.lane_endpoints_size(), 2);
  EXPECT_EQ(workers.counted_from(), 1u) << "what was trained before counts";
  heartbeat(0, 20, 3, {}, 4, 1);  // said before it heard
  heartbeat(0, 20, 4, {}, 5, 2);
  EXPECT_EQ(scheduler_->training().samples, 12u);
  fenced(0, 0, 5);
  fenced(1, 0, 5);
  const auto lease = take("worker/0", &wire::Header::has_lease).header.lease();
  EXPECT_EQ(lease.next(), 5u);
  EXPECT_EQ(lease.setup(), 2u);
  heartbeat(0, 20, 5, {{0, lease.epoch(), 6, 5}}, 0, 2);
  EXPECT_EQ(scale(0).wanted(), 0u);
  EXPECT_EQ(scheduler_->progress().rollbacks, 0u);
  EXPECT_EQ(scheduler_->progress().scalings, 1u);
}

TEST_F(ScaleTest, ALaneThatJoinsAndDiesBeginsAgain) {
  const std::uint64_t epoch = start_one();
  heartbeat(0, 20, 2, {{0, epoch, 5, 5}});
  const std::uint64_t move = up_to_the_rest(epoch);
  join(1, 12);  // another process
  advance(options_.retry);
  EXPECT_GT(move_of(0).move(), move);
  EXPECT_FALSE(move_of(0).finish());
  take("worker/0", &wire::Header::has_resume);
  moved(0, move, wire::ALL);
  moved(1, move, wire::ALL);
  EXPECT_EQ(scheduler_->progress().lanes, 1u) << "of the move before";
  EXPECT_EQ(scheduler_->progress().rollbacks, 0u);
}

TEST_F(ScaleTest, ASuccessorGoesOnWithTheLanesThatTookOver) {
  const std::uint64_t epoch = start_one();
  heartbeat(0, 20, 2, {{0, epoch, 5, 5}});
  const std::uint64_t move = up_to_the_rest(epoch);
  moved(1, move, wire::ALL);
  moved(0, move, wire::ALL);
  restart();
  EXPECT_EQ(scheduler_->progress().lanes, 2u);
  lane_is_there(0, 10, 1);  // it has not heard of it yet
  EXPECT_EQ(take("lane/0", &wire::Header::has_lane_setup).header.lane_setup().move(), move);
  lane_is_there(1, 11, 2);
  lane_ready(0, 2);
  EXPECT_EQ(scheduler_->progress().lanes_ready, 2u);
  EXPECT_EQ(scheduler_->progress().rollbacks, 0u);
  wire::Header forgotten;
  forgotten.mutable_forgotten()->set_setup(2);
  say("lane/1", forgotten);
  EXPECT_EQ(scheduler_->progress().rollbacks, 1u);
  EXPECT_EQ(take("lane/1", &wire::Header::has_lane_setup).header.lane_setup().move(), 0u);
  EXPECT_EQ(scheduler_->progress().lanes, 2u);
}

TEST_F(ScaleTest, ASuccessorKnowsThatLanesAreWanted) {
  const std::uint64_t epoch = start_one();
  heartbeat(0, 20, 2, {{0, epoch, 5, 5}});
  up_to_the_rest(epoch);
  restart();
  EXPECT_EQ(scheduler_->progress().lanes, 1u);
  EXPECT_EQ(scheduler_->progress().lanes_wanted, 2u);
}

TEST_F(ScaleTest, LanesThatNeverComeAreGivenUp) {
  const std::uint64_t epoch = start_one();
  heartbeat(0, 20, 2, {{0, epoch, 5, 5}});
  EXPECT_EQ(scale(3).wanted(), 3u);
  join(1, 11);
  for (int i = 0; i < 70; ++i) {
    advance(std::chrono::seconds(1));
    lane_ready(0, 1);
    heartbeat(0, 20, 3 + i, {{0, epoch, 5, 5}});
  }
  const wire::Scaled scaled = scale(0);
  EXPECT_TRUE(scaled.is_refused());
  EXPECT_EQ(scaled.wanted(), 0u);
  EXPECT_THAT(scaled.message(), HasSubstr("lane/2"));
  take("lane/1", &wire::Header::has_stop);
  EXPECT_TRUE(scheduler_->status().ok());
}

TEST_F(ScaleTest, WhatCannotBeIsRefused) {
  options_.replicas = 1;
  start(1, 1, 1);
  EXPECT_THAT(scale(2).message(), HasSubstr("backups"));
  EXPECT_TRUE(scale(2).is_refused());
  EXPECT_FALSE(scale(0).is_refused());
  EXPECT_TRUE(scale(1u << 20).is_refused());
}

TEST_F(SchedulerTest, ASilentLaneIsNoticed) {
  const std::uint64_t epoch = start_one();
  for (int i = 0; i < 12; ++i) {
    EXPECT_EQ(scheduler_->progress().detection_s > 0, i >= 10) << i;
    heartbeat(0, 20, 2 + i, {{0, epoch, 1, 0}});
    advance(options_.heartbeat);
  }
  EXPECT_GE(scheduler_->progress().detection_s, seconds(options_.lease));
  EXPECT_LE(scheduler_->progress().detection_s, seconds(options_.lease + options_.heartbeat));
  EXPECT_FALSE(scheduler_->finished());
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
