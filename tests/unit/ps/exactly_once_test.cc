// SPDX-License-Identifier: Apache-2.0
// Lanes and clients on a network that loses, repeats and reorders.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "checkpoint/generation.h"
#include "common/storage.h"
#include "net/sim_network.h"
#include "ps/client.h"
#include "ps/lane.h"
#include "tests/unit/ps/fakes.h"

namespace meander::ps {
namespace {

constexpr std::uint64_t kCluster = 7;
constexpr std::uint32_t kWidth = 3;
constexpr std::uint64_t kBatches = 12, kKeys = 40;

// What a batch holds: a pure function of (stream, seq).
std::vector<std::uint64_t> batch_keys(std::uint32_t stream, std::uint64_t seq) {
  std::vector<std::uint64_t> keys;
  for (std::uint64_t key = 0; key < kKeys; ++key) {
    if (hash64(stream, seq, key) % 4 == 0) keys.push_back(key);
  }
  return keys;
}

// Trains one stream: pull, a gradient that depends on the rows, push. It takes time to compute.
class Trainer final : public net::Node {
 public:
  Trainer(std::uint32_t stream, std::uint32_t lanes, net::Transport& transport, Rng& rng)
      : stream_(stream),
        rng_(rng),
        client_(transport, {.widths = {kWidth, 1}, .format = {}, .cluster = kCluster},
                {[this](TimePoint now, BatchId id, std::vector<Buffer> rows) {
                   compute(now, id, std::move(rows));
                 },
                 [this](TimePoint now, BatchId) { is_done() ? void() : pull_next(now); },
                 [](TimePoint, std::uint32_t) { FAIL() << "nobody else has the stream"; }}) {
    EXPECT_TRUE(client_.set_lanes(std::vector<std::string>(lanes)).ok());
  }

  void on_message(TimePoint now, const net::Message& message) override {
    client_.on_message(now, message);
  }
  void on_timer(TimePoint now) override {
    if (!has_started_) pull_next(now);
    has_started_ = true;
    if (now >= push_due_) {
      push_due_ = kNever;
      client_.push(now, pending_, {gradients_[0], gradients_[1]}, pending_.seq + 1 == kBatches);
    }
    client_.on_timer(now);
  }
  TimePoint next_timer() const override {
    if (!has_started_) return TimePoint{};
    return std::min(push_due_, client_.next_timer());
  }
  bool finished() const override { return is_done(); }
  bool is_done() const { return next_ == kBatches && client_.in_flight() == 0; }

