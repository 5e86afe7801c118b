// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/checkpoint/run_model.h"

namespace meander::checkpoint {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Every complete generation is what the model was when it was written.
void expect_all_readable(Storage& storage, const RunModel& run) {
  for (const std::string& dir : list_generations(storage, "c").value()) {
    const auto chain = open_chain(storage, dir);
    ASSERT_TRUE(chain.ok()) << chain.status().message();
    const std::uint64_t number = chain->back().manifest.generation();
    for (std::uint32_t t = 0; t < run.tables.size(); ++t) {
      const auto contents = contents_of(storage, chain.value(), t);
      ASSERT_TRUE(contents.ok()) << contents.status().message();
      ASSERT_EQ(contents.value(), run.snapshots.at(number)[t].present()) << dir;
    }
    ASSERT_EQ(read_digest(storage, chain.value()).value(), run.digests.at(number));
  }
}

// A storage whose removals, file by file, come to an end.
class Interrupted final : public Storage {
 public:
  Interrupted(Storage& below, std::uint64_t removals) : below_(below), removals_(removals) {}
  Result<Buffer> read(const std::string& path) override { return below_.read(path); }
  Result<std::unique_ptr<WritableFile>> create(const std::string& path) override {
    return below_.create(path);
  }
  Status rename(const std::string& from, const std::string& to) override {
    return below_.rename(from, to);
  }
  Status remove(const std::string& path) override {
    if (const auto names = below_.list(path); names.ok()) {
      for (const std::string& name : names.value()) RETURN_IF_ERROR(remove(join_path(path, name)));
    }
    if (removals_ == 0) return failed("interrupted");
    --removals_;
    return below_.remove(path);
  }
  Status make_directories(const std::string& path) override {
    return below_.make_directories(path);
  }
  Result<std::vector<std::string>> list(const std::string& path) override {
    return below_.list(path);
  }
  bool exists(const std::string& path) override { return below_.exists(path); }

 private:
  Storage& below_;
  std::uint64_t removals_;
};

void draw_lifetimes(Rng& rng, RunModel& run) {
  for (TableModel& table : run.tables) {
    table.admit_count = 1 + rng.below(3);
    table.expire_steps = rng.chance(0.7) ? 1 + rng.below(12) : 0;
    table.keep_count = rng.chance(0.5) ? 2 + rng.below(6) : 0;
  }
}

TEST(Chain, AnyChainIsWhatTheTablesWere) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    auto storage = make_memory_storage();
    RunModel run(*storage);
    draw_lifetimes(rng, run);
    std::uint64_t number = 0;
    for (int i = 0; i < 8; ++i) {
      run.train(rng, rng.below(6), 40);
      number += 1 + rng.below(3);
      run.write(number, i > 0 && rng.chance(0.8), 1 + rng.below(4));
    }
    expect_all_readable(*storage, run);
    const auto newest = open_chain(*storage, "c");
    ASSERT_TRUE(newest.ok());
    EXPECT_EQ(newest->back().manifest.generation(), number);
    const auto verified = verify(*storage, newest->back().dir);
    EXPECT_THAT(verified->errors, IsEmpty());
    EXPECT_EQ(verified->generations, newest->size());
  }
}

