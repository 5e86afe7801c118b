// SPDX-License-Identifier: Apache-2.0
// Lanes with a backup each: their deaths and sleeps cost no batch, and under BSP no bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iostream>

#include "checkpoint/generation.h"
#include "common/rng.h"
#include "tests/sim/deaths/cluster.h"

namespace meander::sim {
namespace {

using Event = Scenario::Event;

// The address sanitizer takes ten times as long.
#if defined(__SANITIZE_ADDRESS__)
constexpr std::uint64_t kSeeds = 60;
#else
constexpr std::uint64_t kSeeds = 400;
#endif

Scenario draw(std::uint64_t seed) {
  Rng rng(hash64(seed, 77));
  Scenario scenario;
  scenario.seed = scenario.fault_seed = seed;
  scenario.replicas = 1;
  scenario.lanes = 1 + static_cast<std::uint32_t>(rng.below(3));
  scenario.workers = 1 + static_cast<std::uint32_t>(rng.below(3));
  constexpr std::int64_t kModes[] = {0, 3, -1};
  scenario.staleness = kModes[rng.below(3)];
  scenario.batches = 10 + static_cast<std::uint32_t>(rng.below(40));
  scenario.checkpoint_every_s = rng.chance(0.7) ? 0.005 + 0.02 * rng.uniform() : 0;
  scenario.evaluate = false;
  scenario.faults.loss = rng.chance(0.4) ? 0.05 * rng.uniform() : 0;
  scenario.faults.duplication = rng.chance(0.5) ? 0.2 * rng.uniform() : 0;
  scenario.faults.long_delay = rng.chance(0.3) ? 0.1 * rng.uniform() : 0;
  for (std::uint64_t n = 1 + rng.below(4); n > 0; --n) {
    scenario.events.push_back(
        {.kind = rng.chance(0.7) ? Event::kCrashLane : Event::kSleepLane,
         .index = static_cast<std::uint32_t>(rng.below(2 * scenario.lanes)),
         .when = milliseconds(4 + rng.uniform() * 60),
         .length = milliseconds(rng.uniform() * (rng.chance(0.2) ? 3000 : 20)),
         .is_reported = rng.chance(0.7)});
  }
  if (rng.chance(0.3)) {
    scenario.journal = true;
    for (std::uint64_t n = 1 + rng.below(2); n > 0; --n) {
      scenario.events.push_back({.kind = Event::kCrashScheduler,
                                 .when = milliseconds(4 + rng.uniform() * 60),
                                 .length = milliseconds(rng.uniform() * 15)});
    }
  }
  if (rng.chance(0.3)) {
    scenario.events.push_back({.kind = Event::kCrashWorker,
                               .index = static_cast<std::uint32_t>(rng.below(scenario.workers)),
                               .when = milliseconds(4 + rng.uniform() * 60),
                               .length = milliseconds(rng.uniform() * 20)});
  }
  return scenario;
}

std::string describe(const Scenario& scenario) {
  std::string text = "seed " + std::to_string(scenario.seed) + ": lanes " +
                     std::to_string(scenario.lanes) + ", workers " +
                     std::to_string(scenario.workers) + ", staleness " +
                     std::to_string(scenario.staleness);
  for (const Event& event : scenario.events) {
    text += "; event " + std::to_string(event.kind) + " of " + std::to_string(event.index) +
            " at " + std::to_string(seconds(event.when)) + " for " +
            std::to_string(seconds(event.length));
  }
  return text;
}

TEST(Failover, EveryBatchIsAppliedOnceWhateverHappens) {
  const nn::Graph graph = graph_of("counting");
  std::uint64_t failovers = 0, rollbacks = 0;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Scenario scenario = draw(seed);
    SCOPED_TRACE(describe(scenario));
    const std::unique_ptr<Storage> storage = make_memory_storage();
    Cluster cluster(scenario, graph, optimizer_of(wire::Optimizer::SGD, 1), *storage);
    ASSERT_TRUE(cluster.run()) << "it hangs";
    const scheduler::Scheduler& scheduler = cluster.scheduler();
    ASSERT_TRUE(scheduler.status().ok()) << scheduler.status().message();
    const auto rows = read_generation(*storage, scheduler.generation_dir(), scheduler.manifest());
    const Counts counts = cluster.counts();
    ASSERT_EQ(rows.size(), counts.size());
    for (const auto& [key, count] : counts) {
      ASSERT_EQ(rows.at(key), static_cast<float>(count))
          << "table " << key.first << " key " << key.second;
    }
    failovers += scheduler.progress().failovers;
    rollbacks += scheduler.progress().rollbacks;
  }
  std::cout << failovers << " failovers, " << rollbacks << " roll-backs\n";
  EXPECT_GT(failovers, kSeeds / 4);
}

TEST(Failover, LeavesTheDigestUnderBsp) {
  const nn::Graph graph = graph_of("din");
  const wire::Optimizer adam = optimizer_of(wire::Optimizer::ADAM, 0.01f);
  std::uint64_t failovers = 0;
  const auto digest = [&](const Scenario& scenario) {
    const std::unique_ptr<Storage> storage = make_memory_storage();
    Cluster cluster(scenario, graph, adam, *storage);
    EXPECT_TRUE(cluster.run()) << "it hangs";
    EXPECT_TRUE(cluster.scheduler().status().ok()) << cluster.scheduler().status().message();
    failovers += cluster.scheduler().progress().failovers;
    return cluster.scheduler().manifest().digest();
  };
  Scenario undisturbed;
  undisturbed.workers = 3;
  undisturbed.batches = 30;
  undisturbed.init_range = 0.1f;
  undisturbed.evaluate = false;
  const std::string expected = digest(undisturbed);
  ASSERT_EQ(expected.size(), 16u);
  for (std::uint64_t seed = 1; seed <= kSeeds / 2; ++seed) {
    Scenario scenario = draw(hash64(seed, 9));
    scenario.seed = undisturbed.seed;
    scenario.workers = undisturbed.workers;
    scenario.batches = undisturbed.batches;
    scenario.init_range = undisturbed.init_range;
    scenario.staleness = 0;
    SCOPED_TRACE("run " + std::to_string(seed) + ", " + describe(scenario));
    ASSERT_EQ(digest(scenario), expected);
  }
  EXPECT_GT(failovers, kSeeds / 20);
}

}  // namespace
}  // namespace meander::sim
