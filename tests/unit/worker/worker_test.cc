// SPDX-License-Identifier: Apache-2.0
#include "worker/worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <set>
#include <vector>

#include "common/metrics.h"
#include "models/model.h"

namespace meander::worker {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::uint64_t kCluster = 77, kIncarnation = 20;

struct Sent {
  std::string peer;
  wire::Header header;
  std::vector<Buffer> frames;
};

class Recorder final : public net::Transport {
 public:
  Status connect(const std::string& peer, const std::string& endpoint) override {
    connected.push_back(peer + " at " + endpoint);
    return {};
  }
  void send(const std::string& peer, const wire::Header& header,
            const std::vector<Buffer>& frames) override {
    sent.push_back({peer, header, frames});
  }
  std::vector<std::string> connected;
  std::vector<Sent> sent;
};

// Batch n has n + 1 samples, all of key 100 + n.
class Numbers final : public BatchSource {
 public:
  explicit Numbers(std::uint64_t batches) : batches_(batches) {}
  std::uint64_t batches() const override { return batches_; }
  Status build(std::uint64_t seq, const PartitionMap&, data::Batch& batch) override {
    if (seq == 7) return corrupt("shard 3: bad crc");
    batch.seq = seq;
    batch.samples = static_cast<std::uint32_t>(seq) + 1;
    batch.progress = static_cast<double>(seq + 1) / static_cast<double>(batches_);
    batch.keys = {{100 + seq}};
    batch.parts.resize(1);
    data::Part& part = batch.parts[0];
    part.groups = static_cast<std::int32_t>(batch.samples);
    part.lengths.assign(batch.samples, 0);
    part.target = {std::vector<std::uint32_t>(batch.samples, 0)};
    part.label.assign(batch.samples, 1.0f);
    return {};
  }

 private:
  const std::uint64_t batches_;
};

nn::Graph counting_graph() {
  models::ModelSpec spec;
  spec.kind = "counting";
  spec.slots = {{.name = "item", .table = 0, .width = 1, .in_history = true}};
  Result<nn::Graph> graph = models::build_model(spec);
  CHECK(graph.ok()) << graph.status().message();
  return std::move(graph).value();
}

// A worker, and this test as scheduler and lane.
class WorkerTest : public testing::Test {
 protected:
  WorkerTest() {
    options_.cluster = kCluster;
    options_.incarnation = kIncarnation;
  }
  void start() {
    const auto open = [this](std::uint32_t) {
      return Result<std::unique_ptr<BatchSource>>(std::make_unique<Numbers>(batches_));
    };
    const auto open_slice = [this](std::uint32_t, std::uint32_t) {
      return Result<std::unique_ptr<BatchSource>>(std::make_unique<Numbers>(slice_batches_));
    };
    worker_ = std::make_unique<Worker>(options_, graph_, open, open_slice, transport_, executor_);
    worker_->on_timer(now_);
  }
  void advance(Duration d) {
    now_ += d;
    if (worker_->next_timer() <= now_) worker_->on_timer(now_);
  }
  void say(const std::string& peer, wire::Header header, std::vector<Buffer> frames = {}) {
    header.set_cluster(kCluster);
    worker_->on_message(now_, {peer, std::move(header), std::move(frames)});
  }
  void set_up(std::uint64_t setup = 1, std::uint64_t incarnation = kIncarnation,
              std::uint64_t counted_from = 0) {
    wire::Header header;
    wire::WorkerSetup& body = *header.mutable_worker_setup();
    body.add_lane_endpoints("somewhere");
    body.set_streams(1);
    body.set_heartbeat_ms(500);
    body.set_setup(setup);
    body.set_incarnation(incarnation);
    body.set_counted_from(counted_from == 0 ? setup : counted_from);
    say(net::kSchedulerName, header);
  }
  void lease(std::uint64_t epoch, std::uint64_t next, std::uint64_t cut = 0,
             std::uint64_t setup = 1) {
    wire::Header header;
    header.mutable_lease()->set_epoch(epoch);
    header.mutable_lease()->set_next(next);
    header.mutable_lease()->set_cut(cut);
    header.mutable_lease()->set_setup(setup);
    say(net::kSchedulerName, header);
  }
  void start_leased(std::uint64_t batches) {
    batches_ = batches;
    start();
    set_up();
    acknowledge();
    lease(5, 0);
    acknowledge();
  }