TEST(Chain, PartsOfTheKeySpaceAddUpToTheWhole) {
  Rng rng(7);
  auto storage = make_memory_storage();
  RunModel run(*storage);
  draw_lifetimes(rng, run);
  for (std::uint64_t number = 1; number <= 4; ++number) {
    run.train(rng, 3, 200);
    run.write(number, number > 1, number);
  }
  const Chain chain = open_chain(*storage, "c").value();
  const std::uint32_t cuts[] = {0, 1, 5'000, 8'192, 12'001, kPartitions};
  for (std::uint32_t t = 0; t < 2; ++t) {
    Contents joined;
    for (int i = 0; i + 1 < 6; ++i) {
      for (const auto& [key, record] :
           contents_of(*storage, chain, t, cuts[i], cuts[i + 1] - 1).value()) {
        EXPECT_TRUE(partition_of(key) >= cuts[i] && partition_of(key) < cuts[i + 1]);
        EXPECT_TRUE(joined.emplace(key, record).second);
      }
    }
    EXPECT_EQ(joined, run.snapshots.at(4)[t].present());
  }
}

TEST(Chain, CounterThatBecameARowIsARow) {
  Rng rng(1);
  auto storage = make_memory_storage();
  RunModel run(*storage);
  run.tables[0].admit_count = 2;
  run.tables[0].contents = {{5, {0, 1, false, {}}}, {6, {0, 1, false, {}}}};
  run.write(1, false, 1);
  run.tables[0].step = 3;
  run.tables[0].contents[5] = {2, 2, true, {1, 2, 3}};
  run.write(2, true, 1);
  const Chain chain = open_chain(*storage, "c").value();
  EXPECT_EQ(chain.size(), 2u);
  EXPECT_EQ(chain[1].manifest.tables(0).rows(), 1u);
  const Contents contents = contents_of(*storage, chain, 0).value();
  EXPECT_EQ(contents, run.tables[0].contents);
  // And back: it expired, and was counted anew.
  run.tables[0].step = 9;
  run.tables[0].contents[5] = {8, 1, false, {}};
  run.write(3, true, 1);
  EXPECT_EQ(contents_of(*storage, open_chain(*storage, "c").value(), 0).value(),
            run.tables[0].contents);
}

TEST(Chain, PresenceEndsWithTheStepsAndTheTouchesSay) {
  EXPECT_TRUE(is_present(0, 0, 1, 1, 1'000'000));
  EXPECT_TRUE(is_present(3, 0, 10, 1, 12));
  EXPECT_FALSE(is_present(3, 0, 10, 1, 13));
  EXPECT_TRUE(is_present(3, 5, 10, 5, 13));
  EXPECT_FALSE(is_present(3, 5, 10, 4, 13));
}

TEST(Chain, MissingOrForeignLinkIsCorruptAndNamed) {
  Rng rng(3);
  auto storage = make_memory_storage();
  RunModel run(*storage);
  for (std::uint64_t number = 1; number <= 3; ++number) {
    run.train(rng, 3, 20);
    run.write(number, number > 1, 2);
  }
  const std::string two = "c/gen-000002";
  manifest::Manifest whole = read_manifest(*storage, two).value();
  const auto refuse = [&](const char* why) {
    const Status status = open_chain(*storage, "c").status();
    EXPECT_EQ(status.code(), Code::kCorrupt);
    EXPECT_THAT(status.message(), HasSubstr(why));
    EXPECT_THAT(verify(*storage, "c/gen-000003")->errors, ElementsAre(status.message()));
  };
  const auto change = [&](auto&& edit) {
    manifest::Manifest changed = whole;
    edit(changed);
    ASSERT_TRUE(write_manifest(*storage, two, changed).ok());
  };
  change([](auto& m) { m.set_model("other"); });
  refuse("gen-000003: a delta on c/gen-000002, which is of another model");
  change([](auto& m) { m.mutable_tables(1)->set_width(7); });
  refuse("other tables");
  // Else what had expired would come back.
  change([](auto& m) { m.mutable_tables(1)->set_expire_steps(7); });
  refuse("other tables");
  change([](auto& m) { m.mutable_tables()->RemoveLast(); });
  refuse("other tables");
  change([](auto& m) { m.set_generation(9); });
  refuse("says that it is generation 9");
  change([](auto& m) { m.set_base(2); });  // round in a circle
  refuse("c/gen-000002: a delta on c/gen-000002, which is not older");
  change([](auto& m) {});
  EXPECT_TRUE(open_chain(*storage, "c").ok());
  ASSERT_TRUE(storage->remove(two).ok());
  refuse("gen-000003: a delta on c/gen-000002, which is missing");
  // The newest stays the newest: nobody goes on from an older one without being told.
  EXPECT_EQ(newest_generation(*storage, "c").value(), "c/gen-000003");
  EXPECT_TRUE(open_chain(*storage, "c/gen-000001").ok());
  EXPECT_EQ(open_chain(*storage, "c/gen-000007").status().code(), Code::kNotFound);
}

TEST(Chain, IsFoundFromAnyNameOfItsDirectory) {
  Rng rng(3);
  auto storage = make_memory_storage();
  RunModel run(*storage);
  for (std::uint64_t number = 1; number <= 2; ++number) run.write(number, number > 1, 1);
  for (const char* name : {"c", "c/", "c/gen-000002", "c/gen-000002/", "./c//gen-000002",
                           "c/gen-000002/.", "c/gen-000001/../gen-000002"}) {
    const auto chain = open_chain(*storage, name);
    ASSERT_TRUE(chain.ok()) << chain.status().message();
    EXPECT_EQ(chain->size(), 2u);
  }
}

TEST(Chain, RowsOfAnotherWidthThanTheTablesAreCorrupt) {
  auto storage = make_memory_storage();
  RunModel run(*storage);
  run.tables[0].contents[4] = {0, 1, true, {1, 2, 3}};
  run.write(1, false, 1);
  manifest::Manifest manifest = read_manifest(*storage, "c/gen-000001").value();
  manifest.mutable_tables(0)->set_width(5);
  ASSERT_TRUE(write_manifest(*storage, "c/gen-000001", manifest).ok());
  const Chain chain = open_chain(*storage, "c").value();
  EXPECT_EQ(contents_of(*storage, chain, 0).status().code(), Code::kCorrupt);
}

TEST(Prune, KeepsWhatKeptDeltasStandOn) {
  Rng rng(5);
  auto storage = make_memory_storage();
  RunModel run(*storage);
  // Full ones at 1, 4 and 6.
  for (const std::uint64_t number : {1, 2, 3, 4, 5, 6, 7, 8}) {
    run.train(rng, 2, 20);
    run.write(number, number != 1 && number != 4 && number != 6, 1);
  }
  ASSERT_TRUE(storage->make_directories("c/gen-000002b").ok());  // none of ours
  const auto plan = plan_prune(*storage, "c", 4).value();
  EXPECT_THAT(plan.kept, ElementsAre("c/gen-000004", "c/gen-000005", "c/gen-000006", "c/gen-000007",
                                     "c/gen-000008"));
  EXPECT_THAT(plan.removed, ElementsAre("c/gen-000003", "c/gen-000002", "c/gen-000001"));
  ASSERT_TRUE(prune(*storage, "c", 4).ok());
  EXPECT_EQ(list_generations(*storage, "c").value(), plan.kept);
  ASSERT_TRUE(prune(*storage, "c", 1).ok());
  EXPECT_THAT(list_generations(*storage, "c").value(),
              ElementsAre("c/gen-000006", "c/gen-000007", "c/gen-000008"));
  expect_all_readable(*storage, run);
  EXPECT_TRUE(storage->exists("c/gen-000002b"));
}

TEST(Prune, InterruptedAnywhereItLeavesEveryCompleteGenerationReadable) {
  for (std::uint64_t seed = 1; seed <= 25; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    auto storage = make_memory_storage();
    RunModel run(*storage);
    draw_lifetimes(rng, run);
    for (std::uint64_t number = 1; number <= 7; ++number) {
      run.train(rng, 2, 20);
      run.write(number, number > 1 && rng.chance(0.7), 1 + rng.below(2));
    }
    const std::uint32_t keep = 1 + rng.below(3);
    const auto plan = plan_prune(*storage, "c", keep).value();
    bool is_done = false;
    while (!is_done) {  // each run gets a little further
      Interrupted interrupted(*storage, 1 + rng.below(5));
      is_done = prune(interrupted, "c", keep).ok();
      expect_all_readable(*storage, run);
      if (HasFatalFailure()) return;
    }
    EXPECT_EQ(list_generations(*storage, "c").value(), plan.kept);
    EXPECT_EQ(storage->list("c")->size(), plan.kept.size());
  }
}

TEST(Prune, LeavesAGenerationThatMayBeInWriting) {
  auto storage = make_memory_storage();
  RunModel run(*storage);
  run.write(2, false, 1);
  for (const char* dir : {"c/gen-000001", "c/gen-000003"}) {
    ASSERT_TRUE(storage->make_directories(dir).ok());
  }
  ASSERT_TRUE(prune(*storage, "c", 1).ok());
  EXPECT_THAT(storage->list("c").value(), ElementsAre("gen-000002", "gen-000003"));
  run.write(4, false, 1);
  ASSERT_TRUE(prune(*storage, "c", 2).ok());
  EXPECT_THAT(storage->list("c").value(), ElementsAre("gen-000002", "gen-000004"));
}

TEST(Prune, KeepsAllThatADamagedManifestMayNeed) {
  auto storage = make_memory_storage();
  RunModel run(*storage);
  for (std::uint64_t number = 1; number <= 4; ++number) run.write(number, number > 1, 1);
  ASSERT_TRUE(storage->write_atomic("c/gen-000003/MANIFEST", "torn", 4).ok());
  ASSERT_TRUE(prune(*storage, "c", 1).ok());
  EXPECT_EQ(storage->list("c")->size(), 4u);
  run.write(5, false, 1);
  ASSERT_TRUE(prune(*storage, "c", 1).ok());
  EXPECT_THAT(storage->list("c").value(), ElementsAre("gen-000005"));
}

}  // namespace
}  // namespace meander::checkpoint
