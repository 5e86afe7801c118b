// SPDX-License-Identifier: Apache-2.0
// Whole clusters under faults, from a seed: each row must end as the number of times that its key
// occurs in the input, whatever was lost, doubled, late, restarted or asleep.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iostream>

#include "checkpoint/generation.h"
#include "common/rng.h"
#include "models/model.h"
#include "tests/sim/cluster/cluster.h"

namespace meander::sim {
namespace {

constexpr std::uint64_t kSeeds = 1200;

nn::Graph counting_graph() {
  models::ModelSpec spec;
  spec.kind = "counting";
  spec.slots = {{.name = "item", .table = 0, .width = 1, .in_history = true},
                {.name = "category", .table = 1, .width = 2, .in_history = true}};
  Result<nn::Graph> graph = models::build_model(spec);
  CHECK(graph.ok()) << graph.status().message();
  return std::move(graph).value();
}

wire::Optimizer sgd() {
  wire::Optimizer optimizer;
  optimizer.set_kind(wire::Optimizer::SGD);
  optimizer.set_rate(1);
  return optimizer;
}

Duration milliseconds(double ms) { return from_seconds(ms / 1000); }

Scenario::Event draw_event(Rng& rng, const Scenario& scenario) {
  using Event = Scenario::Event;
  Event event;
  event.kind = static_cast<Event::Kind>(rng.below(3));
  const bool is_lane = event.kind == Event::kCrashLane;
  event.index = static_cast<std::uint32_t>(rng.below(is_lane ? scenario.lanes : scenario.workers));
  event.when = milliseconds(rng.uniform() * 40);
  event.length = milliseconds(rng.uniform() * (event.kind == Event::kSleepWorker ? 150 : 20));
  event.is_reported = rng.chance(0.5);
  return event;
}

Scenario draw(std::uint64_t seed) {
  Rng rng(hash64(seed, 99));
  Scenario scenario;
  scenario.seed = scenario.fault_seed = seed;
  scenario.lanes = 1 + static_cast<std::uint32_t>(rng.below(3));
  scenario.workers = 1 + static_cast<std::uint32_t>(rng.below(3));
  constexpr std::int64_t kModes[] = {0, 3, -1};
  scenario.staleness = kModes[rng.below(3)];
  scenario.depth = 1 + static_cast<std::uint32_t>(rng.below(3));
  scenario.batches = 4 + static_cast<std::uint32_t>(rng.below(12));
  scenario.checkpoint_every_s = rng.chance(0.7) ? 0.002 + 0.02 * rng.uniform() : 0;
  scenario.evaluate = rng.chance(0.3);
  scenario.faults.loss = rng.chance(0.7) ? 0.08 * rng.uniform() : 0;
  scenario.faults.duplication = rng.chance(0.7) ? 0.2 * rng.uniform() : 0;
  scenario.faults.long_delay = rng.chance(0.5) ? 0.15 * rng.uniform() : 0;
  const std::uint64_t events = rng.below(4);
  for (std::uint64_t i = 0; i < events; ++i) scenario.events.push_back(draw_event(rng, scenario));
  return scenario;
}

struct Outcome {
  bool is_over = false;
  std::uint64_t trace = 0, delivered = 0, lost = 0, rollbacks = 0, generations = 0;
  std::string digest;
};

void expect_exactly_once(const Cluster& cluster, Storage& storage) {
  const scheduler::Scheduler& scheduler = cluster.scheduler();
  const auto verified = checkpoint::verify(storage, scheduler.generation_dir());
  ASSERT_TRUE(verified.ok()) << verified.status().message();
  EXPECT_THAT(verified.value().errors, testing::IsEmpty());
  const auto rows = read_generation(storage, scheduler.generation_dir(), scheduler.manifest());
  const Counts counts = cluster.counts();
  EXPECT_EQ(rows.size(), counts.size());
  for (const auto& [key, count] : counts) {
    const auto row = rows.find(key);
    ASSERT_NE(row, rows.end()) << "table " << key.first << " key " << key.second;
    EXPECT_EQ(row->second, static_cast<float>(count))
        << "table " << key.first << " key " << key.second;
  }
}

// Each slice once, whoever scored it, however often.
void expect_scored_once(const Cluster& cluster, const Scenario& scenario) {
  const std::uint64_t scored = cluster.scheduler().held_out().samples;
  bool is_whole = false;
  for (std::uint32_t slices = scenario.evaluate ? 1 : 0; slices <= scenario.workers; ++slices) {
    is_whole |= scored == cluster.held_out_samples(slices);
  }
  EXPECT_TRUE(is_whole) << scored << " samples were scored";
}

Outcome run(const Scenario& scenario, const nn::Graph& graph) {
  const std::unique_ptr<Storage> storage = make_memory_storage();
  Cluster cluster(scenario, graph, sgd(), *storage);
  Outcome outcome;
  outcome.is_over = cluster.run();
  outcome.trace = cluster.trace();
  outcome.delivered = cluster.delivered();
  const scheduler::Progress progress = cluster.scheduler().progress();
  outcome.lost = progress.lost_workers;
  outcome.rollbacks = progress.rollbacks;
  outcome.generations = progress.generation;
  outcome.digest = cluster.scheduler().manifest().digest();
  EXPECT_TRUE(outcome.is_over) << "it hangs";
  EXPECT_TRUE(cluster.scheduler().status().ok()) << cluster.scheduler().status().message();
  if (testing::Test::HasFailure()) return outcome;
  expect_exactly_once(cluster, *storage);
  expect_scored_once(cluster, scenario);
  // What a lost worker had not told yet of acknowledged batches is not counted; else all is, once.
  const std::uint64_t counted = cluster.scheduler().training().samples;
  EXPECT_LE(counted, cluster.samples());
  if (cluster.scheduler().progress().lost_workers == 0) {
    EXPECT_EQ(counted, cluster.samples());
  }
  return outcome;
}

std::string describe(const Scenario& scenario) {
  std::string text = "seed " + std::to_string(scenario.seed) + ": lanes " +
                     std::to_string(scenario.lanes) + ", workers " +
                     std::to_string(scenario.workers) + ", staleness " +
                     std::to_string(scenario.staleness);
  for (const Scenario::Event& event : scenario.events) {
    text += "; event " + std::to_string(event.kind) + " of " + std::to_string(event.index) +
            " at " + std::to_string(seconds(event.when)) + " for " +
            std::to_string(seconds(event.length));
  }
  return text;
}

// Longer than every deadline there is: nobody may be given up for time in which nobody ran.
TEST(ExactlyOnce, PauseOfTheWholeMachineCostsNothing) {
  const nn::Graph graph = counting_graph();
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    Rng rng(seed);
    Scenario scenario;
    scenario.seed = scenario.fault_seed = seed;
    scenario.lanes = scenario.workers = 2;
    scenario.evaluate = false;
    scenario.checkpoint_every_s = 0.005;
    scenario.events = {{.kind = Scenario::Event::kPauseAll,
                        .when = milliseconds(rng.uniform() * 12),
                        .length = std::chrono::minutes(10)}};
    SCOPED_TRACE(describe(scenario));
    const Outcome outcome = run(scenario, graph);
    EXPECT_EQ(outcome.rollbacks, 0u);
    if (HasFailure()) return;
  }
}

TEST(ExactlyOnce, EveryBatchIsAppliedOnceWhateverHappens) {
  const nn::Graph graph = counting_graph();
  Outcome sum;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Scenario scenario = draw(seed);
    SCOPED_TRACE(describe(scenario));
    const Outcome outcome = run(scenario, graph);
    sum.delivered += outcome.delivered;
    sum.lost += outcome.lost;
    sum.rollbacks += outcome.rollbacks;
    sum.generations += outcome.generations;
    if (HasFailure()) return;
  }
  std::cout << sum.delivered << " messages, " << sum.lost << " workers lost, " << sum.rollbacks
            << " roll-backs, " << sum.generations << " generations\n";
}

TEST(ExactlyOnce, ASeedReplaysIdentically) {
  const nn::Graph graph = counting_graph();
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    const Scenario scenario = draw(seed);
    SCOPED_TRACE(describe(scenario));
    const Outcome first = run(scenario, graph), second = run(scenario, graph);
    EXPECT_EQ(first.trace, second.trace);
    EXPECT_EQ(first.digest, second.digest);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace meander::sim
