// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json/parse.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "common/text.h"
#include "launch/bench/flop.h"
#include "launch/bench/local_trainer.h"
#include "launch/bench/measure.h"
#include "launch/bench/op_step.h"
#include "launch/bench/peak.h"
#include "launch/bench/workload.h"
#include "launch/cli.h"
#include "models/model.h"
#include "worker/trainer.h"

namespace meander::launch {
namespace {

// The program's exit code and what it prints on standard output.
struct Outcome {
  int exit_code;
  std::string output;
};

Outcome run_program(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "meander");
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  testing::internal::CaptureStdout();
  const int exit_code = run(static_cast<int>(argv.size()), argv.data());
  return {exit_code, testing::internal::GetCapturedStdout()};
}

std::vector<std::string> benchmarks() {
  const std::string script = run_program({"completion", "fish"}).output;
  std::vector<std::string> names;
  const std::string before = "'__fish_seen_subcommand_from bench' -a ";
  for (std::size_t at = script.find(before); at != std::string::npos;
       at = script.find(before, at + 1)) {
    const std::size_t begin = at + before.size();
    names.push_back(script.substr(begin, script.find('\n', begin) - begin));
  }
  return names;
}

TEST(Bench, EveryBenchmarkPrintsFigureLimitAndRatioAsTheLastLine) {
  const std::vector<std::string> names = benchmarks();
  ASSERT_FALSE(names.empty());
  for (const std::string& name : names) {
    SCOPED_TRACE(name);
    const Outcome outcome = run_program({"bench", name, "--quick", "--repetitions", "5", "--json"});
    ASSERT_EQ(outcome.exit_code, 0);
    ASSERT_EQ(outcome.output.find('\n'), outcome.output.size() - 1) << "one line";
    const boost::json::object result = boost::json::parse(outcome.output).as_object();
    for (const char* key : {"figure", "limit", "ratio"}) {
      EXPECT_GT(result.at(key).to_number<double>(), 0) << key;
    }
    EXPECT_FALSE(result.at("unit").as_string().empty());
    EXPECT_GE(result.at("threads").to_number<int>(), 1);
    EXPECT_FALSE(result.at("rows").as_array().empty());
    for (const boost::json::value& row : result.at("rows").as_array()) {
      EXPECT_GE(row.at("figure").to_number<double>(), 0) << boost::json::value(row);
    }
    EXPECT_NEAR(result.at("ratio").to_number<double>(),
                result.at("figure").to_number<double>() / result.at("limit").to_number<double>(),
                1e-9);
  }
}

TEST(Bench, RefusesTooFewRepetitionsAndUnknownNames) {
  EXPECT_EQ(run_program({"bench", "ops", "--quick", "--repetitions", "3"}).exit_code, 2);
  EXPECT_EQ(run_program({"bench", "op"}).exit_code, 2);
  EXPECT_EQ(run_program({"bench", "ops", "--only", "product"}).exit_code, 2);
  EXPECT_EQ(run_program({"bench"}).exit_code, 2);
}

TEST(Measure, MediansLeaveTheWarmUpOutAndComeInTheOrderOfTheFigures) {
  int calls = 0;
  const std::vector<double> medians = bench::medians_in_turn(
      5, {[&](std::vector<double>& figures) {
            figures.push_back(calls == 0 ? 1000 : calls);
            figures.push_back(-1);
          },
          [&](std::vector<double>& figures) { figures.push_back(10.0 * calls++); }});
  EXPECT_EQ(medians, (std::vector<double>{3, -1, 30}));
}

TEST(Measure, PeakIsThatOfVectorsNotOfScalars) {
  const double fma = bench::fma_peak(1, 4e-3);
  EXPECT_GT(fma, 5e9);
  EXPECT_LT(fma, 1e12);
  EXPECT_GT(bench::bf16_peak(1, 4e-3), 0.7 * fma);  // no slower, up to what others on the core take
}

nn::Graph dien() {
  models::ModelSpec spec;
  spec.kind = "dien";
  spec.slots = {{"item", 0, 18, true}, {"category", 1, 18, true}};
  return models::build_model(spec).value();
}

// The published sizes, counted by hand for one history of 100 with one candidate.
TEST(Flop, OfDienIsWhatCountingByHandGives) {
  const nn::Graph graph = dien();
  const bench::OpStep step(graph, 1, 1, 100);
  const double gru = 72 * 108, first = 36 * 80, pair = 36 * 80 + 80 * 40 + 40;
  const double auxiliary = 3 * 36 * 100 + 2 * (100 * 50 + 50);
  const double history = 2 * gru + first + pair;
  const double sample = first + 36 * 36 + 144 * 200 + 200 * 80 + 80 * 2;
  EXPECT_DOUBLE_EQ(bench::training_flop(graph, step.layout()),
                   6 * (100 * history + 99 * auxiliary + sample));
}

TEST(Flop, GrowsWithTheCandidatesOnlyWhereTheyDoNotShare) {
  const nn::Graph graph = dien();
  const bench::OpStep one(graph, 2, 1, 10), two(graph, 2, 2, 10);
  for (const auto& op : graph.ops()) {
    const double ratio = bench::forward_flop(graph, *op, two.layout()) /
                         bench::forward_flop(graph, *op, one.layout());
    const std::string name = op->name();
    if (name == "gru1" || name == "auxiliary") {
      EXPECT_EQ(ratio, 1) << name;
    } else if (name == "augru" || name == "head/dense1") {
      EXPECT_EQ(ratio, 2) << name;
    }
  }
}

TEST(OpStep, TimesEveryOpThatWorksOnAPart) {
  const nn::Graph graph = dien();
  bench::OpStep step(graph, 4, 2, 6);
  const bench::OpStep::Times times = step.run(2);
  for (std::size_t i = 0; i < graph.ops().size(); ++i) {
    if (graph.ops()[i]->scope() != nn::Scope::kPart) break;
    EXPECT_GT(times.forward_s[i], 0) << graph.ops()[i]->name();
    EXPECT_GT(times.backward_s[i], 0) << graph.ops()[i]->name();
  }
}

class Workloads : public ::testing::Test {
 protected:
  Workloads() : storage_(make_memory_storage()) {
    workload_.samples = 512;
    workload_.items = 200;
    workload_.lengths = "mean25";
  }
  Plan plan() {
    EXPECT_TRUE(bench::write_log(*storage_, workload_).ok());
    return bench::plan_of(*storage_, workload_, {}).value();
  }

