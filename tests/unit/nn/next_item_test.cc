// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/next_item.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "common/rng.h"
#include "common/thread_executor.h"
#include "nn/ops/convolution.h"
#include "nn/ops/embedding.h"
#include "tests/jagged_batch.h"
#include "tests/unit/nn/op_harness.h"

namespace meander::nn {
namespace {

constexpr double kTolerance = 2e-5;  // float32 sums of some hundred values around 1

double dot(const double* a, const double* b, std::int32_t n) {
  return std::inner_product(a, a + n, b, 0.0);
}

// Whole steps of a small graph over one table of items, whose loss is also written down in float64.
class NextItem {
 public:
  NextItem(Graph built, std::int32_t items, std::vector<std::vector<std::int32_t>> lengths,
           std::int32_t candidates, std::uint64_t seed = 1)
      : graph(std::move(built)),
        items(items),
        width(graph.table_width(0)),
        batch(draw(lengths, candidates, seed, static_cast<std::uint32_t>(items))) {
    Rng rng(seed + 1);
    table.resize(static_cast<std::size_t>(items) * width);
    for (float& x : table) x = static_cast<float>(2 * rng.uniform() - 1);
    dtable.resize(table.size());
    for (const PartInput& part : batch.inputs()) {
      samples += part.layout.samples();
      groups += part.layout.groups;
    }
    parts.assign(batch.inputs().begin(), batch.inputs().end());
    all_items.resize(items);
    std::iota(all_items.begin(), all_items.end(), 0u);
    std::ranges::reverse(all_items);  // an item's place is not its row
    catalogue.rows = all_items;
  }

  StepInput input() {
    view = {table.data(), items, width, width};
    return {parts, {&view, 1}, dense, {&catalogue, 1}};
  }
  double train(Executor& executor, Precision precision = Precision::kF32) {
    Session session(graph, precision);
    const Matrix gradient{dtable.data(), items, width, width};
    std::vector<float> logits(samples), ddense(dense.size());
    StepOutput output{{&gradient, 1}, ddense, logits};
    session.train(input(), executor, output);
    return output.loss;
  }
  double train() {
    InlineExecutor executor;
    return train(executor);
  }
  std::vector<float> ranks() {
    Session session(graph);
    InlineExecutor executor;
    std::vector<float> logits(samples), out(groups);
    session.infer(input(), executor, logits, out);
    return out;
  }

  // Compares loss and gradient with those of `naive`, a function of the table in float64.
  template <class Naive>
  void expect_matches(Naive naive, double tolerance = kTolerance) {
    EXPECT_NEAR(train(), naive(std::vector<double>(table.begin(), table.end())), tolerance);
    std::vector<double> x(table.begin(), table.end());
    for (std::size_t i = 0; i < x.size(); i += 1 + x.size() / 500) {
      const double before = x[i], step = 1e-5;
      x[i] = before + step;
      const double up = naive(x);
      x[i] = before - step;
      const double down = naive(x);
      x[i] = before;
      ASSERT_NEAR(dtable[i], (up - down) / (2 * step), tolerance) << "element " << i;
    }
  }

  // body(part, state row, its key, key that follows, group, is the follower a target) by position.
  template <class Body>
  void for_positions(Body body) const {
    for (const PartInput& part : parts) {
      const Layout& layout = part.layout;
      if (layout.groups == 0) continue;
      const auto history = part.columns[static_cast<int>(Source::kHistory)][0];
      const auto target = part.columns[static_cast<int>(Source::kTarget)][0];
      for (std::int32_t g = 0; g < layout.groups; ++g) {
        for (std::int32_t t = 0; t < layout.lengths[g]; ++t) {
          const bool last = t + 1 == layout.lengths[g];
          const std::int32_t row = layout.step_offset[t] + g;
          const std::int32_t next = last ? g * layout.candidates : layout.step_offset[t + 1] + g;
          body(part, history[row], last ? target[next] : history[next], next, last);
        }
      }
    }
  }

  Graph graph;
  std::int32_t items, width;
  JaggedBatch batch;
  std::vector<PartInput> parts;
  std::vector<float> table, dtable, dense;
  std::vector<std::uint32_t> all_items;
  Catalogue catalogue;
  ConstMatrix view;
  std::size_t samples = 0, groups = 0;