 private:
  void pull_next(TimePoint now) {
    auto keys = batch_keys(stream_, next_);
    std::stable_sort(keys.begin(), keys.end(), [&](std::uint64_t a, std::uint64_t b) {
      return client_.partitions().lane_of(a) < client_.partitions().lane_of(b);
    });
    client_.pull(now, {stream_, 0, next_++}, {buffer_of(keys), buffer_of(keys)}, false);
  }
  void compute(TimePoint now, BatchId id, std::vector<Buffer> rows) {
    std::vector<float> gradient;
    for (const float w : rows[0].as<float>()) {
      gradient.push_back(0.3f * w + 0.01f * static_cast<float>(stream_ + 1));
    }
    const std::vector<float> ones(rows[1].size() / sizeof(float), -1.0f);
    gradients_ = {buffer_of(gradient), buffer_of(ones)};
    pending_ = id;
    push_due_ = now + Duration(rng_.below(500'000));
  }

  std::uint32_t stream_;
  Rng& rng_;
  Client client_;
  bool has_started_ = false;
  std::uint64_t next_ = 0;
  BatchId pending_;
  TimePoint push_due_ = kNever;
  std::vector<Buffer> gradients_;
};

// The scheduler's part: sets lanes up, hears that they are ready, has them save.
class Conductor final : public net::Node {
 public:
  Conductor(std::uint32_t lanes, std::uint32_t streams, std::int64_t staleness,
            net::Transport& transport)
      : lanes_(lanes), transport_(transport) {
    header_.set_cluster(kCluster);
    wire::LaneSetup& setup = *header_.mutable_lane_setup();
    setup.set_lanes(lanes);
    setup.set_streams(streams);
    setup.set_staleness(staleness);
    wire::TableSpec& adam = *setup.add_tables();
    adam.set_name("item");
    adam.set_width(kWidth);
    adam.set_init_range(0.1f);
    adam.mutable_optimizer()->set_kind(wire::Optimizer::ADAM);
    adam.mutable_optimizer()->set_rate(0.01f);
    adam.mutable_optimizer()->set_beta1(0.9f);
    adam.mutable_optimizer()->set_beta2(0.999f);
    adam.mutable_optimizer()->set_epsilon(1e-8f);
    wire::TableSpec& count = *setup.add_tables();
    count.set_name("count");
    count.set_width(1);
    count.mutable_optimizer()->set_rate(1);
  }
  void on_message(TimePoint, const net::Message& message) override {
    if (message.header.has_hello()) transport_.send(message.peer, header_);
    if (message.header.has_lane_ready()) ready.insert(message.peer);
    if (message.header.has_saved()) saved[message.peer] = message.header.saved();
    EXPECT_FALSE(message.header.has_failure()) << message.header.failure().message();
  }
  void on_timer(TimePoint now) override {
    next_ = is_saving ? now + std::chrono::milliseconds(50) : kNever;
    for (std::uint32_t lane = 0; is_saving && lane < lanes_; ++lane) {
      wire::Header h;
      h.set_cluster(kCluster);
      h.mutable_save()->set_generation(1);
      h.mutable_save()->set_dir("g");
      transport_.send(net::lane_name(lane), std::move(h));
    }
  }
  TimePoint next_timer() const override { return next_; }
  bool finished() const override { return false; }
  void begin_save(TimePoint now) {
    is_saving = true;
    next_ = now;
  }

  bool is_saving = false;
  std::set<std::string> ready;
  std::map<std::string, wire::Saved> saved;

 private:
  std::uint32_t lanes_;
  net::Transport& transport_;
  wire::Header header_;
  TimePoint next_ = kNever;
};

struct Outcome {
  std::uint64_t digest = 0;
  std::uint64_t trace = 0;
  std::map<std::uint64_t, float> counts;
};

Outcome train(std::uint64_t seed, std::uint32_t lanes, std::uint32_t streams,
              std::int64_t staleness) {
  SCOPED_TRACE(testing::Message() << "seed " << seed << ", lanes " << lanes);
  net::SimFaults faults;
  faults.loss = 0.05;
  faults.duplication = 0.1;
  faults.long_delay = 0.02;
  net::SimNetwork network(seed, faults);
  auto storage = make_memory_storage();
  InlineExecutor executor;
  std::vector<std::unique_ptr<Lane>> nodes;
  std::vector<std::unique_ptr<Trainer>> trainers;
  Conductor conductor(lanes, streams, staleness, network.transport("scheduler"));
  network.attach("scheduler", &conductor);
  for (std::uint32_t l = 0; l < lanes; ++l) {
    LaneOptions options;
    options.index = l;
    options.cluster = kCluster;
    nodes.push_back(
        std::make_unique<Lane>(options, network.transport(net::lane_name(l)), *storage, executor));
    network.attach(net::lane_name(l), nodes.back().get());
  }
  const TimePoint deadline(std::chrono::minutes(10));
  EXPECT_TRUE(network.run_until([&] { return conductor.ready.size() == lanes; }, deadline));
  for (std::uint32_t s = 0; s < streams; ++s) {
    const std::string name = net::worker_name(s);
    trainers.push_back(std::make_unique<Trainer>(s, lanes, network.transport(name), network.rng()));
    network.attach(name, trainers.back().get());
  }
  const auto is_trained = [&] {
    return std::ranges::all_of(trainers, [](const auto& t) { return t->is_done(); });
  };
  EXPECT_TRUE(network.run_until(is_trained, deadline)) << "hangs";
  conductor.begin_save(network.now());
  network.attach("scheduler", &conductor);
  EXPECT_TRUE(network.run_until([&] { return conductor.saved.size() == lanes; }, deadline));

  Outcome outcome;
  outcome.trace = network.trace();
  for (const auto& [lane, saved] : conductor.saved) {
    outcome.digest += saved.digest();
    for (const wire::StreamApplied& applied : saved.applied()) {
      EXPECT_EQ(applied.next(), kBatches);
      EXPECT_TRUE(applied.ended());
    }
    for (const std::uint64_t step : saved.table_steps()) EXPECT_EQ(step, streams * kBatches);
    for (const manifest::File& file : saved.files()) {
      if (file.table() != 1) continue;
      const Status status =
          checkpoint::read_rows(*storage, "g/" + file.name(), file, 0, kPartitions - 1,
                                [&](const checkpoint::Record& record) {
                                  outcome.counts[record.key] = record.values[0];
                                  return Status();
                                });
      EXPECT_TRUE(status.ok()) << status.message();
    }
  }
  return outcome;
}

std::map<std::uint64_t, float> expected_counts(std::uint32_t streams) {
  std::map<std::uint64_t, float> counts;
  for (std::uint32_t s = 0; s < streams; ++s) {
    for (std::uint64_t seq = 0; seq < kBatches; ++seq) {
      for (const std::uint64_t key : batch_keys(s, seq)) ++counts[key];
    }
  }
  return counts;
}

TEST(ExactlyOnce, EveryPushCountsOnceInEveryMode) {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    const std::int64_t staleness = static_cast<std::int64_t>(seed % 4) - 1;
    const auto lanes = static_cast<std::uint32_t>(1 + seed % 3);
    const auto streams = static_cast<std::uint32_t>(1 + seed % 5);
    ASSERT_EQ(train(seed, lanes, streams, staleness).counts, expected_counts(streams))
        << "seed " << seed;
  }
}

TEST(ExactlyOnce, BspGivesTheSameBitsForAnyLanesAndAnyNetwork) {
  const std::uint64_t digest = train(1, 1, 4, 0).digest;
  for (std::uint64_t seed = 2; seed <= 6; ++seed) {
    for (const std::uint32_t lanes : {1, 2, 5}) {
      ASSERT_EQ(train(seed, lanes, 4, 0).digest, digest) << "seed " << seed << ", lanes " << lanes;
    }
  }
}

TEST(ExactlyOnce, SeedReplaysIdentically) {
  EXPECT_EQ(train(9, 2, 3, -1).trace, train(9, 2, 3, -1).trace);
}

}  // namespace
}  // namespace meander::ps
