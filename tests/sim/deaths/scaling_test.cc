// SPDX-License-Identifier: Apache-2.0
// The number of lanes changes while training goes on, whatever dies meanwhile: each batch counts
// once, and under BSP not one bit changes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iostream>

#include "checkpoint/generation.h"
#include "common/rng.h"
#include "tests/sim/deaths/cluster.h"

namespace meander::sim {
namespace {

using Event = Scenario::Event;

#if defined(__SANITIZE_ADDRESS__)
constexpr std::uint64_t kSeeds = 40;
#else
constexpr std::uint64_t kSeeds = 300;
#endif

constexpr std::uint32_t kLanesMax = 5;

Event draw_scale(Rng& rng) {
  return {.kind = Event::kScale,
          .index = 1 + static_cast<std::uint32_t>(rng.below(kLanesMax)),
          .when = milliseconds(rng.uniform() * 60),
          .length = milliseconds(rng.uniform() * 5)};
}

// One to three changes; no deaths.
Scenario draw(std::uint64_t seed) {
  Rng rng(hash64(seed, 777));
  Scenario scenario;
  scenario.seed = scenario.fault_seed = seed;
  scenario.journal = true;
  scenario.lanes = 1 + static_cast<std::uint32_t>(rng.below(3));
  scenario.workers = 1 + static_cast<std::uint32_t>(rng.below(3));
  constexpr std::int64_t kModes[] = {0, 3, -1};
  scenario.staleness = kModes[rng.below(3)];
  scenario.batches = 150 + static_cast<std::uint32_t>(rng.below(100));
  scenario.checkpoint_every_s = rng.chance(0.7) ? 0.002 + 0.02 * rng.uniform() : 0;
  scenario.evaluate = rng.chance(0.5);
  scenario.faults.loss = rng.chance(0.5) ? 0.08 * rng.uniform() : 0;
  scenario.faults.duplication = rng.chance(0.5) ? 0.2 * rng.uniform() : 0;
  scenario.faults.long_delay = rng.chance(0.3) ? 0.15 * rng.uniform() : 0;
  for (std::uint64_t i = 0; i <= rng.below(3); ++i) scenario.events.push_back(draw_scale(rng));
  return scenario;
}

// And one to four of whatever may happen to a process.
void add_deaths(Scenario& scenario, std::uint64_t seed) {
  Rng rng(hash64(seed, 778));
  constexpr Event::Kind kKinds[] = {
      Event::kCrashWorker, Event::kCrashLane,      Event::kCrashLane,       Event::kSleepWorker,
      Event::kSleepLane,   Event::kCrashScheduler, Event::kReplaceScheduler};
  for (std::uint64_t i = 0; i <= rng.below(4); ++i) {
    Event event;
    event.kind = kKinds[rng.below(std::size(kKinds))];
    const bool is_lane = event.kind == Event::kCrashLane || event.kind == Event::kSleepLane;
    event.index = static_cast<std::uint32_t>(rng.below(is_lane ? kLanesMax : scenario.workers));
    event.when = milliseconds(rng.uniform() * 60);
    event.length = milliseconds(rng.uniform() * (rng.chance(0.2) ? 300 : 20));
    event.is_reported = rng.chance(0.5);
    scenario.events.push_back(event);
  }
}

std::string describe(const Scenario& scenario) {
  std::string text =
      "seed " + std::to_string(scenario.seed) + ": lanes " + std::to_string(scenario.lanes) +
      ", workers " + std::to_string(scenario.workers) + ", staleness " +
      std::to_string(scenario.staleness) + ", evaluate " + std::to_string(scenario.evaluate);
  for (const Event& event : scenario.events) {
    text += "; event " + std::to_string(event.kind) + " of " + std::to_string(event.index) +
            " at " + std::to_string(seconds(event.when)) + " for " +
            std::to_string(seconds(event.length));
  }
  return text;
}

struct Sum {
  std::uint64_t asked = 0, scalings = 0, rollbacks = 0, schedulers = 0, generations = 0;
};

class ScalingTest : public testing::Test {
 protected:
  void run_counting(const Scenario& scenario, Sum& sum) {
    const std::unique_ptr<Storage> storage = make_memory_storage();
    Cluster cluster(scenario, counting_, optimizer_of(wire::Optimizer::SGD, 1), *storage);
    ASSERT_TRUE(cluster.run()) << "it hangs";
    const scheduler::Scheduler& scheduler = cluster.scheduler();
    ASSERT_TRUE(scheduler.status().ok()) << scheduler.status().message();
    const auto verified = checkpoint::verify(*storage, scheduler.generation_dir());
    ASSERT_TRUE(verified.ok()) << verified.status().message();
    EXPECT_THAT(verified.value().errors, testing::IsEmpty());
    const auto rows = read_generation(*storage, scheduler.generation_dir(), scheduler.manifest());
    const Counts counts = cluster.counts();
    EXPECT_EQ(rows.size(), counts.size());
    for (const auto& [key, count] : counts) {
      const auto row = rows.find(key);
      ASSERT_NE(row, rows.end()) << "table " << key.first << " key " << key.second;
      EXPECT_EQ(row->second, static_cast<float>(count));
    }
    const scheduler::Progress progress = scheduler.progress();
    sum.asked += cluster.scalings();
    sum.scalings += progress.scalings;
    sum.rollbacks += progress.rollbacks;
    sum.schedulers += cluster.schedulers();
    sum.generations += progress.generation;
    EXPECT_LE(scheduler.training().samples, cluster.samples());
    if (scenario.faults.loss == 0 && progress.lost_workers == 0 && !has_worker_deaths(scenario)) {
      EXPECT_EQ(scheduler.training().samples, cluster.samples()) << "metrics of every batch, once";
    }
    if (!scenario.evaluate) return;
    bool is_whole = false;
    for (std::uint32_t slices = 1; slices <= scenario.workers; ++slices) {
      is_whole |= scheduler.held_out().samples == cluster.held_out_samples(slices);
    }
    EXPECT_TRUE(is_whole) << scheduler.held_out().samples << " samples were scored";
  }
  static bool has_worker_deaths(const Scenario& scenario) {
    return std::ranges::any_of(scenario.events,
                               [](const Event& e) { return e.kind == Event::kCrashWorker; });
  }

