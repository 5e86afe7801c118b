// SPDX-License-Identifier: Apache-2.0
// Under BSP the final generation is bit for bit the same, however many lanes there are and whatever
// happens on the way. With a model whose gradients depend on every row that it sees.
#include <gtest/gtest.h>

#include "common/rng.h"
#include "models/model.h"
#include "tests/sim/cluster/cluster.h"

namespace meander::sim {
namespace {

nn::Graph small_graph() {
  models::ModelSpec spec;
  spec.kind = "din";
  spec.slots = {{.name = "item", .table = 0, .width = 1, .in_history = true},
                {.name = "category", .table = 1, .width = 2, .in_history = true}};
  spec.attention = {4, 3};
  spec.head = {4, 3};
  spec.dice = "moving";
  Result<nn::Graph> graph = models::build_model(spec);
  CHECK(graph.ok()) << graph.status().message();
  return std::move(graph).value();
}

class Digest : public testing::Test {
 protected:
  Digest() {
    adam_.set_kind(wire::Optimizer::ADAM);
    adam_.set_rate(0.01f);
    adam_.set_beta1(0.9f);
    adam_.set_beta2(0.999f);
    adam_.set_epsilon(1e-8f);
    scenario_.workers = 3;
    scenario_.batches = 24;
    scenario_.init_range = 0.1f;
    scenario_.evaluate = false;
  }
  struct Outcome {
    Status status;
    std::string digest;
    std::uint64_t samples = 0, delivered = 0, generation = 0;
  };
  Outcome run(const Scenario& scenario, Storage& storage) {
    Cluster cluster(scenario, graph_, adam_, storage);
    EXPECT_TRUE(cluster.run()) << "it hangs";
    const scheduler::Scheduler& scheduler = cluster.scheduler();
    return {scheduler.status(), scheduler.manifest().digest(), scheduler.training().samples,
            cluster.delivered(), scheduler.progress().generation};
  }
  std::string digest(const Scenario& scenario) {
    const std::unique_ptr<Storage> storage = make_memory_storage();
    const Outcome outcome = run(scenario, *storage);
    EXPECT_TRUE(outcome.status.ok()) << outcome.status.message();
    EXPECT_EQ(outcome.digest.size(), 16u);
    return outcome.digest;
  }

  const nn::Graph graph_ = small_graph();
  wire::Optimizer adam_;
  Scenario scenario_;
};

TEST_F(Digest, DoesNotDependOnTheNumberOfLanes) {
  const std::string one = digest(scenario_);
  for (std::uint32_t lanes : {2u, 5u}) {
    scenario_.lanes = lanes;
    EXPECT_EQ(digest(scenario_), one) << lanes << " lanes";
  }
}

TEST_F(Digest, DependsOnWhatIsTrained) {
  const std::string one = digest(scenario_);
  scenario_.batches = 25;
  EXPECT_NE(digest(scenario_), one);
}

TEST_F(Digest, DoesNotDependOnDepthOrCuts) {
  const std::string one = digest(scenario_);
  scenario_.depth = 4;
  EXPECT_EQ(digest(scenario_), one);
  scenario_.checkpoint_every_s = 0.002;
  EXPECT_EQ(digest(scenario_), one);
}

TEST_F(Digest, SurvivesFaultsDeathsAndRollBacks) {
  const std::string undisturbed = digest(scenario_);
  constexpr std::uint32_t kLanes[] = {1, 2, 5};
  for (std::uint64_t run = 1; run <= 60; ++run) {
    Rng rng(hash64(run, 7));
    Scenario scenario = scenario_;
    scenario.lanes = kLanes[run % 3];
    scenario.faults = {.loss = 0.05, .duplication = 0.1, .long_delay = 0.02};
    scenario.fault_seed = run;
    scenario.checkpoint_every_s = rng.chance(0.5) ? 0.005 : 0;
    Scenario::Event event;
    event.kind = static_cast<Scenario::Event::Kind>(rng.below(3));
    event.index = static_cast<std::uint32_t>(
        rng.below(event.kind == Scenario::Event::kCrashLane ? scenario.lanes : scenario.workers));
    event.when = from_seconds(0.03 * rng.uniform());
    event.length = from_seconds(0.1 * rng.uniform());
    scenario.events.push_back(event);
    SCOPED_TRACE("run " + std::to_string(run) + ", event " + std::to_string(event.kind));
    EXPECT_EQ(digest(scenario), undisturbed);
    if (HasFailure()) return;
  }
}

TEST_F(Digest, IsThatOfAnUndisturbedRunAfterInterruptAndResume) {
  const std::string undisturbed = digest(scenario_);
  for (const double when : {0.002, 0.004, 0.006}) {
    const std::unique_ptr<Storage> storage = make_memory_storage();
    Scenario scenario = scenario_;
    scenario.events.push_back({.kind = Scenario::Event::kInterrupt, .when = from_seconds(when)});
    const Outcome first = run(scenario, *storage);
    EXPECT_EQ(first.status.code(), Code::kInterrupted) << first.status.message();
    EXPECT_NE(first.digest, undisturbed);
    scenario.events.clear();
    scenario.lanes = 4;
    scenario.resume = first.generation > 0;
    const Outcome second = run(scenario, *storage);
    EXPECT_TRUE(second.status.ok()) << second.status.message();
    EXPECT_EQ(second.digest, undisturbed);
    EXPECT_GT(second.samples, first.samples);
    EXPECT_GT(second.generation, first.generation);
  }
}

TEST_F(Digest, OfAFinishedRunStaysWhenItIsResumed) {
  const std::unique_ptr<Storage> storage = make_memory_storage();
  const Outcome first = run(scenario_, *storage);
  scenario_.resume = true;
  scenario_.evaluate = true;
  const Outcome again = run(scenario_, *storage);
  EXPECT_TRUE(again.status.ok()) << again.status.message();
  EXPECT_EQ(again.digest, first.digest);
  EXPECT_EQ(again.generation, first.generation);
  EXPECT_EQ(again.samples, first.samples);
  EXPECT_LT(again.delivered, first.delivered);
}

}  // namespace
}  // namespace meander::sim
