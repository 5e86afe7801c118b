// SPDX-License-Identifier: Apache-2.0
// A run goes on when its scheduler dies: nothing is rolled back, no batch is lost or counted twice.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>

#include "checkpoint/generation.h"
#include "common/rng.h"
#include "tests/sim/deaths/cluster.h"

namespace meander::sim {
namespace {

using Event = Scenario::Event;

// The address sanitizer takes ten times as long.
#if defined(__SANITIZE_ADDRESS__)
constexpr std::uint64_t kSeeds = 80;
#else
constexpr std::uint64_t kSeeds = 600;
#endif

// One to four deaths of the scheduler, at moments that may lie in the one's start that is next.
Scenario draw(std::uint64_t seed) {
  Rng rng(hash64(seed, 1234));
  Scenario scenario;
  scenario.seed = scenario.fault_seed = seed;
  scenario.journal = true;
  scenario.lanes = 1 + static_cast<std::uint32_t>(rng.below(3));
  scenario.workers = 1 + static_cast<std::uint32_t>(rng.below(3));
  constexpr std::int64_t kModes[] = {0, 3, -1};
  scenario.staleness = kModes[rng.below(3)];
  scenario.batches = 4 + static_cast<std::uint32_t>(rng.below(30));
  scenario.checkpoint_every_s = rng.chance(0.7) ? 0.002 + 0.02 * rng.uniform() : 0;
  scenario.evaluate = rng.chance(0.5);
  scenario.faults.loss = rng.chance(0.5) ? 0.08 * rng.uniform() : 0;
  scenario.faults.duplication = rng.chance(0.5) ? 0.2 * rng.uniform() : 0;
  scenario.faults.long_delay = rng.chance(0.3) ? 0.15 * rng.uniform() : 0;
  const std::uint64_t deaths = 1 + rng.below(4);
  for (std::uint64_t i = 0; i < deaths; ++i) {
    scenario.events.push_back(
        {.kind = rng.chance(0.7) ? Event::kCrashScheduler : Event::kReplaceScheduler,
         .when = milliseconds(rng.uniform() * 60),
         .length = milliseconds(rng.uniform() * (rng.chance(0.2) ? 300 : 15))});
  }
  return scenario;
}

std::string describe(const Scenario& scenario) {
  std::string text =
      "seed " + std::to_string(scenario.seed) + ": lanes " + std::to_string(scenario.lanes) +
      ", workers " + std::to_string(scenario.workers) + ", staleness " +
      std::to_string(scenario.staleness) + ", evaluate " + std::to_string(scenario.evaluate);
  for (const Event& event : scenario.events) {
    text += "; event " + std::to_string(event.kind) + " at " + std::to_string(seconds(event.when)) +
            " for " + std::to_string(seconds(event.length));
  }
  return text;
}

void expect_counts(const Cluster& cluster, Storage& storage) {
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
    EXPECT_EQ(row->second, static_cast<float>(count));
  }
}

struct Sum {
  std::uint64_t schedulers = 0, rollbacks = 0, lost = 0, generations = 0;
};

class SchedulerDeath : public testing::Test {
 protected:
  void run_counting(const Scenario& scenario, Sum& sum) {
    const std::unique_ptr<Storage> storage = make_memory_storage();
    Cluster cluster(scenario, counting_, optimizer_of(wire::Optimizer::SGD, 1), *storage);
    ASSERT_TRUE(cluster.run()) << "it hangs";
    const scheduler::Scheduler& scheduler = cluster.scheduler();
    ASSERT_TRUE(scheduler.status().ok()) << scheduler.status().message();
    expect_counts(cluster, *storage);
    const scheduler::Progress progress = scheduler.progress();
    sum.schedulers += cluster.schedulers();
    sum.rollbacks += progress.rollbacks;
    sum.lost += progress.lost_workers;
    sum.generations += progress.generation;
    EXPECT_LE(scheduler.training().samples, cluster.samples());
    // What a worker had not told yet when it died is not counted, also when nobody saw it die.
    const bool others_live_on = std::ranges::all_of(scenario.events, [](const Event& event) {
      return event.kind == Event::kCrashScheduler || event.kind == Event::kReplaceScheduler;
    });
    if (others_live_on) {
      EXPECT_EQ(scheduler.training().samples, cluster.samples()) << "metrics of every batch, once";
    }
    if (!scenario.evaluate) return;
    bool is_whole = false;
    for (std::uint32_t slices = 1; slices <= scenario.workers; ++slices) {
      is_whole |= scheduler.held_out().samples == cluster.held_out_samples(slices);
    }
    EXPECT_TRUE(is_whole) << scheduler.held_out().samples << " samples were scored";
  }

