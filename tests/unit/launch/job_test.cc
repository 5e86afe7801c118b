// SPDX-License-Identifier: Apache-2.0
#include "launch/job.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace meander::launch {
namespace {

class JobFile : public ::testing::Test {
 protected:
  void write(const std::string& folder, const std::string& name, const std::string& text) {
    EXPECT_TRUE(storage_->make_directories(folder).ok());
    EXPECT_TRUE(storage_->write_atomic(join_path(folder, name), text.data(), text.size()).ok());
  }
  Result<LoadedJob> load(const std::string& text, const std::vector<std::string>& sets = {}) {
    write("examples", "a.yaml", text);
    return load_job(*storage_, "examples/a.yaml", sets);
  }
  std::string refusal(const std::string& text, const std::vector<std::string>& sets = {}) {
    const Result<LoadedJob> job = load(text, sets);
    EXPECT_FALSE(job.ok());
    EXPECT_EQ(job.status().code(), Code::kInvalid);
    return job.status().message();
  }

  std::unique_ptr<Storage> storage_ = make_memory_storage();
};

TEST_F(JobFile, EmptyJobHasTheDefaultsOfItsName) {
  const Result<LoadedJob> job = load("");
  ASSERT_TRUE(job.ok()) << job.status().message();
  EXPECT_EQ(job->spec.name(), "a");
  EXPECT_EQ(job->spec.data().path(), "prepared/a");
  EXPECT_EQ(job->spec.data().test().part(), job::Range::test);
  EXPECT_FALSE(job->is_given("train.batch"));
}

TEST_F(JobFile, WhereUsersAreDealtIntoFoldsOneIsHeldOut) {
  EXPECT_EQ(load("data: {folds: 5}")->spec.data().test().part(), job::Range::fold);
  EXPECT_EQ(load("data: {folds: 5, test: {part: test}}")->spec.data().test().part(),
            job::Range::test);
}

TEST_F(JobFile, MissingFileIsNamed) {
  const Result<LoadedJob> job = load_job(*storage_, "nowhere.yaml", {});
  ASSERT_FALSE(job.ok());
  EXPECT_EQ(job.status().code(), Code::kNotFound);
  EXPECT_NE(job.status().message().find("nowhere.yaml"), std::string::npos);
}

TEST_F(JobFile, FieldsThatDoNotFitTogetherAreRefusedWithTheirPlace) {
  EXPECT_EQ(refusal("train: {batch: 1}"),
            "examples/a.yaml:1:16: train.batch: must hold a target and its negatives: at least 2");
  EXPECT_EQ(refusal("model: {kind: dein}").substr(0, 31), "examples/a.yaml:1:15: model.kin");
  EXPECT_EQ(refusal("", {"train.epochs=0"}),
            "--set: train.epochs: must be from 1 to 1000000, got 0");
  EXPECT_NE(refusal("data: {train: {from: 2017-10-09, until: 2017-10-08}}").find("must be after"),
            std::string::npos);
  EXPECT_NE(refusal("data: {train: {from: soon}}").find("data.train.from"), std::string::npos);
  EXPECT_NE(refusal("train: {dense: allreduce, mode: asp}").find("needs train.mode bsp"),
            std::string::npos);
  EXPECT_NE(refusal("data: {folds: 3, fold: 3}").find("below data.folds"), std::string::npos);
  EXPECT_NE(refusal("data: {folds: 1}").find("nothing to train on"), std::string::npos);
  EXPECT_NE(refusal("data: {test: {part: fold}}").find("data.folds"), std::string::npos);
  EXPECT_NE(refusal("data: {folds: 3, train: {part: fold}}").find("data.test.part"),
            std::string::npos);
  EXPECT_NE(refusal("train: {early_stop: {patience: 1}}").find("checkpoint.dir"),
            std::string::npos);
  EXPECT_NE(refusal("cluster: {lease_ms: 100}").find("twice"), std::string::npos);
  EXPECT_NE(refusal("cluster: {ps: 4, lanes: 2}").find("needs a lane"), std::string::npos);
}

TEST_F(JobFile, DenseParametersTakeTheOptimizerOfTheTables) {
  const Result<LoadedJob> job = load("train: {optimizer: {kind: sgd, rate: 1}}");
  ASSERT_TRUE(job.ok());
  EXPECT_EQ(job->spec.train().dense_optimizer().kind(), job::Optimizer::sgd);
  EXPECT_EQ(job->spec.train().dense_optimizer().rate(), 1.0f);
}

TEST_F(JobFile, OptimizerFieldsThatItsKindDoesNotHaveAreRefused) {
  const auto why = [this](const std::string& optimizer) {
    return refusal("train: {optimizer: {" + optimizer + "}}");
  };
  EXPECT_NE(why("kind: adam, l1: 0.1").find("train.optimizer.l1: is of sgd"), std::string::npos);
  EXPECT_NE(why("kind: adam, weight_decay: 0.1").find("is of adamw"), std::string::npos);
  EXPECT_NE(why("kind: adamw").find("weight_decay: say by how much"), std::string::npos);
  EXPECT_NE(why("kind: ftrl, beta: 0").find("beta: must be above 0"), std::string::npos);
  EXPECT_NE(why("kind: ftrl, schedule: {warmup: 10}").find("a schedule of its own"),
            std::string::npos);
  EXPECT_NE(why("schedule: {kind: cosine}").find("schedule.steps: say over how many"),
            std::string::npos);
  EXPECT_NE(why("schedule: {kind: step, steps: 5, factor: 2}").find("schedule.factor"),
            std::string::npos);
  EXPECT_TRUE(load("train: {optimizer: {kind: ftrl, l1: 0.1}}").ok());
  EXPECT_TRUE(load("train: {optimizer: {kind: adamw, weight_decay: 0.01, "
                   "schedule: {kind: cosine, warmup: 100, steps: 1000, factor: 0}}}")
                  .ok());
}

TEST_F(JobFile, KeepCountWithoutExpiryIsRefused) {
  EXPECT_NE(refusal("train: {keep_count: 3}").find("train.keep_count: spares rows"),
            std::string::npos);
  EXPECT_TRUE(load("train: {keep_count: 3, expire_steps: 1000}").ok());
}

TEST_F(JobFile, DataFolderComesFromTheEnvironment) {
  const std::string text = "data: {path: p, source: {format: ml-1m, in: [$MEANDER_DATA/ml1m]}}";
  setenv("MEANDER_DATA", "/somewhere", 1);
  const Result<LoadedJob> job = load(text);
  unsetenv("MEANDER_DATA");
  ASSERT_TRUE(job.ok());
  EXPECT_EQ(job->spec.data().source().in(0), "/somewhere/ml1m");
}

TEST_F(JobFile, DataFolderThatNothingNamesIsExplained) {
  unsetenv("MEANDER_DATA");
  const std::string text = "data: {path: p, source: {format: ml-1m, in: [$MEANDER_DATA/ml1m]}}";
  EXPECT_NE(refusal(text).find("set MEANDER_DATA"), std::string::npos);
  // Once the log is prepared its source is not needed.
  write("p", "x", "x");
  EXPECT_TRUE(load(text).ok());
}

}  // namespace
}  // namespace meander::launch