  template <class Has>
  std::vector<Sent> all(Has has) {
    std::vector<Sent> found;
    for (const Sent& sent : transport_.sent) {
      if ((sent.header.*has)()) found.push_back(sent);
    }
    return found;
  }
  template <class Has>
  Sent last(Has has) {
    const std::vector<Sent> found = all(has);
    EXPECT_FALSE(found.empty()) << "not sent";
    return found.empty() ? Sent{} : found.back();
  }
  wire::Heartbeat heartbeat() { return last(&wire::Header::has_heartbeat).header.heartbeat(); }
  // The sums in the last heartbeat.
  Accumulator metrics() {
    const Sent sent = last(&wire::Header::has_heartbeat);
    if (sent.frames.empty()) return {};
    return Accumulator::decode(sent.frames[0]).value();
  }
  // Acknowledges the heartbeats that were sent.
  void acknowledge() {
    wire::Header header;
    header.mutable_heartbeat_ack()->set_number(heartbeat().number());
    say(net::kSchedulerName, header);
  }
  std::vector<std::uint64_t> pulled_seqs() {
    std::vector<std::uint64_t> seqs;
    for (const Sent& sent : all(&wire::Header::has_pull)) {
      seqs.push_back(sent.header.pull().seq());
    }
    return seqs;
  }
  std::vector<std::uint64_t> pushed_seqs() {
    std::vector<std::uint64_t> seqs;
    for (const Sent& sent : all(&wire::Header::has_push)) {
      seqs.push_back(sent.header.push().seq());
    }
    return seqs;
  }
  // The lane answers the last pull of seq with zeros.
  void answer_pull(std::uint64_t seq) {
    for (const Sent& sent : all(&wire::Header::has_pull)) {
      const wire::Pull& pull = sent.header.pull();
      if (pull.seq() != seq) continue;
      wire::Header header;
      header.set_request(sent.header.request());
      header.mutable_pulled()->set_stream(pull.stream());
      header.mutable_pulled()->set_seq(seq);
      header.mutable_pulled()->set_epoch(pull.epoch());
      std::vector<Buffer> rows;
      for (const Buffer& keys : sent.frames) {
        rows.push_back(Buffer::own(std::vector<float>(keys.size() / sizeof(std::uint64_t))));
      }
      return say("lane/0", header, rows);
    }
    ADD_FAILURE() << "seq " << seq << " was not pulled";
  }
  void answer_push(std::uint64_t seq, wire::PushOutcome outcome = wire::APPLIED,
                   std::uint64_t epoch = 5) {
    for (const Sent& sent : all(&wire::Header::has_push)) {
      if (sent.header.push().seq() != seq) continue;
      wire::Header header;
      header.set_request(sent.header.request());
      header.mutable_pushed()->set_seq(seq);
      header.mutable_pushed()->set_outcome(outcome);
      header.mutable_pushed()->set_epoch(epoch);
      return say("lane/0", header);
    }
    ADD_FAILURE() << "seq " << seq << " was not pushed";
  }
  void train(std::uint64_t seq) {
    answer_pull(seq);
    answer_push(seq);
  }
  void pause(std::uint64_t cut) {
    wire::Header header;
    header.mutable_pause()->set_cut(cut);
    say(net::kSchedulerName, header);
  }
  void run_to(std::uint64_t cut, std::uint64_t until) {
    wire::Header header;
    header.mutable_run_to()->set_cut(cut);
    header.mutable_run_to()->add_bounds()->set_until(until);
    say(net::kSchedulerName, header);
  }
  void resume(std::uint64_t cut) {
    wire::Header header;
    header.mutable_resume()->set_cut(cut);
    say(net::kSchedulerName, header);
  }
  void evaluate(std::uint32_t slice, std::uint32_t slices, std::uint64_t setup = 1) {
    wire::Header header;
    header.mutable_evaluate()->set_slice(slice);
    header.mutable_evaluate()->set_slices(slices);
    header.mutable_evaluate()->set_setup(setup);
    say(net::kSchedulerName, header);
  }

