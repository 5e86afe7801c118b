// SPDX-License-Identifier: Apache-2.0
#include "launch/plan.h"

#include <gtest/gtest.h>

#include <cmath>

#include "checkpoint/generation.h"
#include "data/generate.h"
#include "data/npy.h"
#include "data/prepare.h"
#include "launch/resume.h"

namespace meander::launch {
namespace {

class Plans : public ::testing::Test {
 protected:
  void SetUp() override {
    context_.storage = make_memory_storage();
    context_.quiet = true;
    data::GenerateOptions log;
    log.out = "log";
    log.users = 40;
    log.items = 60;
    log.events = 1000;
    ASSERT_TRUE(data::generate(storage(), log).ok());
    data::PrepareOptions options;
    options.format = data::Format::kCsv;
    options.in = {"log/events.csv"};
    options.out = "prepared/a";
    options.schema.columns = {{"time_ms", data::ColumnRole::kTime, data::ColumnType::kInt},
                              {"user", data::ColumnRole::kUser, data::ColumnType::kInt},
                              {"item", data::ColumnRole::kItem, data::ColumnType::kInt},
                              {"category", data::ColumnRole::kCategory, data::ColumnType::kInt}};
    const auto report = data::prepare(storage(), options);
    ASSERT_TRUE(report.ok()) << report.status().message();
  }
  Storage& storage() { return *context_.storage; }

  Result<Plan> plan(const std::vector<std::string>& sets = {}) {
    const std::string text =
        "model: {kind: dnn, embedding: 4, head: [8, 4]}\ntrain: {batch: 16}\n"
        "checkpoint: {dir: checkpoints}\n";
    EXPECT_TRUE(storage().make_directories("jobs").ok());
    EXPECT_TRUE(storage().write_atomic("jobs/a.yaml", text.data(), text.size()).ok());
    ASSIGN_OR_RETURN(LoadedJob job, load_job(storage(), "jobs/a.yaml", sets));
    return make_plan(storage(), std::move(job));
  }

  // A complete checkpoint of `plan` with its stream at batch 3, without any rows.
  void write_generation(const Plan& plan) {
    manifest::Manifest manifest;
    manifest.set_generation(1);
    manifest.set_model(plan.identity);
    manifest.set_job(write_yaml(plan.job.spec, nullptr));
    manifest.add_streams()->set_next(3);
    const std::string dir = join_path("checkpoints", checkpoint::generation_name(1));
    ASSERT_TRUE(storage().make_directories(dir).ok());
    ASSERT_TRUE(checkpoint::write_manifest(storage(), dir, manifest).ok());
  }

