// SPDX-License-Identifier: Apache-2.0
#include "data/catalogues.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "data/sampler.h"
#include "data/stream.h"
#include "tests/unit/data/support.h"

namespace meander::data {
namespace {

using testing::HasSubstr;

class CataloguesTest : public testing::Test {
 protected:
  StreamSpec spec(CatalogueKind kind) const {
    StreamSpec spec;
    spec.slots = {{"item", SlotSource::kItem, 0, ""}, {"user", SlotSource::kUser, 1, ""}};
    spec.tables = 2;
    spec.batch = 16;
    spec.history = 6;
    spec.catalogues = {kind, CatalogueKind::kNone};
    return spec;
  }
  Batch build(const StreamSpec& spec, std::uint64_t seq = 0, std::uint32_t lanes = 1) const {
    Result<std::unique_ptr<Stream>> stream = Stream::open(log_, spec);
    EXPECT_TRUE(stream.ok()) << stream.status().message();
    Batch batch;
    stream.value()->build(seq, PartitionMap::even(lanes), batch);
    return batch;
  }

  std::unique_ptr<Storage> storage_ = make_memory_storage();
  std::shared_ptr<const PreparedLog> log_ = shop_log(*storage_);
};

TEST_F(CataloguesTest, AllListsEveryItemByIdForAnyLanes) {
  for (const std::uint32_t lanes : {1, 3}) {
    const Batch batch = build(spec(CatalogueKind::kAll), 0, lanes);
    const Catalogue& all = batch.catalogues[0];
    ASSERT_EQ(all.rows.size(), log_->items().size());
    EXPECT_TRUE(all.log_expected.empty());
    for (std::size_t i = 0; i < all.rows.size(); ++i) {
      EXPECT_EQ(batch.keys[0][all.rows[i]], log_->items()[i].item);
    }
    EXPECT_TRUE(batch.catalogues[1].rows.empty());
    EXPECT_EQ(batch.keys[0].size(), log_->items().size());  // the samples' own are among them
  }
}

TEST_F(CataloguesTest, AllOfUsersListsThemById) {
  StreamSpec users = spec(CatalogueKind::kNone);
  users.catalogues[1] = CatalogueKind::kAll;
  const Batch batch = build(users);
  const Catalogue& all = batch.catalogues[1];
  ASSERT_EQ(all.rows.size(), log_->users());
  for (std::size_t i = 1; i < all.rows.size(); ++i) {
    EXPECT_LT(batch.keys[1][all.rows[i - 1]], batch.keys[1][all.rows[i]]);
  }
}

TEST_F(CataloguesTest, DrawsAreAPureFunctionOfTheBatchAndExpectedAsOftenAsTheySay) {
  StreamSpec drawn = spec(CatalogueKind::kDrawn);
  drawn.drawn = 5;
  drawn.drawn_power = 0.5;
  drawn.epochs = 400;
  const Batch batch = build(drawn, 3), again = build(drawn, 3), other = build(drawn, 4);
  EXPECT_EQ(batch.catalogues[0].rows, again.catalogues[0].rows);
  EXPECT_NE(batch.seed, other.seed);
  std::map<std::uint64_t, double> times, expected;
  Result<std::unique_ptr<Stream>> stream = Stream::open(log_, drawn);
  ASSERT_TRUE(stream.ok());
  const auto batches = std::min<std::uint64_t>(stream.value()->batches(), 4000);
  Batch next;
  for (std::uint64_t seq = 0; seq < batches; ++seq) {
    stream.value()->build(seq, PartitionMap::even(1), next);
    const Catalogue& c = next.catalogues[0];
    ASSERT_EQ(c.rows.size(), c.log_expected.size());
    EXPECT_EQ(std::set<std::uint32_t>(c.rows.begin(), c.rows.end()).size(), c.rows.size());
    for (std::size_t i = 0; i < c.rows.size(); ++i) {
      const std::uint64_t item = next.keys[0][c.rows[i]];
      times[item] += 1;
      expected[item] = std::exp(c.log_expected[i]);
    }
  }
  const auto n = static_cast<double>(batches);
  for (const auto& [item, count] : times) {
    const double p = expected[item];
    EXPECT_NEAR(count / n, p, 5 * std::sqrt(p * (1 - p) / n) + 1e-9) << item;
  }
}

TEST_F(CataloguesTest, AgesAreHoursBeforeTheTarget) {
  StreamSpec aged = spec(CatalogueKind::kNone);
  aged.age = true;
  const Batch batch = build(aged);
  std::set<float> ages;
  for (const Part& part : batch.parts) {
    ASSERT_EQ(part.age.size(), part.history[0].size());
    for (std::int32_t g = 0; g < part.groups; ++g) {
      for (std::int32_t t = 1; t < part.lengths[g]; ++t) {  // the older, the greater
        EXPECT_GE(part.age[part.step_offset[t - 1] + g], part.age[part.step_offset[t] + g]);
      }
    }
    for (const float age : part.age) EXPECT_GE(age, 0);
  }
}

TEST_F(CataloguesTest, SeenIsWhatTheUserHadBeforeTheTestTarget) {
  StreamSpec test = spec(CatalogueKind::kAll);
  test.part = LogPart::kTest;
  test.seen = true;
  const Batch batch = build(test);
  for (const Part& part : batch.parts) {
    ASSERT_EQ(part.seen_begin.size(), static_cast<std::size_t>(part.groups) + 1);
    ASSERT_EQ(part.user_targets, std::vector<std::uint32_t>(part.groups, 1));
    for (std::int32_t g = 0; g < part.groups; ++g) {
      std::set<std::uint64_t> seen, wanted;
      for (std::uint32_t i = part.seen_begin[g]; i < part.seen_begin[g + 1]; ++i) {
        seen.insert(log_->items()[part.seen[i]].item);
      }
      const std::uint64_t target = batch.keys[0][part.target[0][g * part.candidates]];
      const auto user = log_->find_user(batch.keys[1][part.target[1][g * part.candidates]]);
      ASSERT_TRUE(user);
      for (std::uint32_t e = 0; e + 1 < user->user->count; ++e) {
        wanted.insert(user->shard->item[user->user->first + e]);
      }
      wanted.erase(target);
      EXPECT_EQ(seen, wanted);
    }
  }
}

TEST_F(CataloguesTest, ModelsWithoutHistoryTakeTargetsWithout) {
  PrepareOptions options = shop_options("shop.csv", "bare");
  options.min_history = 0;
  const auto bare = prepare_log(*storage_, options);
  ASSERT_NE(bare, nullptr);
  StreamSpec none = spec(CatalogueKind::kNone);
  const auto refused = Stream::open(bare, none);
  ASSERT_FALSE(refused.ok());
  EXPECT_THAT(refused.status().message(), HasSubstr("--min-history 1"));
  none.history = 0;
  Result<std::unique_ptr<Stream>> stream = Stream::open(bare, none);
  ASSERT_TRUE(stream.ok()) << stream.status().message();
  // All events of a user but the last one.
  EXPECT_EQ(stream.value()->samples(), 2 * (bare->events() - bare->users()));
  Batch batch;
  stream.value()->build(0, PartitionMap::even(2), batch);
  EXPECT_EQ(batch.samples, 16u);
  for (const Part& part : batch.parts) {
    EXPECT_TRUE(part.step_rows.empty());
    EXPECT_TRUE(part.history[0].empty());
    EXPECT_EQ(part.target[0].size(), static_cast<std::size_t>(part.groups * part.candidates));
  }
}

TEST_F(CataloguesTest, ValidationIsNeitherTrainedNorTestedButSeenByTheTest) {
  PrepareOptions options = shop_options("shop.csv", "validated");
  options.holdout = HoldoutSpec{Holdout::kLast, 0, true};
  options.test_draw = NegativesSpec{NegativeKind::kUniform, 20, 0, Exclude::kKnown};
  const auto log = prepare_log(*storage_, options);
  ASSERT_NE(log, nullptr);
  for (const Shard& shard : log->shards()) {
    for (const UserEntry& user : shard.users) {
      EXPECT_EQ(user.known, user.count >= 3 ? user.count - 2 : user.count);
    }
    for (const Target& target : shard.train_targets) {
      EXPECT_LT(target.event, shard.users[target.user].first + shard.users[target.user].known);
    }
    for (std::size_t i = 0; i < shard.test_targets.size(); ++i) {
      const Target& target = shard.test_targets[i];
      const UserEntry& user = shard.users[target.user];
      EXPECT_EQ(target.event, user.first + user.count - 1);
      EXPECT_EQ(sample_of(*log, shard, target, true, 50).history_end, target.event);
    }
  }
}

TEST(ParseNegatives, SaysWhichWordIsWrong) {
  const auto spec = parse_negatives("uniform:100:known");
  ASSERT_TRUE(spec.ok());
  EXPECT_EQ(spec.value().kind, NegativeKind::kUniform);
  EXPECT_EQ(spec.value().count, 100u);
  EXPECT_EQ(spec.value().exclude, Exclude::kKnown);
  EXPECT_EQ(parse_negatives("none").value().per_target(), 0u);
  EXPECT_THAT(parse_negatives("unform").status().message(), HasSubstr("'unform'"));
  EXPECT_THAT(parse_negatives("uniform:0").status().message(), HasSubstr("count"));
  EXPECT_THAT(parse_negatives("uniform:5:me").status().message(), HasSubstr("'me'"));
  EXPECT_FALSE(parse_negatives("uniform:5:user:x").ok());
  EXPECT_FALSE(parse_negatives("").ok());
}

}  // namespace
}  // namespace meander::data