  std::unique_ptr<Storage> storage_;
  bench::Workload workload_;
};

TEST_F(Workloads, BatchesHoldTheHistoriesThatWereAskedFor) {
  for (const std::uint32_t candidates : {1u, 2u}) {
    workload_.candidates = candidates;
    const Plan plan = this->plan();
    const auto stream = data::Stream::open(plan.log, plan.train).value();
    ASSERT_EQ(stream->samples(), workload_.samples);
    std::vector<std::uint32_t> expected = bench::history_lengths(workload_), seen;
    data::Batch batch;
    for (std::uint64_t seq = 0; seq < stream->batches(); ++seq) {
      stream->build(seq, PartitionMap::even(1), batch);
      for (const data::Part& part : batch.parts) {
        EXPECT_EQ(part.candidates, static_cast<std::int32_t>(candidates));
        seen.insert(seen.end(), part.lengths.begin(), part.lengths.end());
      }
    }
    std::ranges::sort(expected);
    std::ranges::sort(seen);
    EXPECT_EQ(seen, expected);
  }
}

TEST_F(Workloads, EveryContextIsASlotWithATableOfItsOwn) {
  workload_.contexts = 3;
  const Plan plan = this->plan();
  EXPECT_EQ(plan.graph->tables(), 5);
  data::Batch batch;
  data::Stream::open(plan.log, plan.train).value()->build(0, PartitionMap::even(1), batch);
  ASSERT_EQ(batch.keys.size(), 5u);
  for (const std::vector<std::uint64_t>& keys : batch.keys) EXPECT_GT(keys.size(), 1u);
}

TEST_F(Workloads, FlopOfASampleIsThatOfTheBatchesAsTheyComeUpToNegativesNotFound) {
  const Plan plan = this->plan();
  const auto stream = data::Stream::open(plan.log, plan.train).value();
  double flop = 0;
  data::Batch batch;
  nn::PartInput input;
  for (std::uint64_t seq = 0; seq < stream->batches(); ++seq) {
    stream->build(seq, PartitionMap::even(1), batch);
    for (const data::Part& part : batch.parts) {
      worker::bind_part(batch, part, input);
      input.layout.batch_negatives = input.layout.history_rows - input.layout.groups;
      flop += bench::training_flop(*plan.graph, input.layout);
    }
  }
  EXPECT_NEAR(flop / 512, bench::flop_per_sample(workload_, *plan.graph), 1);
}

TEST_F(Workloads, MeanLengthIsNearTheOneNamed) {
  workload_.samples = 50'000;
  double sum = 0;
  for (const std::uint32_t length : bench::history_lengths(workload_)) sum += length;
  // exponential(25) cut at 100 has a mean of 24.5, rounded down 24.0
  EXPECT_NEAR(sum / 50'000, 24, 0.5);
}

TEST_F(Workloads, TwoLayerLstmOf64IsTheWorkThatPeersDo) {
  workload_.model = "lstm";
  workload_.lengths = "50";
  const double mega = bench::flop_per_sample(workload_, *plan().graph) / 1e6;
  EXPECT_NEAR(mega, 6 * 51 * 2 * 128 * 256 / 1e6, 0.01);  // 50 behaviours, then the target
}

TEST_F(Workloads, LocalTrainerTrainsEverySampleOfEveryPass) {
  const Plan plan = this->plan();
  bench::LocalTrainer trainer(plan, std::uint64_t{workload_.categories} + 1, 2);
  EXPECT_EQ(trainer.train(2), 2 * 512u);
}

TEST_F(Workloads, RefusesWhatCannotBeMeasured) {
  for (const char* lengths : {"0", "-3", "ful", "1e3", "99999"}) {
    workload_.lengths = lengths;
    EXPECT_FALSE(bench::check(workload_).ok()) << lengths;
  }
}

}  // namespace
}  // namespace meander::launch
