// SPDX-License-Identifier: Apache-2.0
#include "launch/run.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "checkpoint/generation.h"
#include "data/generate.h"
#include "data/prepare.h"
#include "launch/train.h"

namespace meander::launch {
namespace {

// The whole cluster on real threads, over inproc sockets and files.
class Runs : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::temp_directory_path() / ("meander-run-test-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
    context_.storage = make_posix_storage();
    context_.quiet = true;
    data::GenerateOptions log;
    log.out = path("log");
    log.users = 40;
    log.items = 60;
    log.events = 1000;
    ASSERT_TRUE(data::generate(*context_.storage, log).ok());
    data::PrepareOptions options;
    options.in = {path("log/events.csv")};
    options.out = path("prepared");
    options.schema.columns = {{"time_ms", data::ColumnRole::kTime, data::ColumnType::kInt},
                              {"user", data::ColumnRole::kUser, data::ColumnType::kInt},
                              {"item", data::ColumnRole::kItem, data::ColumnType::kInt},
                              {"category", data::ColumnRole::kCategory, data::ColumnType::kInt}};
    ASSERT_TRUE(data::prepare(*context_.storage, options).ok());
    options.stay_s = 3600;
    options.out = path("stays");
    ASSERT_TRUE(data::prepare(*context_.storage, options).ok());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  Plan plan(const std::string& checkpoint, const std::vector<std::string>& more) {
    const std::string text = "model: {kind: din, embedding: 4, attention: [4, 2], head: [8, 4]}\n";
    const std::string file = path("job.yaml");
    EXPECT_TRUE(context_.storage->write_atomic(file, text.data(), text.size()).ok());
    std::vector<std::string> sets = {"data.path=" + path("prepared"), "train.batch=16",
                                     "cluster.workers=2", "checkpoint.dir=" + path(checkpoint)};
    sets.insert(sets.end(), more.begin(), more.end());
    Result<LoadedJob> job = load_job(*context_.storage, file, sets);
    Result<Plan> plan = make_plan(*context_.storage, std::move(job).value());
    EXPECT_TRUE(plan.ok()) << plan.status().message();
    return std::move(plan).value();
  }

  Outcome train(const Plan& plan) {
    Result<Outcome> outcome = run_in_process(context_, plan, scheduler_options(plan, draw_id()));
    EXPECT_TRUE(outcome.ok()) << outcome.status().message();
    EXPECT_TRUE(outcome->status.ok()) << outcome->status.message();
    return std::move(outcome).value();
  }

  Context context_;
  std::filesystem::path folder_;
};

TEST_F(Runs, TrainToTheEndAndEvaluateAlikeForAnyNumberOfLanesAndTransport) {
  const Plan one = plan("a", {"cluster.lanes=1"});
  const Outcome a = train(one);
  EXPECT_EQ(a.training.samples, samples_until(one, nullptr).value());
  EXPECT_EQ(a.held_out.head.samples(), 2 * one.log->test_targets());
  EXPECT_FALSE(a.generation_dir.empty());
  const Outcome b = train(plan("b", {"cluster.lanes=3", "cluster.threads=3"}));
  EXPECT_EQ(b.manifest.digest(), a.manifest.digest());
  const Outcome c = train(plan("c", {"cluster.lanes=2", "cluster.transport=tcp"}));
  EXPECT_EQ(c.manifest.digest(), a.manifest.digest());
}

TEST_F(Runs, SecondTaskTrainsAlikeForAnyNumberOfLanesAndThreads) {
  const std::vector<std::string> fields = {"data.path=" + path("stays"), "model.second_weight=0.5"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), fields.begin(), fields.end());
    return more;
  };
  const Plan one = plan("one", with({"cluster.lanes=1", "cluster.threads=1"}));
  const Outcome a = train(one);
  const Outcome b = train(plan("three", with({"cluster.lanes=3", "cluster.threads=3"})));
  EXPECT_EQ(b.manifest.digest(), a.manifest.digest());
  EXPECT_EQ(b.training.second_tail.auc(), a.training.second_tail.auc());
  // Those of training whose stay is known; of the held-out ones, each user's last, none is.
  std::uint64_t known = 0;
  for (const data::Shard& shard : one.log->shards()) {
    for (const data::Target& t : shard.train_targets) {
      known += std::isnan(shard.second_label[t.event]) ? 0 : 1;
    }
  }
  EXPECT_GT(known, 100u);
  EXPECT_EQ(a.training.second_head.samples() + a.training.second_tail.samples(), known);
  EXPECT_EQ(a.held_out.second_head.samples(), 0u);
  // By fold there are held-out targets with stays.
  const Outcome fold = train(plan("fold", with({"data.folds=3"})));
  EXPECT_GT(fold.held_out.second_head.samples(), 0u);
  EXPECT_FALSE(std::isnan(fold.held_out.second_head.auc()));
  EXPECT_NE(train(plan("clicks", {})).manifest.digest(), a.manifest.digest());
}

TEST_F(Runs, SecondTaskNeedsALogThatHasItsLabel) {
  const std::string file = path("job.yaml");
  plan("a", {});  // writes the job
  Result<LoadedJob> job =
      load_job(*context_.storage, file, {"data.path=" + path("prepared"), "model.second_weight=1"});
  const Result<Plan> refused = make_plan(*context_.storage, std::move(job).value());
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), Code::kInvalid);
  EXPECT_NE(refused.status().message().find("--stay"), std::string::npos);
}

