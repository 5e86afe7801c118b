// SPDX-License-Identifier: Apache-2.0
#include "serve/ranker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "tests/small_export.h"

namespace meander::serve {
namespace {

using testing::HasSubstr;

models::ModelSpec spec(const char* dice = "moving") {
  models::ModelSpec spec = SmallExport::spec_of("dnn", /*user=*/true);
  spec.dice = dice;
  return spec;
}

class RankerTest : public testing::Test {
 protected:
  RankerTest() : small_(spec()) {
    CHECK(artefact::write_export(*storage_, small_.contents(), artefact::Layout::kPlain, "e").ok());
    artefact_ = Artefact::load(*storage_, "e").value();
    ranker_ = Ranker::create(artefact_).value();
  }
  std::vector<Recommendation> rank(std::uint64_t user, const RankOptions& options) {
    return ranker_->rank(user, options, executor_).value();
  }

  std::unique_ptr<Storage> storage_ = make_memory_storage();
  SmallExport small_;
  InlineExecutor executor_;
  std::shared_ptr<const Artefact> artefact_;
  std::unique_ptr<Ranker> ranker_;
};

TEST_F(RankerTest, GivesTheBestOfAllCandidatesInOrder) {
  const auto all = rank(3, {.k = 1000});
  const auto best = rank(3, {.k = 5});
  ASSERT_EQ(best.size(), 5u);
  EXPECT_EQ(all.size(), ranker_->scored());
  EXPECT_TRUE(std::ranges::is_sorted(all, std::greater(), &Recommendation::score));
  for (std::size_t i = 0; i < best.size(); ++i) EXPECT_EQ(best[i].item, all[i].item);
  for (const Recommendation& r : all) EXPECT_TRUE(r.score > 0 && r.score < 1);
}

TEST_F(RankerTest, SecondScoreIsOfASecondTaskOnly) {
  for (const Recommendation& r : rank(3, {.k = 5})) EXPECT_TRUE(std::isnan(r.second_score));
  models::ModelSpec two = spec();
  two.second_weight = 1;
  SmallExport small(two);
  CHECK(artefact::write_export(*storage_, small.contents(), artefact::Layout::kPlain, "two").ok());
  const auto ranker = Ranker::create(Artefact::load(*storage_, "two").value()).value();
  const auto ranked = ranker->rank(3, {.k = 1000}, executor_).value();
  EXPECT_TRUE(std::ranges::is_sorted(ranked, std::greater(), &Recommendation::score));
  for (const Recommendation& r : ranked) {
    EXPECT_TRUE(r.second_score > 0 && r.second_score < 1);
    EXPECT_NE(r.second_score, r.score);
  }
}

TEST_F(RankerTest, ScoresAsTheSamePairIsScoredAlone) {
  const auto best = rank(3, {.k = 3});
  const auto history = artefact_->history(3);
  const std::size_t steps = std::min<std::size_t>(history->item.size(), 12);
  artefact::Samples one;
  one.groups = 1;
  one.steps = static_cast<std::int64_t>(steps);
  one.history_length = {one.steps};
  const auto ids = [&](std::span<const std::uint64_t> column) {
    const auto newest = column.last(steps);
    return std::vector<std::int64_t>(newest.begin(), newest.end());
  };
  one.history = {ids(history->item), ids(history->category), {}};
  one.batches = {1};
  for (const Recommendation& r : best) {
    one.target = {{static_cast<std::int64_t>(r.item)},
                  {static_cast<std::int64_t>(artefact_->find_item(r.item)->category)},
                  {3}};
    EXPECT_NEAR(r.score, 1 / (1 + std::exp(-score_all(artefact_, one)[0])), 1e-6);
  }
}

TEST_F(RankerTest, LeavesOutWhatTheUserHadUnlessRepeatsAreAllowed) {
  for (std::uint64_t user = 0; user < SmallExport::kUsers; ++user) {
    const auto history = artefact_->history(user)->item;
    const std::set<std::uint64_t> had(history.begin(), history.end());
    for (const Recommendation& r : rank(user, {.k = 1000})) EXPECT_FALSE(had.contains(r.item));
    EXPECT_EQ(ranker_->scored(), SmallExport::kItems - had.size());
    rank(user, {.k = 1, .repeats = RankOptions::kAllow});
    EXPECT_EQ(ranker_->scored(), SmallExport::kItems);
  }
}

TEST_F(RankerTest, RecentCandidatesHadAnEventInTheWindow) {
  const std::int64_t window = 5 * SmallExport::kHourMs;
  rank(2, {.k = 1,
           .candidates = Candidates::kRecent,
           .recent_ms = window,
           .repeats = RankOptions::kAllow});
  EXPECT_EQ(ranker_->scored(), 6u);  // an item an hour, both ends of the window
}

TEST_F(RankerTest, AnUnknownUserIsRefusedByName) {
  const auto refused = ranker_->rank(99'999, {}, executor_);
  EXPECT_EQ(refused.status().code(), Code::kInvalid);
  EXPECT_THAT(refused.status().message(), HasSubstr("user 99999"));
}

TEST_F(RankerTest, NoCandidatesIsAnErrorThatSaysWhatToTry) {
  artefact_ = nullptr;
  small_.contents().description.newest_ms *= 100;
  small_.contents().description.candidates = "recent";
  ASSERT_TRUE(
      artefact::write_export(*storage_, small_.contents(), artefact::Layout::kPlain, "e").ok());
  const auto ranker = Ranker::create(Artefact::load(*storage_, "e").value()).value();
  const auto refused = ranker->rank(1, {}, executor_);
  EXPECT_THAT(refused.status().message(), HasSubstr("--candidates all"));
}

TEST(Ranker, AModelThatReadsTheRequestIsRefused) {
  models::ModelSpec with_context = spec();
  with_context.slots[2].name = "device";
  SmallExport small(with_context);
  const auto storage = make_memory_storage();
  ASSERT_TRUE(
      artefact::write_export(*storage, small.contents(), artefact::Layout::kPlain, "e").ok());
  const auto ranker = Ranker::create(Artefact::load(*storage, "e").value());
  EXPECT_EQ(ranker.status().code(), Code::kInvalid);
  EXPECT_THAT(ranker.status().message(), HasSubstr("device"));
}

TEST(Scorer, AScoreDoesNotDependOnTheOrderOfGroupsOrOnPadding) {
  SmallExport small(spec());
  const auto storage = make_memory_storage();
  ASSERT_TRUE(
      artefact::write_export(*storage, small.contents(), artefact::Layout::kPlain, "e").ok());
  const auto artefact = Artefact::load(*storage, "e").value();
  artefact::Samples samples = small.samples(9, 2, 6);
  const std::vector<float> together = score_all(artefact, samples);
  samples.batches.assign(9, 1);
  for (auto& column : samples.history) {
    for (std::int64_t g = 0; !column.empty() && g < 9; ++g) {
      for (std::int64_t t = samples.history_length[g]; t < 6; ++t) column[g * 6 + t] = 1;
    }
  }
  const std::vector<float> alone = score_all(artefact, samples);
  for (std::size_t i = 0; i < alone.size(); ++i) EXPECT_NEAR(alone[i], together[i], 1e-5);
}

}  // namespace
}  // namespace meander::serve
