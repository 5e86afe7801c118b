// SPDX-License-Identifier: Apache-2.0
// Under BSP the final generation is bit for bit the same, however many lanes there are and however
// often the run is cut or interrupted. With a model whose gradients depend on every row it sees.
#include <gtest/gtest.h>

#include "tests/sim/world/cluster.h"
#include "tests/sim/world/small_model.h"

namespace meander::sim {
namespace {

class Digest : public testing::Test {
 protected:
  Digest() {
    scenario_.input = {.seed = 1, .streams = 3, .batches = 24};
    scenario_.evaluate = false;
  }
  struct Outcome {
    Status status;
    std::string digest;
    std::uint64_t samples = 0, delivered = 0, generation = 0, rollbacks = 0;
  };
  Outcome run(const Scenario& scenario, SimDisk& disk) {
    Cluster cluster(scenario, graph_of(false), tables_, disk);
    EXPECT_TRUE(cluster.run()) << "it hangs";
    const scheduler::Scheduler& scheduler = cluster.scheduler();
    return {scheduler.status(),
            scheduler.manifest().digest(),
            scheduler.training().samples,
            cluster.network().delivered(),
            scheduler.progress().generation,
            scheduler.progress().rollbacks};
  }
  std::string digest(const Scenario& scenario) {
    SimDisk disk(1);
    const Outcome outcome = run(scenario, disk);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
    EXPECT_EQ(outcome.digest.size(), 16u);
    return outcome.digest;
  }

  const Tables tables_ = tables_of(false);
  Scenario scenario_;
};

TEST_F(Digest, IsThatOfTheShortestWay) {
  const Oracle oracle(scenario_.input, graph_of(false), tables_);
  EXPECT_EQ(digest(scenario_), oracle.digest(oracle.clocks()));
}

TEST_F(Digest, DoesNotDependOnTheNumberOfLanes) {
  const std::string one = digest(scenario_);
  for (std::uint32_t lanes : {2u, 5u}) {
    scenario_.lanes = lanes;
    EXPECT_EQ(digest(scenario_), one) << lanes << " lanes";
  }
}

TEST_F(Digest, DependsOnWhatIsTrained) {
  const std::string one = digest(scenario_);
  scenario_.input.batches = 25;
  EXPECT_NE(digest(scenario_), one);
}

TEST_F(Digest, DoesNotDependOnDepthOrCuts) {
  const std::string one = digest(scenario_);
  scenario_.depth = 4;
  EXPECT_EQ(digest(scenario_), one);
  scenario_.checkpoint_every_s = 0.002;
  EXPECT_EQ(digest(scenario_), one);
}

TEST_F(Digest, IsThatOfAnUndisturbedRunAfterInterruptAndResume) {
  const std::string undisturbed = digest(scenario_);
  for (const double when : {0.002, 0.004, 0.006}) {
    SimDisk disk(1);
    Scenario scenario = scenario_;
    scenario.events.push_back({.kind = Scenario::Event::kInterrupt, .when = from_seconds(when)});
    const Outcome first = run(scenario, disk);
    EXPECT_EQ(first.status.code(), Code::kInterrupted) << first.status.message();
    EXPECT_NE(first.digest, undisturbed);
    scenario.events.clear();
    scenario.lanes = 4;
    scenario.resume = first.generation > 0;
    const Outcome second = run(scenario, disk);
    EXPECT_TRUE(second.status.ok()) << second.status.message();
    EXPECT_EQ(second.digest, undisturbed);
    EXPECT_GT(second.samples, first.samples);
    EXPECT_GT(second.generation, first.generation);
  }
}

TEST_F(Digest, OfAFinishedRunStaysWhenItIsResumed) {
  SimDisk disk(1);
  const Outcome first = run(scenario_, disk);
  scenario_.resume = true;
  scenario_.evaluate = true;
  const Outcome again = run(scenario_, disk);
  EXPECT_TRUE(again.status.ok()) << again.status.message();
  EXPECT_EQ(again.digest, first.digest);
  EXPECT_EQ(again.generation, first.generation);
  EXPECT_EQ(again.samples, first.samples);
  EXPECT_LT(again.delivered, first.delivered);
}

// Longer than every deadline there is: nobody may be given up for time in which nobody ran.
TEST_F(Digest, PauseOfTheWholeMachineRoomCostsNothing) {
  scenario_.lanes = 2;
  scenario_.checkpoint_every_s = 0.005;
  const std::string undisturbed = digest(scenario_);
  for (int when_us = 0; when_us < 12'000; when_us += 300) {
    Scenario scenario = scenario_;
    scenario.events = {{.kind = Scenario::Event::kSleepAll,
                        .when = std::chrono::microseconds(when_us),
                        .length = std::chrono::minutes(10)}};
    SimDisk disk(1);
    const Outcome outcome = run(scenario, disk);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
    EXPECT_EQ(outcome.digest, undisturbed);
    EXPECT_EQ(outcome.rollbacks, 0u);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace meander::sim