TEST_F(Runs, WithoutOrderEveryBatchIsStillTrainedOnce) {
  for (const std::string mode : {"ssp", "asp"}) {
    const Plan free = plan("free-" + mode, {"cluster.lanes=2", "train.mode=" + mode});
    const Outcome outcome = train(free);
    EXPECT_EQ(outcome.training.samples, samples_until(free, nullptr).value());
    for (const manifest::Table& table : outcome.manifest.tables()) {
      EXPECT_EQ(table.step(), outcome.training.batches) << table.name();
    }
  }
}

TEST_F(Runs, HoldsOutAFoldOfTheTrainingTargets) {
  const Plan all = plan("a", {});
  std::uint64_t held_out = 0;
  for (const std::string fold : {"0", "1", "2"}) {
    const Plan one = plan("fold" + fold, {"data.folds=3", "data.fold=" + fold});
    const Outcome outcome = train(one);
    EXPECT_EQ(outcome.training.samples + outcome.held_out.head.samples(),
              samples_until(all, nullptr).value());
    held_out += outcome.held_out.head.samples();
  }
  EXPECT_EQ(held_out, samples_until(all, nullptr).value());
}

TEST_F(Runs, EpochByEpochTrainsAsInOnePass) {
  const std::vector<std::string> fields = {"cluster.workers=1", "data.folds=4", "train.epochs=3"};
  const Outcome whole = train(plan("whole", fields));
  std::vector<std::string> stopping = fields;
  stopping.push_back("train.early_stop.patience=3");
  ASSERT_TRUE(train_in_process(context_, plan("stops", stopping), {}).ok());
  const boost::json::object result = context_.result;
  ASSERT_EQ(result.at("epochs"), 3);
  const auto& metrics = result.at("epoch_metrics").as_array();
  EXPECT_DOUBLE_EQ(metrics[2].as_double(), whole.held_out.head.auc());
  EXPECT_EQ(result.at("auc"), result.at("best_metric"));
  std::vector<std::string> best = fields;
  best.back() = "train.epochs=" + std::to_string(result.at("best_epoch").to_number<int>());
  EXPECT_EQ(result.at("digest").as_string().c_str(), train(plan("best", best)).manifest.digest());
}

// A rate at which training soon makes it worse.
TEST_F(Runs, StopWithoutGainAndKeepTheBestEpoch) {
  const Plan job = plan(
      "c", {"data.folds=4", "train.epochs=30", "train.early_stop.patience=2",
            "train.early_stop.metric=logloss", "train.optimizer.rate=0.05", "checkpoint.keep=1"});
  ASSERT_TRUE(train_in_process(context_, job, {}).ok());
  const boost::json::object first = context_.result;
  const std::int64_t best = first.at("best_epoch").to_number<std::int64_t>();
  EXPECT_EQ(first.at("epochs"), best + 2);
  EXPECT_LT(best, 28);
  const auto& metrics = first.at("epoch_metrics").as_array();
  for (const boost::json::value& metric : metrics) {
    EXPECT_GE(metric.as_double(), first.at("best_metric").as_double());
  }
  EXPECT_EQ(first.at("logloss"), first.at("best_metric"));
  EXPECT_EQ(checkpoint::newest_generation(*context_.storage, path("c")).value(),
            first.at("checkpoint").as_string().c_str());
  // Once more: nothing is left to do, and it says the same.
  ASSERT_TRUE(train_in_process(context_, job, {}).ok());
  for (const char* key : {"best_epoch", "best_metric", "epochs", "digest", "logloss"}) {
    EXPECT_EQ(context_.result.at(key), first.at(key)) << key;
  }
  EXPECT_EQ(context_.result.at("samples_this_run"), 0);
}

// Between an epoch's checkpoint and its score; and after the score.
TEST_F(Runs, EarlyStopGoesOnWhereARunDied) {
  const std::vector<std::string> fields = {"data.folds=4", "train.early_stop.patience=5"};
  const auto with_epochs = [&](const std::string& dir, const std::string& epochs) {
    std::vector<std::string> all = fields;
    all.push_back("train.epochs=" + epochs);
    return plan(dir, all);
  };
  ASSERT_TRUE(train_in_process(context_, with_epochs("whole", "4"), {}).ok());
  const boost::json::object whole = context_.result;
  for (const bool has_score : {true, false}) {
    const std::string dir = has_score ? "scored" : "unscored";
    Plan one = with_epochs(dir, "4");
    one.train.epochs = 1;
    ASSERT_TRUE(train_in_process(context_, one, {}).ok());
    if (!has_score) {
      ASSERT_TRUE(context_.storage->remove(path(dir) + "/early_stop.json").ok());
    }
    ASSERT_TRUE(train_in_process(context_, with_epochs(dir, "4"), {}).ok());
    for (const char* key : {"epochs", "epoch_metrics", "best_epoch", "digest"}) {
      EXPECT_EQ(context_.result.at(key), whole.at(key)) << key;
    }
  }
}

TEST_F(Runs, AddressInUseIsRefused) {
  Process process(context_.clock, *context_.storage, 1);
  const Plan job = plan("x", {});
  auto first = SchedulerThread::start(process, "tcp://127.0.0.1:*", scheduler_options(job, 1));
  ASSERT_TRUE(first.ok());
  auto second =
      SchedulerThread::start(process, first.value()->endpoint(), scheduler_options(job, 1));
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), Code::kInvalid);
  EXPECT_NE(second.status().message().find("in use"), std::string::npos);
}

}  // namespace
}  // namespace meander::launch