 private:
  static JaggedBatch draw(const std::vector<std::vector<std::int32_t>>& lengths_by_part,
                          std::int32_t candidates, std::uint64_t seed, std::uint32_t items) {
    Rng rng(seed);
    std::vector<std::vector<JaggedGroup>> groups;
    for (const auto& lengths : lengths_by_part) {
      groups.push_back(random_groups(rng, lengths, candidates, {items}, 1));
    }
    return JaggedBatch(std::move(groups));
  }
};

// States are the behaviours' own vectors.
Graph softmax_graph(std::int32_t width, NextSoftmaxOptions options) {
  Graph graph({{"item", 0, width, true}}, 0);
  const TensorId target = embedding(graph, "target", Source::kTarget, {0});
  const TensorId states = embedding(graph, "history", Source::kHistory, {0});
  graph.set_logits(score_candidates(graph, "score", states, target));
  next_softmax_loss(graph, "loss", states, 0, options);
  rank_target(graph, "rank", states, 0);
  graph.finish();
  return graph;
}

Graph bce_graph(std::int32_t width) {
  Graph graph({{"item", 0, width, true}}, 0);
  const TensorId target = embedding(graph, "target", Source::kTarget, {0});
  const TensorId states = embedding(graph, "history", Source::kHistory, {0});
  const TensorId negatives = embedding(graph, "negatives", Source::kNegative, {0});
  graph.set_logits(score_candidates(graph, "score", states, target));
  next_bce_loss(graph, "loss", states, states, negatives, target);
  graph.finish();
  return graph;
}

const std::vector<std::vector<std::int32_t>> kLengths = {{5, 5, 3, 1}, {}, {7, 2, 2, 1, 1}};

double softmax_loss(const NextItem& step, const std::vector<double>& table, bool last_only) {
  const std::int32_t d = step.width;
  double sum = 0;
  int count = 0;
  step.for_positions(
      [&](const PartInput&, std::uint32_t key, std::uint32_t next, std::int32_t, bool last) {
        if (last_only && !last) return;
        double total = 0;
        for (std::uint32_t item : step.catalogue.rows) {
          total += std::exp(dot(&table[key * d], &table[item * d], d));
        }
        sum += std::log(total) - dot(&table[key * d], &table[next * d], d);
        ++count;
      });
  return sum / count;
}

// Of the whole batch, by group.
std::vector<float> naive_ranks(const NextItem& step) {
  std::vector<float> ranks;
  const std::vector<double> table(step.table.begin(), step.table.end());
  const std::int32_t d = step.width;
  for (const PartInput& part : step.parts) {
    const Layout& layout = part.layout;
    for (std::int32_t g = 0; g < layout.groups; ++g) {
      const std::uint32_t state =
          part.columns[static_cast<int>(Source::kHistory)][0][layout.last_row(g)];
      const std::uint32_t target =
          part.columns[static_cast<int>(Source::kTarget)][0][g * layout.candidates];
      const double score = dot(&table[state * d], &table[target * d], d);
      int better = 0, same = 0;
      for (std::uint32_t place = 0; place < step.catalogue.rows.size(); ++place) {
        const std::uint32_t item = step.catalogue.rows[place];
        bool left_out = item == target;
        for (std::uint32_t i = part.seen_begin.empty() ? 0 : part.seen_begin[g];
             !part.seen_begin.empty() && i < part.seen_begin[g + 1]; ++i) {
          left_out = left_out || part.seen[i] == place;
        }
        if (left_out) continue;
        const double other = dot(&table[state * d], &table[item * d], d);
        better += other > score ? 1 : 0;
        same += other == score ? 1 : 0;
      }
      ranks.push_back(static_cast<float>(better + same / 2));
    }
  }
  return ranks;
}

TEST(NextSoftmax, MatchesSoftmaxOverEveryItem) {
  for (const std::int32_t items : {7, 384, 401, 900}) {
    NextItem step(softmax_graph(12, {}), items, kLengths, 1);
    step.expect_matches([&](const std::vector<double>& x) { return softmax_loss(step, x, false); });
  }
}

TEST(NextSoftmax, LastOnlyCountsTargetsAlone) {
  NextItem step(softmax_graph(9, {.last_only = true}), 50, kLengths, 2);
  step.expect_matches([&](const std::vector<double>& x) { return softmax_loss(step, x, true); });
}

// The last behaviour's own vector, as a tensor of the group.
TEST(NextSoftmax, StatesOfGroupsServeAsLastStates) {
  Graph graph({{"item", 0, 6, true}}, 0);
  const TensorId target = embedding(graph, "target", Source::kTarget, {0});
  const TensorId history = embedding(graph, "history", Source::kHistory, {0});
  const TensorId last = vertical_convolution(graph, "last", history, 1, 1);
  graph.set_logits(score_candidates(graph, "score", last, target));
  next_softmax_loss(graph, "loss", last, 0);
  rank_target(graph, "rank", last, 0);
  graph.finish();
  NextItem step(std::move(graph), 420, kLengths, 1);
  step.dense = {1.0f};
  step.expect_matches([&](const std::vector<double>& x) { return softmax_loss(step, x, true); });
  EXPECT_EQ(step.ranks(), naive_ranks(step));
}

TEST(NextSoftmax, ManyPositionsAreWorkedInBlocks) {
  std::vector<std::int32_t> lengths;
  for (std::int32_t n = 40; n > 0; --n) lengths.push_back(n);
  NextItem step(softmax_graph(5, {}), 60, {lengths, lengths}, 1);
  step.expect_matches([&](const std::vector<double>& x) { return softmax_loss(step, x, false); });
}

// log(exp(s+) + sum over draws that are not the positive of exp(s) / expected) - s+.
double sampled_loss(const NextItem& step, const std::vector<double>& table) {
  const std::int32_t d = step.width;
  double sum = 0;
  int count = 0;
  step.for_positions([&](const PartInput&, std::uint32_t key, std::uint32_t next, std::int32_t,
                         bool) {
    const double positive = dot(&table[key * d], &table[next * d], d);
    double total = std::exp(positive);
    for (std::size_t i = 0; i < step.catalogue.rows.size(); ++i) {
      const std::uint32_t item = step.catalogue.rows[i];
      if (item == next) continue;
      total += std::exp(dot(&table[key * d], &table[item * d], d) - step.catalogue.log_expected[i]);
    }
    sum += std::log(total) - positive;
    ++count;
  });
  return sum / count;
}

TEST(NextSoftmax, SampledFormWeighsDrawsAndLeavesOutHits) {
  NextItem step(softmax_graph(8, {.catalogue = Graph::CatalogueUse::kDrawn}), 30, kLengths, 1);
  Rng rng(5);
  std::vector<std::uint32_t> drawn(25);  // some twice, and some are positives
  std::vector<float> log_expected(drawn.size());
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    drawn[i] = static_cast<std::uint32_t>(rng.below(30));
    log_expected[i] = -2 + 0.1f * static_cast<float>(drawn[i]);
  }
  step.catalogue = {drawn, log_expected};
  step.expect_matches([&](const std::vector<double>& x) { return sampled_loss(step, x); });
}

TEST(NextSoftmax, HugeScoresNeitherOverflowNorVanish) {
  NextItem step(softmax_graph(4, {}), 800, {{3, 2}}, 1);
  for (float& x : step.table) x *= 40;  // scores of some thousand
  const double loss = step.train();
  const double expected =
      softmax_loss(step, std::vector<double>(step.table.begin(), step.table.end()), false);
  // In float64 the naive sum overflows; positives are beaten by a lot, so the loss is large.
  EXPECT_TRUE(std::isfinite(loss));
  EXPECT_GT(loss, 100);
  EXPECT_FALSE(std::isfinite(expected));
  for (float x : step.dtable) ASSERT_TRUE(std::isfinite(x));
}

TEST(NextSoftmax, ThreadsLeaveEveryBitAsItIs) {
  NextItem step(softmax_graph(20, {}), 1000, {{9, 8, 8, 3, 1}, {12, 4, 4}}, 1);
  for (const Precision precision : {Precision::kF32, Precision::kMixed}) {
    InlineExecutor alone;
    const double loss = step.train(alone, precision);
    const std::vector<float> gradient = step.dtable;
    ThreadPool pool(3);
    ThreadExecutor threads(pool, [](auto) {});
    EXPECT_EQ(step.train(threads, precision), loss);
    EXPECT_EQ(step.dtable, gradient);
  }
}

// A width of 4 is padded more in mixed precision than in float32.
TEST(NextSoftmax, MixedPrecisionHasItsOwnSizes) {
  NextItem step(softmax_graph(4, {}), 6, {{5, 3, 1}, {2}}, 2);
  InlineExecutor executor;
  const double loss = step.train(executor);
  EXPECT_NEAR(step.train(executor, Precision::kMixed), loss, 0.02 * loss);
}

TEST(NextSoftmax, MixedPrecisionIsNearFloat32) {
  NextItem step(softmax_graph(32, {}), 700, {{9, 8, 8, 3, 1}}, 1);
  InlineExecutor executor;
  const double loss = step.train(executor);
  const std::vector<float> gradient = step.dtable;
  EXPECT_NEAR(step.train(executor, Precision::kMixed), loss, 0.02 * loss);
  double apart = 0, size = 0;
  for (std::size_t i = 0; i < gradient.size(); ++i) {
    apart += std::pow(gradient[i] - step.dtable[i], 2);
    size += std::pow(gradient[i], 2);
  }
  EXPECT_LT(std::sqrt(apart / size), 0.02);
}

TEST(RankTarget, IsThePlaceAmongEveryItem) {
  for (const std::int32_t items : {5, 384, 1000}) {
    NextItem step(softmax_graph(6, {}), items, kLengths, 3);
    EXPECT_EQ(step.ranks(), naive_ranks(step));
  }
}

TEST(RankTarget, ManyGroupsAreWorkedInBlocks) {
  NextItem step(softmax_graph(6, {}), 500,
                {std::vector<std::int32_t>(200, 2), std::vector<std::int32_t>(150, 1)}, 1);
  EXPECT_EQ(step.ranks(), naive_ranks(step));
}

TEST(RankTarget, LeavesOutWhatTheGroupHasSeenButNotTheTarget) {
  NextItem step(softmax_graph(6, {}), 500, {{4, 2, 1}}, 1);
  const std::vector<float> before = step.ranks();
  std::vector<std::uint32_t> seen, begin = {0};
  for (std::uint32_t g = 0; g < 3; ++g) {
    for (std::uint32_t place = g; place < 500; place += 2) seen.push_back(place);
    const std::uint32_t target = step.parts[0].columns[static_cast<int>(Source::kTarget)][0][g];
    seen.push_back(499 - target);
    begin.push_back(static_cast<std::uint32_t>(seen.size()));
  }
  step.parts[0].seen = seen;
  step.parts[0].seen_begin = begin;
  EXPECT_EQ(step.ranks(), naive_ranks(step));
  EXPECT_NE(step.ranks(), before);
}

TEST(RankTarget, TiesCountHalfAndNonsenseComesLast) {
  NextItem step(softmax_graph(7, {}), 400, {{3, 1}}, 1);
  Rng rng(3);
  std::vector<float> row(7);
  for (float& x : row) x = static_cast<float>(rng.uniform());
  for (std::size_t i = 0; i < step.table.size(); ++i) step.table[i] = row[i % 7];
  EXPECT_EQ(step.ranks(), (std::vector<float>{199, 199}));  // 399 others
  std::ranges::fill(step.table, std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(step.ranks(), (std::vector<float>{399, 399}));
}

TEST(NextBce, MatchesItsFormula) {
  NextItem step(bce_graph(10), 40, kLengths, 2);
  step.expect_matches([&](const std::vector<double>& table) {
    const std::int32_t d = step.width;
    double sum = 0;
    int count = 0;
    step.for_positions([&](const PartInput& part, std::uint32_t key, std::uint32_t positive,
                           std::int32_t next, bool last) {
      if (!last && part.negative_valid[next] == 0) return;
      const std::uint32_t negative =
          last ? part.columns[static_cast<int>(Source::kTarget)][0][next + 1]
               : part.columns[static_cast<int>(Source::kNegative)][0][next];
      const auto softplus = [](double x) { return std::log1p(std::exp(x)); };
      sum += softplus(-dot(&table[key * d], &table[positive * d], d)) +
             softplus(dot(&table[key * d], &table[negative * d], d));
      ++count;
    });
    return sum / count;
  });
}

TEST(ScoreCandidates, MatchesDotProductsWithTheLastState) {
  for (const Rows rows : {Rows::kHistory, Rows::kGroup}) {
    OpHarness harness({4, 4, 2, 1}, 3);
    const TensorId states = harness.input(rows, 6), items = harness.input(Rows::kSample, 6);
    const TensorId scores = score_candidates(harness.graph, "score", states, items);
    harness.build({scores});
    harness.expect_matches([&](OpHarness::Numbers& x) {
      for (std::int32_t i = 0; i < 12; ++i) {
        const std::int32_t g = i / 3;
        const std::int32_t row =
            rows == Rows::kGroup ? g : harness.row(harness.lengths()[g] - 1, g);
        x.tensors[scores][i] = dot(&x.tensors[states][row * 6], &x.tensors[items][i * 6], 6);
      }
      return 0.0;
    });
  }
}

}  // namespace
}  // namespace meander::nn