  WorkerOptions options_;
  std::uint64_t batches_ = 3, slice_batches_ = 2;
  const nn::Graph graph_ = counting_graph();
  Recorder transport_;
  InlineExecutor executor_;
  std::unique_ptr<Worker> worker_;
  TimePoint now_{std::chrono::hours(1)};
};

TEST_F(WorkerTest, SaysHelloUntilItIsSetUp) {
  start();
  EXPECT_EQ(all(&wire::Header::has_hello).size(), 1u);
  advance(options_.hello_every);
  EXPECT_EQ(all(&wire::Header::has_hello).size(), 2u);
  EXPECT_EQ(last(&wire::Header::has_hello).header.hello().incarnation(), kIncarnation);
  set_up();
  EXPECT_THAT(transport_.connected, ElementsAre("lane/0 at somewhere"));
  EXPECT_EQ(heartbeat().setup(), 1u);
  advance(options_.hello_every);
  EXPECT_EQ(all(&wire::Header::has_hello).size(), 2u);
}

TEST_F(WorkerTest, IgnoresTheSetUpOfAnotherIncarnation) {
  start();
  set_up(1, kIncarnation + 1);
  EXPECT_THAT(all(&wire::Header::has_heartbeat), IsEmpty());
}

TEST_F(WorkerTest, DropsTheWordsOfAnotherRun) {
  start();
  wire::Header header;
  header.set_cluster(kCluster + 1);
  header.mutable_stop();
  worker_->on_message(now_, {net::kSchedulerName, header, {}});
  EXPECT_FALSE(worker_->finished());
}

TEST_F(WorkerTest, PullsAheadAsFarAsItsDepth) {
  start_leased(6);
  EXPECT_THAT(pulled_seqs(), ElementsAre(0, 1));
  answer_pull(0);
  EXPECT_THAT(pushed_seqs(), ElementsAre(0));
  EXPECT_THAT(pulled_seqs(), ElementsAre(0, 1)) << "0 is not acknowledged yet";
  answer_push(0);
  EXPECT_THAT(pulled_seqs(), ElementsAre(0, 1, 2));
}

TEST_F(WorkerTest, PushesTheGradientsAndMarksTheLastBatch) {
  start_leased(2);
  train(0);
  answer_pull(1);
  const Sent push = last(&wire::Header::has_push);
  EXPECT_EQ(push.header.push().epoch(), 5u);
  EXPECT_TRUE(push.header.push().last());
  ASSERT_EQ(push.frames.size(), 2u);  // the table and the dense vector, which is empty here
  EXPECT_THAT(push.frames[0].as<float>(), ElementsAre(-2.0f));
  EXPECT_TRUE(push.frames[1].empty());
  EXPECT_FALSE(all(&wire::Header::has_push)[0].header.push().last());
}

TEST_F(WorkerTest, ComputesInTheOrderOfTheStream) {
  start_leased(6);
  answer_pull(1);
  EXPECT_THAT(pushed_seqs(), IsEmpty());
  answer_pull(0);
  EXPECT_THAT(pushed_seqs(), ElementsAre(0, 1));
}

TEST_F(WorkerTest, EndsAnEmptyStreamWithAnEmptyPush) {
  start_leased(0);
  answer_pull(0);
  const Sent push = last(&wire::Header::has_push);
  EXPECT_TRUE(push.header.push().last());
  for (const Buffer& frame : push.frames) EXPECT_TRUE(frame.empty());
  answer_push(0);
  acknowledge();
  EXPECT_TRUE(heartbeat().streams(0).ended());
  EXPECT_EQ(metrics().batches, 0u);
}

TEST_F(WorkerTest, EndsAStreamThatIsLeasedBehindItsLastBatch) {
  batches_ = 3;
  start();
  set_up();
  lease(5, 3);
  EXPECT_THAT(pulled_seqs(), ElementsAre(3));
  answer_pull(3);
  EXPECT_TRUE(last(&wire::Header::has_push).header.push().last());
}

TEST_F(WorkerTest, CountsABatchOnceItIsAcknowledged) {
  start_leased(6);
  answer_pull(0);
  advance(std::chrono::milliseconds(500));
  EXPECT_EQ(metrics().samples, 0u);
  acknowledge();
  answer_push(0);
  advance(std::chrono::milliseconds(500));
  EXPECT_EQ(metrics().samples, 1u);
  EXPECT_EQ(metrics().batches, 1u);
}

TEST_F(WorkerTest, RepeatsAHeartbeatUntilItIsAcknowledged) {
  start_leased(6);
  train(0);
  advance(std::chrono::milliseconds(500));
  const std::uint64_t number = heartbeat().number();
  train(1);
  advance(std::chrono::milliseconds(500));
  EXPECT_EQ(heartbeat().number(), number);
  EXPECT_EQ(metrics().samples, 1u) << "the same number says the same";
  EXPECT_EQ(heartbeat().streams(0).acked(), 2u);
  acknowledge();
  advance(std::chrono::milliseconds(500));
  EXPECT_EQ(heartbeat().number(), number + 1);
  EXPECT_EQ(metrics().samples, 2u);
}

TEST_F(WorkerTest, ScoresTheTailOfThePassApart) {
  start_leased(6);
  for (std::uint64_t seq = 0; seq < 6; ++seq) train(seq);
  acknowledge();
  Accumulator sum;
  std::uint64_t counted = 0;
  for (const Sent& sent : all(&wire::Header::has_heartbeat)) {
    const wire::Heartbeat& body = sent.header.heartbeat();
    if (sent.frames.empty() || body.number() <= counted) continue;
    counted = body.number();
    sum.merge(Accumulator::decode(sent.frames[0]).value());
  }
  EXPECT_EQ(sum.head.samples(), 1u + 2 + 3 + 4);
  EXPECT_EQ(sum.tail.samples(), 5u + 6);
  EXPECT_NEAR(sum.tail.log_loss(), std::log(2.0), 1e-6);  // the logits are 0
}

TEST_F(WorkerTest, SaysThatAStreamHasEndedWhenItsMetricsHaveArrived) {
  start_leased(1);
  train(0);
  EXPECT_FALSE(heartbeat().streams(0).ended());
  EXPECT_EQ(metrics().samples, 1u) << "told at once";
  acknowledge();
  EXPECT_TRUE(heartbeat().streams(0).ended());
}

TEST_F(WorkerTest, TakesANewerLeaseAndIgnoresAnOlder) {
  start_leased(6);
  lease(4, 3);
  EXPECT_EQ(heartbeat().streams(0).epoch(), 5u);
  lease(9, 3);
  EXPECT_EQ(heartbeat().streams(0).epoch(), 9u);
  EXPECT_THAT(pulled_seqs(), ElementsAre(0, 1, 3, 4));
  lease(9, 0);  // a repeat
  EXPECT_THAT(pulled_seqs(), ElementsAre(0, 1, 3, 4));
}

TEST_F(WorkerTest, GivesUpAStreamThatIsAnothers) {
  start_leased(6);
  answer_pull(0);
  answer_push(0, wire::STALE_EPOCH, 6);
  acknowledge();
  advance(std::chrono::milliseconds(500));
  EXPECT_EQ(heartbeat().streams_size(), 0);
}

TEST_F(WorkerTest, ANewSetUpForgetsStreamsAndMetrics) {
  start_leased(6);
  train(0);
  set_up(2);
  EXPECT_EQ(heartbeat().setup(), 2u);
  EXPECT_EQ(heartbeat().streams_size(), 0);
  EXPECT_EQ(metrics().samples, 0u);
  lease(6, 0, 0, 1);  // of the old set-up
  EXPECT_EQ(heartbeat().streams_size(), 0);
  lease(7, 0, 0, 2);
  EXPECT_EQ(heartbeat().streams(0).epoch(), 7u);
}

TEST_F(WorkerTest, OtherLanesKeepItsMetricsAndGetItsNextBatches) {
  start_leased(6);
  train(0);
  wire::Header header;
  wire::WorkerSetup& body = *header.mutable_worker_setup();
  body.add_lane_endpoints("here");
  body.add_lane_endpoints("there");
  body.set_streams(1);
  body.set_heartbeat_ms(500);
  body.set_setup(2);
  body.set_incarnation(kIncarnation);
  body.set_counted_from(1);
  say(net::kSchedulerName, header);
  EXPECT_EQ(heartbeat().setup(), 2u);
  EXPECT_EQ(heartbeat().streams_size(), 0);
  EXPECT_EQ(metrics().batches, 1u);
  lease(7, 1, 0, 2);
  std::set<std::string> asked;
  for (const Sent& sent : all(&wire::Header::has_pull)) {
    if (sent.header.pull().epoch() == 7 && sent.header.pull().seq() == 1) asked.insert(sent.peer);
  }
  EXPECT_EQ(asked, std::set<std::string>({"lane/0", "lane/1"}));
}

TEST_F(WorkerTest, ACutPausesDrainsAndGoesOn) {
  start_leased(6);
  answer_pull(0);
  pause(1);
  EXPECT_EQ(last(&wire::Header::has_paused).header.paused().streams(0).started(), 2u);
  answer_push(0);
  EXPECT_THAT(pulled_seqs(), ElementsAre(0, 1)) << "nothing starts";
  run_to(1, 3);
  EXPECT_THAT(pulled_seqs(), ElementsAre(0, 1, 2));
  train(1);
  train(2);
  EXPECT_THAT(pulled_seqs(), ElementsAre(0, 1, 2));
  EXPECT_THAT(all(&wire::Header::has_drained), IsEmpty()) << "its metrics are under way";
  for (int i = 0; i < 3; ++i) acknowledge();
  EXPECT_EQ(last(&wire::Header::has_drained).header.drained().streams(0).acked(), 3u);
  EXPECT_EQ(heartbeat().paused(), 1u);
  resume(1);
  EXPECT_THAT(pulled_seqs(), ElementsAre(0, 1, 2, 3, 4));
}

TEST_F(WorkerTest, AnswersEachRunToWhenItIsDrained) {
  start_leased(6);
  pause(1);
  run_to(1, 2);
  train(0);
  train(1);
  for (int i = 0; i < 3; ++i) acknowledge();
  const std::size_t said = all(&wire::Header::has_drained).size();
  EXPECT_GE(said, 1u);
  run_to(1, 2);
  EXPECT_EQ(all(&wire::Header::has_drained).size(), said + 1);
}

TEST_F(WorkerTest, IgnoresACutThatIsOver) {
  start_leased(6);
  pause(3);
  resume(3);
  pause(3);
  pause(2);
  train(0);
  EXPECT_THAT(pulled_seqs(), ElementsAre(0, 1, 2));
}

TEST_F(WorkerTest, ALeaseThatFallsInACutStartsNothing) {
  batches_ = 6;
  start();
  set_up();
  lease(5, 2, 1);
  EXPECT_THAT(pulled_seqs(), IsEmpty());
  EXPECT_EQ(heartbeat().paused(), 1u);
  run_to(1, 3);
  EXPECT_THAT(pulled_seqs(), ElementsAre(2));
}

TEST_F(WorkerTest, TellsTheSchedulerWhatASourceCannotBuild) {
  batches_ = 9;
  start();
  set_up();
  lease(5, 5);
  acknowledge();
  advance(std::chrono::milliseconds(500));
  const wire::Failure failure = last(&wire::Header::has_failure).header.failure();
  EXPECT_EQ(failure.code(), static_cast<std::uint32_t>(Code::kCorrupt));
  EXPECT_EQ(failure.message(), "shard 3: bad crc");
}

TEST_F(WorkerTest, ScoresASliceWithoutTouchingRows) {
  start();
  set_up();
  evaluate(1, 2);
  EXPECT_THAT(pulled_seqs(), ElementsAre(0, 1));
  EXPECT_TRUE(last(&wire::Header::has_pull).header.pull().read_only());
  answer_pull(0);
  EXPECT_THAT(all(&wire::Header::has_evaluated), IsEmpty());
  answer_pull(1);
  const Sent sent = last(&wire::Header::has_evaluated);
  EXPECT_EQ(sent.header.evaluated().slice(), 1u);
  const Accumulator scores = Accumulator::decode(sent.frames.at(0)).value();
  EXPECT_EQ(scores.head.samples(), 3u);
  EXPECT_THAT(all(&wire::Header::has_push), IsEmpty());
  evaluate(1, 2);
  EXPECT_EQ(all(&wire::Header::has_evaluated).size(), 2u) << "the answer may have been lost";
  EXPECT_EQ(pulled_seqs().size(), 2u);
}

TEST_F(WorkerTest, AnswersForAnEmptySlice) {
  slice_batches_ = 0;
  start();
  set_up();
  evaluate(0, 1);
  EXPECT_EQ(all(&wire::Header::has_evaluated).size(), 1u);
}

TEST_F(WorkerTest, EndsOnStop) {
  start();
  wire::Header header;
  header.mutable_stop();
  say(net::kSchedulerName, header);
  EXPECT_EQ(all(&wire::Header::has_stopped).size(), 1u);
  EXPECT_TRUE(worker_->finished());
  EXPECT_TRUE(worker_->status().ok());
}

TEST_F(WorkerTest, DoesNotHearASchedulerThatWasReplaced) {
  start();
  wire::Header header;
  header.set_term(3);
  header.mutable_heartbeat_ack();
  say(net::kSchedulerName, header);
  header.mutable_stop();
  header.set_term(2);
  say(net::kSchedulerName, header);
  EXPECT_FALSE(worker_->finished());
  advance(options_.hello_every);
  EXPECT_EQ(all(&wire::Header::has_hello).back().header.term(), 3u);
  header.set_term(4);
  say(net::kSchedulerName, header);
  EXPECT_TRUE(worker_->finished());
}

TEST_F(WorkerTest, EndsWhenTheSchedulerIsSilent) {
  start();
  set_up();
  advance(options_.scheduler_silence);
  EXPECT_TRUE(worker_->finished());
  EXPECT_EQ(worker_->status().code(), Code::kUnavailable);
  EXPECT_THAT(worker_->status().message(), HasSubstr("60 s"));
}

}  // namespace
}  // namespace meander::worker