  std::string digest(const Scenario& scenario, Sum& sum) {
    const nn::Graph graph = graph_of("din");
    const std::unique_ptr<Storage> storage = make_memory_storage();
    Cluster cluster(scenario, graph, optimizer_of(wire::Optimizer::ADAM, 0.01f), *storage);
    EXPECT_TRUE(cluster.run()) << "it hangs";
    const scheduler::Scheduler& scheduler = cluster.scheduler();
    EXPECT_TRUE(scheduler.status().ok()) << scheduler.status().message();
    sum.scalings += scheduler.progress().scalings;
    sum.rollbacks += scheduler.progress().rollbacks;
    return scheduler.manifest().digest();
  }

  const nn::Graph counting_ = graph_of("counting");
};

TEST_F(ScalingTest, CountsEachBatchOnceWithoutARollBack) {
  Sum sum;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const Scenario scenario = draw(seed);
    SCOPED_TRACE(describe(scenario));
    run_counting(scenario, sum);
    if (HasFailure()) return;
  }
  EXPECT_EQ(sum.rollbacks, 0u);
  EXPECT_GT(sum.scalings, kSeeds / 2) << "too few while a run was going on";
  std::cout << sum.asked << " asked for, " << sum.scalings << " changes, " << sum.generations
            << " generations\n";
}

TEST_F(ScalingTest, CountsEachBatchOnceWhateverDies) {
  Sum sum;
  for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
    Scenario scenario = draw(hash64(seed, 5));
    add_deaths(scenario, seed);
    SCOPED_TRACE(describe(scenario));
    run_counting(scenario, sum);
    if (HasFailure()) return;
  }
  EXPECT_GT(sum.rollbacks, 0u);
  EXPECT_GT(sum.scalings, kSeeds / 3);
  std::cout << sum.asked << " asked for, " << sum.scalings << " changes, " << sum.rollbacks
            << " roll-backs, " << sum.schedulers << " schedulers\n";
}

TEST_F(ScalingTest, LeavesTheDigestUnderBsp) {
  Scenario undisturbed;
  undisturbed.workers = 3;
  undisturbed.batches = 200;
  undisturbed.init_range = 0.1f;
  undisturbed.evaluate = false;
  Sum sum;
  const std::string expected = digest(undisturbed, sum);
  EXPECT_EQ(expected.size(), 16u);
  for (std::uint64_t seed = 1; seed <= kSeeds / 3; ++seed) {
    Scenario scenario = draw(hash64(seed, 8));
    scenario.seed = undisturbed.seed;
    scenario.workers = undisturbed.workers;
    scenario.batches = undisturbed.batches;
    scenario.init_range = undisturbed.init_range;
    scenario.staleness = 0;
    scenario.evaluate = false;
    if (seed % 2 == 0) add_deaths(scenario, seed);
    SCOPED_TRACE(describe(scenario));
    EXPECT_EQ(digest(scenario, sum), expected);
    if (HasFailure()) return;
  }
  EXPECT_GT(sum.scalings, kSeeds / 10);
  std::cout << sum.scalings << " changes, " << sum.rollbacks << " roll-backs\n";
}

}  // namespace
}  // namespace meander::sim