  Context context_;
};

TEST_F(Plans, EverySlotHasATableAndTheDenseVectorComesBehind) {
  const Result<Plan> plan = this->plan({"model.slots=[user,category,item]"});
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  ASSERT_EQ(plan->tables.size(), 4u);
  EXPECT_EQ(plan->tables[0].name(), "category");  // what a history has comes first
  EXPECT_EQ(plan->tables[1].name(), "item");
  EXPECT_EQ(plan->tables[2].name(), "user");
  EXPECT_EQ(plan->tables[3].name(), "dense");
  EXPECT_NE(plan->tables[0].seed(), plan->tables[1].seed());
  const double items = static_cast<double>(plan->log->items().size());
  EXPECT_FLOAT_EQ(plan->tables[1].init_range(), static_cast<float>(std::sqrt(6 / (items + 4))));
}

TEST_F(Plans, RowsOfAllSlotsStartInTheRangeThatIsGivenAndDenseOnesDoNot) {
  const Result<Plan> plan = this->plan({"model.initial_range=0.25"});
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  ASSERT_EQ(plan->tables.size(), 3u);
  EXPECT_EQ(plan->tables[0].init_range(), 0.25f);
  EXPECT_EQ(plan->tables[1].init_range(), 0.25f);
  EXPECT_EQ(plan->tables[2].init_range(), 0.0f);
  const Result<Plan> below = this->plan({"model.initial_range=-1"});
  ASSERT_FALSE(below.ok());
  EXPECT_NE(below.status().message().find("model.initial_range"), std::string::npos);
}

TEST_F(Plans, OptimizerReachesTheTablesAsTheJobHasIt) {
  const Result<Plan> plan =
      this->plan({"train.optimizer.kind=adamw", "train.optimizer.weight_decay=0.02",
                  "train.optimizer.schedule.kind=cosine", "train.optimizer.schedule.warmup=7",
                  "train.optimizer.schedule.steps=90", "train.optimizer.schedule.factor=0.25",
                  "train.dense_optimizer.kind=ftrl", "train.dense_optimizer.l1=0.5",
                  "train.dense_optimizer.beta=2", "train.clip_row=3", "train.expire_steps=500",
                  "train.keep_count=9"});
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  const wire::Optimizer& rows = plan->tables[0].optimizer();
  EXPECT_EQ(rows.kind(), wire::Optimizer::ADAMW);
  EXPECT_EQ(rows.weight_decay(), 0.02f);
  EXPECT_EQ(rows.schedule().kind(), wire::Schedule::COSINE);
  EXPECT_EQ(rows.schedule().warmup(), 7u);
  EXPECT_EQ(rows.schedule().steps(), 90u);
  EXPECT_EQ(rows.schedule().factor(), 0.25f);
  const wire::TableSpec& dense = plan->tables[2];
  EXPECT_EQ(dense.optimizer().kind(), wire::Optimizer::FTRL);
  EXPECT_EQ(dense.optimizer().l1(), 0.5f);
  EXPECT_EQ(dense.optimizer().beta(), 2);
  EXPECT_EQ(plan->tables[0].clip_row(), 3);
  EXPECT_EQ(plan->tables[0].expire_steps(), 500u);
  EXPECT_EQ(plan->tables[0].keep_count(), 9u);
  EXPECT_EQ(dense.expire_steps(), 0u);
  EXPECT_EQ(dense.clip_row(), 0);  // its rows are blocks of one vector: clip_norm is of that
}

TEST_F(Plans, PresetsHoldTheWholeDenseVector) {
  const Result<Plan> plan = this->plan();
  ASSERT_TRUE(plan.ok());
  const scheduler::SchedulerOptions options = scheduler_options(plan.value(), 1);
  ASSERT_EQ(options.presets.size(), 1u);
  EXPECT_EQ(options.presets[0].table, 2u);
  EXPECT_GE(options.presets[0].rows.size(), plan->graph->dense_size());
}

TEST_F(Plans, SlotThatTheLogDoesNotHaveIsRefused) {
  const Result<Plan> plan = this->plan({"model.slots=[item,device]"});
  ASSERT_FALSE(plan.ok());
  EXPECT_NE(plan.status().message().find("the log has no 'device'; it has item, user, category"),
            std::string::npos);
  EXPECT_FALSE(this->plan({"model.slots=[user]"}).ok());
}

class ContentPlans : public Plans {
 protected:
  // Vectors of the given width for items 0 ... n - 1.
  void write_content(std::uint64_t n, std::uint64_t width, std::int64_t first_item = 0) {
    std::string vectors = data::npy_header("<f4", {n, width}), items;
    for (std::uint64_t i = 0; i < n * width; ++i) {
      const float value = static_cast<float>(i) / 8;
      vectors.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
    for (std::uint64_t i = 0; i < n; ++i) {
      items += std::to_string(first_item + static_cast<std::int64_t>(i)) + "\n";
    }
    write("vectors.npy", vectors);
    write("items.txt", items);
  }
  void write(const std::string& path, const std::string& text) {
    ASSERT_TRUE(storage().write_atomic(path, text.data(), text.size()).ok());
  }
  Result<Plan> plan(std::vector<std::string> sets = {}) {
    sets.insert(sets.begin(), {"data.content.vectors=vectors.npy", "data.content.items=items.txt",
                               "model.slots=[content,item]"});
    return Plans::plan(sets);
  }
  void expect_refused(const std::string& what, const std::vector<std::string>& sets = {}) {
    const Result<Plan> plan = this->plan(sets);
    ASSERT_FALSE(plan.ok()) << what;
    EXPECT_NE(plan.status().message().find(what), std::string::npos) << plan.status().message();
  }
};

TEST_F(ContentPlans, ContentIsASlotWhoseRowsTheWorkersHold) {
  write_content(50, 6);
  const Result<Plan> plan = this->plan({"model.content_width=5"});
  ASSERT_TRUE(plan.ok()) << plan.status().message();
  const nn::SlotSpec& slot = plan->graph->slots()[0];
  EXPECT_EQ(slot.name, "content");
  EXPECT_EQ(slot.width, 6);
  EXPECT_TRUE(slot.frozen);
  EXPECT_EQ(slot.columns(), 5);
  EXPECT_EQ(plan->tables[0].width(), 6u);
  const std::vector<nn::ConstMatrix> frozen = frozen_rows(plan.value());
  ASSERT_EQ(frozen.size(), 2u);
  EXPECT_EQ(frozen[0].rows, 51);
  EXPECT_EQ(frozen[0].row(3)[2], 20.0f / 8);
  EXPECT_EQ(frozen[0].row(50)[5], 0.0f);
  EXPECT_EQ(frozen[1].data, nullptr);
}

TEST_F(ContentPlans, ContentThatDoesNotFitIsNamed) {
  expect_refused("vectors.npy");  // there is none
  write_content(50, 6);
  EXPECT_TRUE(this->plan().ok());
  expect_refused("--set: data.content.items: say which items", {"data.content.items="});
  expect_refused("model.content_width", {"model.content_width=5000"});
  write_content(50, 6, 1'000'000);
  expect_refused("none of the 50 ids in items.txt is an item of prepared/a");
  write("items.txt", "1\n2\n");
  expect_refused("items.txt: has 2 ids, vectors.npy has 50 vectors");
  const Result<Plan> plan = Plans::plan({"model.slots=[content]"});
  ASSERT_FALSE(plan.ok());
  EXPECT_NE(plan.status().message().find("named in data.content"), std::string::npos);
}

TEST_F(Plans, MissingLogIsExplained) {
  const Result<Plan> plan = this->plan({"data.path=nowhere"});
  ASSERT_FALSE(plan.ok());
  EXPECT_EQ(plan.status().code(), Code::kNotFound);
  EXPECT_NE(plan.status().message().find("meander prepare"), std::string::npos);
}

TEST_F(Plans, IdentityIsTheModelsShape) {
  const std::string base = plan()->identity;
  EXPECT_EQ(plan({"train.seed=5", "cluster.workers=2"})->identity, base);
  EXPECT_NE(plan({"model.kind=din"})->identity, base);
  EXPECT_NE(plan({"model.embedding=5"})->identity, base);
  EXPECT_NE(plan({"model.head=9,4"})->identity, base);
}

TEST_F(Plans, SlicesCoverTheHeldOutPartOnce) {
  const Result<Plan> plan = this->plan();
  ASSERT_TRUE(plan.ok());
  const PartitionMap lanes = PartitionMap::even(2);
  const auto whole = open_slice(plan.value())(0, 1);
  ASSERT_TRUE(whole.ok());
  std::uint64_t batches = 0, samples = 0;
  for (std::uint32_t slice = 0; slice < 3; ++slice) {
    const auto source = open_slice(plan.value())(slice, 3);
    ASSERT_TRUE(source.ok());
    batches += source.value()->batches();
    data::Batch batch;
    for (std::uint64_t seq = 0; seq < source.value()->batches(); ++seq) {
      ASSERT_TRUE(source.value()->build(seq, lanes, batch).ok());
      samples += batch.samples;
    }
  }
  EXPECT_EQ(batches, whole.value()->batches());
  EXPECT_EQ(samples, 2 * plan->log->test_targets());
}

TEST_F(Plans, SamplesUntilAPositionAddUpToTheWholePass) {
  const Result<Plan> plan = this->plan();
  ASSERT_TRUE(plan.ok());
  manifest::Manifest manifest;
  manifest.add_streams()->set_next(3);
  EXPECT_EQ(samples_until(plan.value(), &manifest).value(), 3u * 16);
  manifest.mutable_streams(0)->set_ended(true);
  EXPECT_EQ(samples_until(plan.value(), &manifest).value(), 2 * plan->log->train_targets());
  EXPECT_EQ(samples_until(plan.value(), nullptr).value(), 2 * plan->log->train_targets());
}

TEST_F(Plans, RunStartsFreshOrAtTheNewestCheckpoint) {
  const Result<Plan> plan = this->plan();
  ASSERT_TRUE(plan.ok());
  EXPECT_TRUE(find_start(context_, plan.value(), {})->restore.empty());
  EXPECT_EQ(find_start(context_, plan.value(), {.resume = true}).status().code(), Code::kNotFound);
  write_generation(plan.value());
  const Result<Start> start = find_start(context_, plan.value(), {});
  ASSERT_TRUE(start.ok()) << start.status().message();
  EXPECT_EQ(start->restore, "checkpoints/gen-000001");
  EXPECT_TRUE(start->positions);
  EXPECT_FALSE(start->is_finished);
  EXPECT_FALSE(find_start(context_, plan.value(), {.resume = true, .fresh = true}).ok());
}

TEST_F(Plans, CheckpointThatDoesNotFitIsRefused) {
  write_generation(plan().value());
  const Status model = find_start(context_, plan({"model.kind=din"}).value(), {}).status();
  EXPECT_NE(model.message().find("a checkpoint of another model"), std::string::npos);
  const Status batches = find_start(context_, plan({"train.batch=32"}).value(), {}).status();
  EXPECT_EQ(batches.code(), Code::kInvalid);
  EXPECT_NE(batches.message().find("--set: train.batch: is 32"), std::string::npos);
  EXPECT_TRUE(find_start(context_, plan({"train.mode=asp", "cluster.lanes=3"}).value(), {}).ok());
}

TEST_F(Plans, FreshRemovesCheckpointsAndInitFromTakesRowsOnly) {
  write_generation(plan().value());
  const Result<Start> rows = find_start(
      context_, plan({"checkpoint.dir=other", "train.init_from=checkpoints"}).value(), {});
  ASSERT_TRUE(rows.ok()) << rows.status().message();
  EXPECT_EQ(rows->restore, "checkpoints/gen-000001");
  EXPECT_FALSE(rows->positions);
  EXPECT_TRUE(find_start(context_, plan().value(), {.fresh = true})->restore.empty());
  EXPECT_FALSE(storage().exists("checkpoints/gen-000001"));
}

}  // namespace
}  // namespace meander::launch
