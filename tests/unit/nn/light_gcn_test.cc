// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/light_gcn.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "nn/ops/rank_vectors.h"
#include "tests/unit/nn/step_check.h"
#include "tests/unit/nn/threads_executor.h"

namespace meander::nn {
namespace {

constexpr std::int32_t kNodes = StepCheck::kKeys, kWidth = 3, kCandidates = 2;
constexpr std::int32_t kItems = 0, kUsers = 1;  // slots, and their tables
const std::vector<std::vector<std::int32_t>> kParts = {{0, 0, 0}, {0, 0}};  // no histories

// User 3 has nothing, item 4 nobody.
std::shared_ptr<const SparseMatrix> small_adjacency() {
  const std::vector<SparseEntry> entries = {{0, 0, 1}, {0, 1, 1}, {0, 3, 1}, {1, 1, 1},
                                            {2, 0, 1}, {2, 2, 1}, {4, 1, 1}, {4, 3, 1}};
  return std::make_shared<const SparseMatrix>(
      symmetrically_normalised(sparse_matrix(kNodes, kNodes, entries)));
}

Graph small_model(std::int32_t layers, float decay = 0.3f) {
  Graph graph({{"item", kItems, kWidth, true}, {"user", kUsers, kWidth, false}}, 0);
  const LightGcn out = light_gcn(graph, "graph", small_adjacency(), kUsers, kItems,
                                 {.layers = layers, .decay = decay});
  graph.set_logits(out.logits);
  graph.set_ranks(out.ranks);
  bpr_loss(graph, "loss", out.logits);
  graph.finish();
  return graph;
}

using Rows64 = std::vector<std::vector<double>>;

// By dense matrices, from the formula: the vectors of both sides.
struct Naive {
  Rows64 users, items;  // layer 0, then the means of all
  Rows64 users0, items0;
  Naive(StepCheck& check, std::int32_t layers) {
    const auto rows = [&](std::int32_t table) {
      Rows64 all;
      for (const std::uint32_t row : check.catalogue_rows(table)) {
        const float* p = &check.table(table)[row * kWidth];
        all.emplace_back(p, p + kWidth);
      }
      return all;
    };
    users = users0 = rows(kUsers);
    items = items0 = rows(kItems);
    const auto a = small_adjacency();
    Rows64 u = users, i = items;
    for (std::int32_t k = 1; k <= layers; ++k) {
      Rows64 next_u(kNodes, std::vector<double>(kWidth)), next_i = next_u;
      for (std::int32_t r = 0; r < kNodes; ++r) {
        for (std::uint32_t e = a->begin[r]; e < a->begin[r + 1]; ++e) {
          for (std::int32_t c = 0; c < kWidth; ++c) {
            next_u[r][c] += a->value[e] * i[a->column[e]][c];
            next_i[a->column[e]][c] += a->value[e] * u[r][c];
          }
        }
      }
      u = next_u;
      i = next_i;
      for (std::int32_t n = 0; n < kNodes; ++n) {
        for (std::int32_t c = 0; c < kWidth; ++c) {
          users[n][c] += u[n][c];
          items[n][c] += i[n][c];
        }
      }
    }
    for (Rows64* all : {&users, &items}) {
      for (auto& row : *all) {
        for (double& x : row) x /= layers + 1;
      }
    }
  }
  static double dot(const std::vector<double>& x, const std::vector<double>& y) {
    double sum = 0;
    for (std::size_t c = 0; c < x.size(); ++c) sum += x[c] * y[c];
    return sum;
  }
};

// Place of a row of the table in its catalogue.
std::size_t node(const StepCheck& check, std::int32_t table, std::uint32_t row) {
  const auto& rows = check.catalogue_rows(table);
  return std::ranges::find(rows, row) - rows.begin();
}

class LightGcnLayers : public ::testing::TestWithParam<std::int32_t> {};

TEST_P(LightGcnLayers, LogitsAndLossAreThoseOfTheFormula) {
  constexpr float kDecay = 0.3f;
  StepCheck check(small_model(GetParam(), kDecay), kParts, kCandidates, 5);
  const StepOutput output = check.train();
  const Naive naive(check, GetParam());
  double loss = 0;
  std::size_t sample = 0, groups = 0;
  for (const PartInput& part : check.batch().inputs()) {
    const auto& columns = part.columns[static_cast<int>(Source::kTarget)];
    for (std::int32_t g = 0; g < part.layout.groups; ++g, ++groups) {
      const std::size_t u = node(check, kUsers, columns[kUsers][g * kCandidates]);
      double squares = Naive::dot(naive.users0[u], naive.users0[u]), logit[kCandidates];
      for (std::int32_t k = 0; k < kCandidates; ++k, ++sample) {
        const std::size_t of = node(check, kUsers, columns[kUsers][g * kCandidates + k]);
        const std::size_t i = node(check, kItems, columns[kItems][g * kCandidates + k]);
        logit[k] = Naive::dot(naive.users[of], naive.items[i]);
        squares += Naive::dot(naive.items0[i], naive.items0[i]);
        EXPECT_NEAR(output.logits[sample], logit[k], 1e-5);
      }
      loss += std::log1p(std::exp(logit[1] - logit[0])) + 0.5 * kDecay * squares;
    }
  }
  EXPECT_NEAR(output.loss, loss / static_cast<double>(groups), 1e-5);
  EXPECT_THAT(check.infer(), ::testing::Pointwise(::testing::FloatNear(1e-6), check.logits()));
}

TEST_P(LightGcnLayers, GradientsMatchFiniteDifference) {
  StepCheck(small_model(GetParam()), kParts, kCandidates, 5).expect_gradients_match();
}

TEST_P(LightGcnLayers, ThreadsAndAnEmptyPartDoNotChangeOneBit) {
  StepCheck alone(small_model(GetParam()), kParts, kCandidates, 5);
  StepCheck threaded(small_model(GetParam()), {kParts[0], {}, kParts[1], {}}, kCandidates, 5);
  ThreadsExecutor executor;
  const StepOutput expected = alone.train(), output = threaded.train(executor);
  EXPECT_EQ(output.loss, expected.loss);
  EXPECT_EQ(threaded.logits(), alone.logits());
  for (const std::int32_t t : {kItems, kUsers}) EXPECT_EQ(threaded.dtable(t), alone.dtable(t));
}

TEST_P(LightGcnLayers, RanksCountTheUnseenItemsThatScoreBetter) {
  StepCheck check(small_model(GetParam()), kParts, kCandidates, 5);
  std::vector<PartInput> parts(check.batch().inputs().begin(), check.batch().inputs().end());
  const std::vector<std::uint32_t> seen = {0, 2, 3, 1, 4};
  const std::vector<std::vector<std::uint32_t>> begins = {{0, 1, 3, 3}, {3, 5, 5}};
  for (std::size_t p = 0; p < parts.size(); ++p) {
    parts[p].seen = seen;
    parts[p].seen_begin = begins[p];
  }
  const std::vector<float> ranks = check.infer_ranks(parts);
  const Naive naive(check, GetParam());
  std::size_t group = 0;
  for (const PartInput& part : parts) {
    const auto& columns = part.columns[static_cast<int>(Source::kTarget)];
    for (std::int32_t g = 0; g < part.layout.groups; ++g, ++group) {
      const auto& user = naive.users[node(check, kUsers, columns[kUsers][g * kCandidates])];
      const std::size_t target = node(check, kItems, columns[kItems][g * kCandidates]);
      const auto was_seen =
          part.seen.subspan(part.seen_begin[g], part.seen_begin[g + 1] - part.seen_begin[g]);
      int better = 0;
      for (std::uint32_t i = 0; i < kNodes; ++i) {
        if (i == target || std::ranges::find(was_seen, i) != was_seen.end()) continue;
        better += Naive::dot(user, naive.items[i]) > Naive::dot(user, naive.items[target]);
      }
      EXPECT_EQ(ranks[group], better) << "group " << group;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Some, LightGcnLayers, ::testing::Values(1, 2, 3, 4));

TEST(LightGcn, AsksForAllRowsOfBothTables) {
  const Graph graph = small_model(2);
  for (const bool training : {false, true}) {
    EXPECT_EQ(graph.catalogue(kUsers, training), Graph::CatalogueUse::kAll);
    EXPECT_EQ(graph.catalogue(kItems, training), Graph::CatalogueUse::kAll);
  }
}

// Rows that are whole numbers make equal scores, and more items than one tile has.
TEST(RankVectors, CountsBetterOnesAndHalfOfEqualOnesAmongThoseNotSeen) {
  constexpr std::int32_t kMany = 1200, kFew = 40, kD = 18;
  Rng rng(7);
  std::vector<float> items(kMany * kD), vectors(kFew * kD);
  for (float& x : items) x = static_cast<float>(rng.below(3)) - 1;
  for (float& x : vectors) x = static_cast<float>(rng.below(3)) - 1;
  vectors[3 * kD] = std::nanf("");
  std::vector<std::vector<std::uint32_t>> seen(300);
  std::vector<RankQuery> queries;
  for (std::size_t q = 0; q < seen.size(); ++q) {
    for (std::uint32_t i = 0; i < kMany; ++i) {
      if (rng.chance(q % 5 * 0.1)) seen[q].push_back(i);
    }
    const auto vector = static_cast<std::uint32_t>(q % 9 == 0 ? rng.below(kFew) : q / 7 % kFew);
    queries.push_back({vector, static_cast<std::uint32_t>(rng.below(kMany)), seen[q]});
  }
  std::vector<float> scratch(rank_scratch_floats(kMany, kD)), ranks(queries.size()), again = ranks;
  InlineExecutor one;
  ThreadsExecutor many;
  const ConstMatrix of_items = {items.data(), kMany, kD, kD};
  const ConstMatrix of_vectors = {vectors.data(), kFew, kD, kD};
  rank_vectors(of_vectors, of_items, queries, ranks.data(), scratch.data(), one);
  rank_vectors(of_vectors, of_items, queries, again.data(), scratch.data(), many);
  EXPECT_EQ(ranks, again);
  for (std::size_t q = 0; q < queries.size(); ++q) {
    const auto score = [&](std::uint32_t item) {
      float sum = 0;
      for (std::int32_t c = 0; c < kD; ++c) {
        sum += vectors[queries[q].vector * kD + c] * items[item * kD + c];
      }
      return sum;
    };
    int better = 0, equal = 0;
    for (std::uint32_t i = 0; i < kMany; ++i) {
      if (i == queries[q].item || std::ranges::binary_search(seen[q], i)) continue;
      better += score(i) > score(queries[q].item);
      equal += score(i) == score(queries[q].item);
    }
    const int expected = std::isnan(score(queries[q].item)) ? kMany - 1 : better + equal / 2;
    ASSERT_EQ(ranks[q], expected) << "query " << q;
  }
}

}  // namespace
}  // namespace meander::nn