  const nn::Graph counting_ = graph_of("counting");
};

TEST_F(SchedulerDeath, CostsNoBatchAndNoSample) {
  Sum sum;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Scenario scenario = draw(seed);
    SCOPED_TRACE(describe(scenario));
    run_counting(scenario, sum);
    if (HasFailure()) return;
  }
  EXPECT_GT(sum.schedulers, kSeeds * 3 / 2) << "too few died while a run was going on";
  EXPECT_EQ(sum.rollbacks, 0u);
  std::cout << sum.schedulers << " schedulers, " << sum.generations << " generations, " << sum.lost
            << " workers lost\n";
}

TEST_F(SchedulerDeath, IsSurvivedTogetherWithDeathsOfOthers) {
  Sum sum;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Scenario scenario = draw(hash64(seed, 5));
    Rng rng(hash64(seed, 6));
    for (std::uint64_t i = 0; i <= rng.below(3); ++i) {
      Event event;
      event.kind = static_cast<Event::Kind>(rng.below(3));
      event.index = static_cast<std::uint32_t>(
          rng.below(event.kind == Event::kCrashLane ? scenario.lanes : scenario.workers));
      event.when = milliseconds(rng.uniform() * 60);
      event.length = milliseconds(rng.uniform() * 40);
      event.is_reported = rng.chance(0.5);
      scenario.events.push_back(event);
    }
    SCOPED_TRACE(describe(scenario));
    run_counting(scenario, sum);
    if (HasFailure()) return;
  }
  EXPECT_GT(sum.rollbacks, 0u);
  std::cout << sum.schedulers << " schedulers, " << sum.rollbacks << " roll-backs, " << sum.lost
            << " workers lost\n";
}

TEST_F(SchedulerDeath, LeavesTheDigestUnderBsp) {
  const nn::Graph graph = graph_of("din");
  const wire::Optimizer adam = optimizer_of(wire::Optimizer::ADAM, 0.01f);
  Scenario undisturbed;
  undisturbed.workers = 3;
  undisturbed.batches = 24;
  undisturbed.init_range = 0.1f;
  undisturbed.evaluate = false;
  const auto digest = [&](const Scenario& scenario) -> std::string {
    const std::unique_ptr<Storage> storage = make_memory_storage();
    Cluster cluster(scenario, graph, adam, *storage);
    EXPECT_TRUE(cluster.run()) << "it hangs";
    const scheduler::Scheduler& scheduler = cluster.scheduler();
    EXPECT_TRUE(scheduler.status().ok()) << scheduler.status().message();
    EXPECT_EQ(scheduler.progress().rollbacks, 0u);
    return scheduler.manifest().digest();
  };
  const std::string expected = digest(undisturbed);
  EXPECT_EQ(expected.size(), 16u);
  for (std::uint64_t seed = 1; seed <= kSeeds / 3; ++seed) {
    Scenario scenario = draw(hash64(seed, 8));
    scenario.seed = undisturbed.seed;
    scenario.workers = undisturbed.workers;
    scenario.batches = undisturbed.batches;
    scenario.init_range = undisturbed.init_range;
    scenario.staleness = 0;
    scenario.evaluate = false;
    SCOPED_TRACE(describe(scenario));
    EXPECT_EQ(digest(scenario), expected);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace meander::sim
