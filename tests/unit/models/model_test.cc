// SPDX-License-Identifier: Apache-2.0
#include "models/model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <numeric>
#include <span>

#include "common/executor.h"
#include "nn/neighbourhood.h"
#include "nn/sparse.h"
#include "tests/jagged_batch.h"

namespace meander::models {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::HasSubstr;

constexpr std::uint32_t kKeys = 6;

ModelSpec spec_of(const std::string& kind) {
  ModelSpec spec;
  spec.kind = kind;
  spec.slots = {{"item", 0, 4, true}, {"category", 1, 3, true}, {"user", 2, 2, false}};
  spec.numeric_features = 2;
  spec.hidden = 5;
  spec.attention = {7, 4};
  spec.head = {9, 6};
  // What these read, so that every row takes part.
  if (kind == "mf") spec.slots = {{"item", 0, 4, true}, {"user", 1, 4, false}};
  if (kind == "next") spec.slots.pop_back();
  if (kind == "sasrec") spec.slots.resize(1);
  if (kind == "sasrec") spec.loss = "bce";
  if (kind == "mf" || kind == "next" || kind == "sasrec") spec.numeric_features = 0;
  if (graph_of(kind) == GraphKind::kNone) return spec;
  spec.slots = {{"item", 0, 4, true}, {"user", 1, 4, false}};
  std::vector<nn::SparseEntry> edges;
  for (std::uint32_t n = 0; n < kKeys; ++n) {
    edges.insert(edges.end(), {{n, n}, {n, n / 2}, {n / 2, n}});
  }
  spec.adjacency = spec.features = std::make_shared<const nn::SparseMatrix>(
      nn::symmetrically_normalised(nn::sparse_matrix(kKeys, kKeys, edges)));
  if (graph_of(kind) == GraphKind::kNodes) spec.classes = kKeys;
  return spec;
}

// Users and items, kKeys of each, as nodes around any batch of four groups of two candidates.
struct SmallNeighbourhood {
  SmallNeighbourhood() {
    std::vector<nn::SparseEntry> links, of_items, of_users;
    for (std::uint32_t n = 0; n < kKeys; ++n) {
      const auto item = [](std::uint32_t i) { return kKeys + i % kKeys; };
      links.insert(links.end(), {{n, item(n), 0.5f}, {n, item(n + 2), 0.5f}, {item(n), n, 1}});
      of_users.push_back({n, n, 1});
      of_items.push_back({item(n), n, 1});
    }
    constexpr std::int32_t kAll = 2 * kKeys;
    for (int hop = 0; hop < 2; ++hop) matrices.push_back(nn::sparse_matrix(kAll, kAll, links));
    for (const auto& rows : {of_items, of_users}) {
      matrices.push_back(nn::sparse_matrix(kAll, kKeys, rows));
    }
    view = {nodes,
            {matrices[0].view(), matrices[1].view()},
            {matrices[2].view(), matrices[3].view()},
            users,
            items};
  }
  std::vector<std::int32_t> nodes = {2 * kKeys, 2 * kKeys, 2 * kKeys};
  std::vector<nn::SparseMatrix> matrices;
  std::vector<std::uint32_t> users = {0, 1, 2, 5}, items = {6, 7, 8, 9, 10, 11, 6, 8};
  nn::Neighbourhood view;
};

nn::Graph build(const ModelSpec& spec) {
  Result<nn::Graph> graph = build_model(spec);
  CHECK(graph.ok()) << graph.status().message();
  return std::move(graph).value();
}

// One training step of a model on random rows, or on rows of one value.
struct Step {
  explicit Step(const ModelSpec& spec, std::optional<float> row_value = {},
                nn::Precision precision = nn::Precision::kF32)
      : graph(build(spec)) {
    Rng rng(3);
    const auto in_history = std::ranges::count_if(graph.slots(), &nn::SlotSpec::in_history);
    const auto groups = [&](const std::vector<std::int32_t>& lengths) {
      return random_groups(rng, lengths, 2, {kKeys, kKeys, kKeys},
                           std::max<std::size_t>(2, in_history), 2);
    };
    batch = std::make_unique<JaggedBatch>(
        std::vector<std::vector<JaggedGroup>>{groups({1, 5, 3}), groups({2})});
    for (std::int32_t t = 0; t < graph.tables(); ++t) {
      const std::int32_t width = graph.table_width(t), keys = kKeys;
      tables.emplace_back(kKeys * width);
      for (float& x : tables[t]) x = row_value.value_or(static_cast<float>(rng.uniform() - 0.5));
      dtables.emplace_back(kKeys * width);
      rows.push_back({tables[t].data(), keys, width, width});
      drows.push_back({dtables[t].data(), graph.is_frozen(t) ? 0 : keys, width, width});
    }
    dense = graph.initial_dense(1);
    ddense.resize(dense.size());
    logits.resize(8);
    output = {drows, ddense, logits};
    InlineExecutor executor;
    nn::Session session(graph, precision);
    std::iota(all_keys.begin(), all_keys.end(), 0u);
    catalogues.resize(tables.size());
    for (std::size_t t = 0; t < tables.size(); ++t) {
      const auto use = graph.catalogue(static_cast<std::int32_t>(t), true);
      if (use != nn::Graph::CatalogueUse::kNone) catalogues[t].rows = all_keys;
      if (use == nn::Graph::CatalogueUse::kDrawn) catalogues[t].log_expected = log_expected;
    }
    const SmallNeighbourhood around;
    const bool draws = graph_of(spec.kind) == GraphKind::kDrawn;
    session.train({batch->inputs(), rows, dense, catalogues, 5, draws ? &around.view : nullptr},
                  executor, output);
  }

  nn::Graph graph;
  std::unique_ptr<JaggedBatch> batch;
  std::vector<std::vector<float>> tables, dtables;
  std::vector<nn::Catalogue> catalogues;
  std::vector<nn::ConstMatrix> rows;
  std::vector<nn::Matrix> drows;
  std::vector<float> dense, ddense, logits;
  std::vector<std::uint32_t> all_keys = std::vector<std::uint32_t>(kKeys);
  std::vector<float> log_expected = std::vector<float>(kKeys, -0.5f);
  nn::StepOutput output;
};

void expect_invalid(const ModelSpec& spec, const std::string& what) {
  const Result<nn::Graph> graph = build_model(spec);
  ASSERT_FALSE(graph.ok()) << what;
  EXPECT_EQ(graph.status().code(), Code::kInvalid);
  EXPECT_THAT(graph.status().message(), HasSubstr(what));
}

TEST(Models, AreTheFilesOfTheFolderSorted) {
  const std::vector<std::string> kinds = model_kinds();
  EXPECT_TRUE(std::ranges::is_sorted(kinds));
  for (const char* kind : {"counting", "dnn", "lstm", "din", "dien", "next", "mf", "caser"}) {
    EXPECT_THAT(kinds, Contains(kind));
  }
}

TEST(Models, EachTrainsAStepInWhichEveryRowAndParameterTakesPart) {
  for (const std::string& kind : model_kinds()) {
    if (kind == "counting") continue;
    SCOPED_TRACE(kind);
    const Step step(spec_of(kind));
    EXPECT_GT(step.output.loss, 0);
    EXPECT_TRUE(std::isfinite(step.output.loss));
    for (const std::vector<float>& dtable : step.dtables) {
      // Rows only name the nodes of a graph of nodes.
      if (graph_of(kind) != GraphKind::kNodes) EXPECT_THAT(dtable, Contains(::testing::Ne(0.0f)));
    }
    for (const nn::ParamSpec& spec : step.graph.params()) {
      // A softmax does not feel a shift of its scores.
      if (spec.name == "attention/dense3/bias") continue;
      const std::span<const float> gradient =
          std::span(step.ddense).subspan(spec.offset, spec.rows * spec.cols);
      EXPECT_TRUE(std::ranges::any_of(gradient, [](float x) { return x != 0; })) << spec.name;
    }
  }
}

double norm(std::span<const float> x) {
  return std::sqrt(std::inner_product(x.begin(), x.end(), x.begin(), 0.0));
}
double distance(std::span<const float> x, std::span<const float> y) {
  std::vector<float> rest(x.size());
  std::ranges::transform(x, y, rest.begin(), std::minus<>());
  return norm(rest);
}

// bfloat16 keeps 8 bits: an operand is off by up to 1/512, a sum of products by about as much.
TEST(Models, MixedPrecisionComesCloseToFloat32) {
  constexpr double kClose = 0.03;
  for (const std::string& kind : model_kinds()) {
    if (kind == "counting") continue;
    SCOPED_TRACE(kind);
    const Step exact(spec_of(kind)), mixed(spec_of(kind), {}, nn::Precision::kMixed);
    EXPECT_NEAR(mixed.output.loss, exact.output.loss, 0.005 * exact.output.loss);
    EXPECT_LT(distance(mixed.logits, exact.logits), kClose * norm(exact.logits) + 0.005);
    EXPECT_LE(distance(mixed.ddense, exact.ddense), kClose * norm(exact.ddense));
    for (std::size_t t = 0; t < exact.dtables.size(); ++t) {
      EXPECT_LE(distance(mixed.dtables[t], exact.dtables[t]), kClose * norm(exact.dtables[t])) << t;
    }
  }
}

TEST(Models, MovingDiceAddsStatisticsAndTrainsTheSame) {
  ModelSpec spec = spec_of("dnn");
  const Step published(spec);
  spec.dice = "moving";
  const Step moving(spec);
  EXPECT_EQ(published.graph.dense_size(), published.graph.dense_trained());
  EXPECT_EQ(moving.graph.dense_size(), moving.graph.dense_trained() + 2 * (9 + 6));
  EXPECT_EQ(moving.logits, published.logits);
}

TEST(Models, SecondHeadReadsWhatTheFirstReadsAndTrainsItToo) {
  for (const char* kind : {"bst", "caser", "decay", "dien", "din", "dnn", "lstm"}) {
    SCOPED_TRACE(kind);
    ModelSpec spec = spec_of(kind);
    const Step alone(spec);
    EXPECT_EQ(alone.graph.second_logits(), nn::kNoTensor);
    spec.second_weight = 0.5f;
    const Step both(spec);
    EXPECT_EQ(both.logits, alone.logits) << "the first head is as it was";
    EXPECT_GT(both.output.loss, alone.output.loss);
    for (std::size_t t = 0; t < both.dtables.size(); ++t) {
      EXPECT_NE(both.dtables[t], alone.dtables[t]) << "table " << t;
    }
    for (const nn::ParamSpec& param : both.graph.params()) {
      if (!param.name.starts_with("second/")) continue;
      const std::span<const float> gradient =
          std::span(both.ddense).subspan(param.offset, param.rows * param.cols);
      EXPECT_TRUE(std::ranges::any_of(gradient, [](float x) { return x != 0; })) << param.name;
    }
    spec.click_weight = 0;  // stays alone
    const Step stays(spec);
    for (const nn::ParamSpec& param : stays.graph.params()) {
      if (!param.name.starts_with("head/")) continue;
      EXPECT_THAT(std::span(stays.ddense).subspan(param.offset, param.rows * param.cols),
                  Each(0.0f));
    }
  }
}

TEST(Models, SecondHeadIsRefusedWhereThereIsNone) {
  for (const char* kind : {"next", "mf", "sasrec", "counting"}) {
    ModelSpec spec = spec_of(kind);
    spec.second_weight = 1;
    expect_invalid(spec, "has no head for a second label");
  }
  ModelSpec spec = spec_of("lstm");
  spec.layers = 2;
  spec.second_weight = 1;
  expect_invalid(spec, "has no head for a second label");
  spec = spec_of("din");
  spec.click_weight = 0;
  expect_invalid(spec, "give second_weight");
  spec.second_weight = -1;
  expect_invalid(spec, "second_weight");
}

TEST(Models, OnlyTheAuxiliaryLossAsksForNegatives) {
  ModelSpec spec = spec_of("dien");
  EXPECT_TRUE(build(spec).needs_negatives());
  spec.auxiliary_weight = 0;
  EXPECT_FALSE(build(spec).needs_negatives());
  EXPECT_FALSE(build(spec_of("din")).needs_negatives());
}

TEST(Sasrec, AsksForWhatItsLossReads) {
  using enum nn::Graph::CatalogueUse;
  ModelSpec spec = spec_of("sasrec");
  EXPECT_TRUE(build(spec).needs_negatives());
  EXPECT_EQ(build(spec).catalogue(0, true), kNone);
  spec.loss = "softmax";
  EXPECT_FALSE(build(spec).needs_negatives());
  EXPECT_EQ(build(spec).catalogue(0, true), kAll);
  spec.loss = "sampled";
  EXPECT_EQ(build(spec).catalogue(0, true), kDrawn);
  EXPECT_EQ(build(spec).catalogue(0, false), kAll) << "ranks are among every item";
}

TEST(Sasrec, DropoutIsForTraining) {
  for (const char* kind : {"sasrec", "bst"}) {
    ModelSpec spec = spec_of(kind);
    const Step without(spec);
    spec.dropout = 0.5f;
    const Step with(spec);
    EXPECT_NE(with.output.loss, without.output.loss);
    InlineExecutor executor;
    std::vector<float> scores(8), dropped(8);
    nn::Session(without.graph)
        .infer({without.batch->inputs(), without.rows, without.dense}, executor, scores);
    nn::Session(with.graph).infer({with.batch->inputs(), with.rows, with.dense}, executor, dropped);
    EXPECT_EQ(scores, dropped);
  }
}

TEST(Models, AuxiliaryLossIsAMeanOverPaddedStepsOrOverRealOnes) {
  ModelSpec spec = spec_of("dien");
  const double padded = Step(spec).output.loss;
  spec.auxiliary_mean = "real";
  const Step real(spec);
  spec.auxiliary_weight = 0;
  const double without = Step(spec).output.loss;
  double rows = 0;
  for (const nn::PartInput& part : real.batch->inputs()) {
    for (float valid : part.negative_valid) rows += valid;  // none of a first step is
  }
  EXPECT_LT(rows, 4 * (5 - 1)) << "nothing is padded";
  EXPECT_NEAR((padded - without) * 4 * (5 - 1), (real.output.loss - without) * rows, 1e-4);
}

TEST(Next, EachCellLearnsByEachLoss) {
  for (const char* cell : {"gru", "lstm"}) {
    for (const char* loss : {"softmax", "sampled", "bce"}) {
      ModelSpec spec = spec_of("next");
      spec.cell = cell;
      spec.loss = loss;
      const Step step(spec);
      EXPECT_GT(step.output.loss, 0) << cell << loss;
      EXPECT_THAT(step.dtables[0], Contains(::testing::Ne(0.0f))) << cell << loss;
      EXPECT_EQ(step.graph.needs_negatives(), loss == std::string("bce"));
      EXPECT_NE(step.graph.ranks(), nn::kNoTensor);
      spec.dropout = 0.5f;
      EXPECT_NE(Step(spec).output.loss, step.output.loss) << cell << loss;
    }
  }
}

TEST(MatrixFactorisation, NeedsAUserAndNoHistory) {
  ModelSpec spec = spec_of("mf");
  spec.slots.pop_back();
  expect_invalid(spec, "no slot is of the user");
  spec.slots.push_back({"user", 1, 3, false});
  expect_invalid(spec, "of one width");
  const nn::Graph graph = build(spec_of("mf"));
  for (const nn::TensorSpec& tensor : graph.tensor_specs()) {
    EXPECT_NE(tensor.rows, nn::Rows::kHistory);
  }
}

TEST(Counting, GivesEachRowMinusOneForEachSampleThatHasItsKey) {
  const Step step(spec_of("counting"), 0.0f);
  for (std::size_t slot = 0; slot < 3; ++slot) {
    std::vector<float> expected(step.dtables[slot].size(), 0.0f);
    const std::int32_t width = step.graph.table_width(static_cast<std::int32_t>(slot));
    for (const nn::PartInput& part : step.batch->inputs()) {
      for (std::uint32_t key : part.columns[static_cast<int>(nn::Source::kTarget)][slot]) {
        for (std::int32_t c = 0; c < width; ++c) expected[key * width + c] -= 1;
      }
    }
    EXPECT_EQ(step.dtables[slot], expected);
  }
  EXPECT_THAT(step.logits, Each(0.0f));
}

TEST(Models, OfGraphsRefuseToBeWithoutOneOrOnOtherSlots) {
  ModelSpec spec = spec_of("lightgcn");
  spec.layers = 9;
  expect_invalid(spec, "layers is 9: must be 1 to 8");
  spec = spec_of("lightgcn");
  spec.adjacency = nullptr;
  expect_invalid(spec, "there is no graph here");
  spec.adjacency = std::make_shared<const nn::SparseMatrix>(nn::sparse_matrix(2, 2, {}));
  expect_invalid(spec, "no edges");
  spec.slots[1].name = "device";
  expect_invalid(spec, "slots must be item and user");
  spec = spec_of("lightgcn");
  spec.slots = {{"item", 0, 4, true}, {"user", 1, 5, false}};
  expect_invalid(spec, "of one width");
  spec = spec_of("gcn");
  spec.features = nullptr;
  expect_invalid(spec, "no words");
  spec = spec_of("gcn");
  spec.classes = 0;
  expect_invalid(spec, "no classes");
  spec = spec_of("graphsage");
  spec.classes = 3;
  expect_invalid(spec, "slots must be item and word");
  spec.slots[1].name = "word";
  expect_invalid(spec, "embedding is 4: must be twice model.hidden");
  spec = spec_of("graphsage");
  spec.fanout = {};
  expect_invalid(spec, "fanout has 0 hops");
  spec.fanout = {10, 0};
  expect_invalid(spec, "fanout is 0: must be 1 to 1000");
}

TEST(Models, UnknownKindNamesTheNearest) {
  expect_invalid(spec_of("lstn"), "unknown model 'lstn': did you mean 'lstm'?");
  expect_invalid(spec_of("transformer"), "there is bst, caser, counting, ");
}

TEST(Models, RefuseFieldsOutOfRange) {
  const auto with = [](auto change) {
    ModelSpec spec = spec_of("dien");
    change(spec);
    return spec;
  };
  expect_invalid(with([](ModelSpec& s) { s.hidden = 0; }), "model dien: hidden is 0");
  expect_invalid(with([](ModelSpec& s) { s.layers = 3; }), "layers is 3");
  expect_invalid(with([](ModelSpec& s) { s.head = {}; }), "head is empty");
  expect_invalid(with([](ModelSpec& s) { s.attention = {80, -1}; }), "attention is -1");
  expect_invalid(with([](ModelSpec& s) { s.attention = {80}; }), "attention has 1 hidden layers");
  expect_invalid(with([](ModelSpec& s) { s.activation = "selu"; }), "dice, prelu, relu");
  expect_invalid(with([](ModelSpec& s) { s.dice = "none"; }), "batch, moving");
  expect_invalid(with([](ModelSpec& s) { s.auxiliary_mean = "all"; }), "padded, real");
  expect_invalid(with([](ModelSpec& s) { s.auxiliary_weight = std::nanf(""); }),
                 "auxiliary_weight");
  expect_invalid(with([](ModelSpec& s) { s.l2 = -1; }), "l2 must be 0 or more");
  expect_invalid(with([](ModelSpec& s) { s.l2 = 1; }), "model.l2 is of mf");
  expect_invalid(with([](ModelSpec& s) { s.kind = "bst", s.positions = 0; }), "positions is 0");
  expect_invalid(with([](ModelSpec& s) { s.heads = 4; }), "heads is 4: must divide the width 7");
  expect_invalid(with([](ModelSpec& s) { s.kind = "sasrec", s.heads = 3; }), "divide the width 4");
  expect_invalid(with([](ModelSpec& s) { s.numeric_features = -1; }), "numeric_features is -1");
}

// What is left of a model that reads content in place of, or beside, rows that it learns.
TEST(Models, TrainOnContentAloneOrBesideLearntRows) {
  const std::vector<nn::SlotSpec> alone = {{"content", 0, 8, true, true}},
                                  projected = {{"content", 0, 8, true, true, 5}},
                                  beside = {{"item", 0, 4, true},
                                            {"category", 1, 3, true},
                                            {"content", 2, 8, true, true, 5}};
  for (const std::string& kind : model_kinds()) {
    // Graphs have nodes, and models of the next item learn rows of items.
    const bool learns_items = kind == "sasrec" || kind == "next" || kind == "mf";
    if (kind == "counting" || learns_items || graph_of(kind) != GraphKind::kNone) continue;
    for (const auto& slots : {alone, projected, beside}) {
      SCOPED_TRACE(kind + ", " + std::to_string(slots.size()));
      ModelSpec spec = spec_of(kind);
      spec.slots = slots;
      spec.numeric_features = 0;
      // DIEN's auxiliary loss compares a state with a behaviour.
      spec.hidden = 0;
      for (const nn::SlotSpec& slot : slots) spec.hidden += slot.columns();
      const Step step(spec);
      EXPECT_GT(step.output.loss, 0);
      EXPECT_TRUE(std::isfinite(step.output.loss));
      for (std::int32_t t = 0; t < step.graph.tables(); ++t) {
        if (step.graph.is_frozen(t)) {
          EXPECT_THAT(step.dtables[t], Each(0.0f));
        } else {
          EXPECT_THAT(step.dtables[t], Contains(::testing::Ne(0.0f)));
        }
      }
      for (const nn::ParamSpec& param : step.graph.params()) {
        if (!param.name.starts_with("content/")) continue;
        const auto gradient =
            std::span(step.ddense).subspan(param.offset, std::size_t(param.rows) * param.cols);
        EXPECT_THAT(gradient, Contains(::testing::Ne(0.0f))) << param.name;
      }
    }
  }
}

TEST(Models, OfTheNextItemNeedRowsThatTheyLearn) {
  ModelSpec spec = spec_of("sasrec");
  spec.slots = {{"content", 0, 8, true, true}};
  expect_invalid(spec, "name item first");
}

TEST(Models, HeadsDivideWhatContentIsBroughtTo) {
  ModelSpec spec = spec_of("bst");
  spec.slots = {{"item", 0, 3, true}, {"content", 1, 8, true, true, 5}};
  spec.heads = 3;
  expect_invalid(spec, "heads is 3: must divide the width 8");
}

TEST(Models, RefuseSlotsThatDoNotFit) {
  const auto with = [](std::vector<nn::SlotSpec> slots) {
    ModelSpec spec = spec_of("dnn");
    spec.slots = std::move(slots);
    return spec;
  };
  expect_invalid(with({}), "needs a slot that is in the history");
  expect_invalid(with({{"user", 0, 4, false}}), "needs a slot that is in the history");
  expect_invalid(with({{"item", 0, 4, true}, {"user", 1, 4, false}, {"shop", 2, 4, true}}), "shop");
  expect_invalid(with({{"item", 0, 4, true}, {"item", 1, 4, true}}), "'item' is there twice");
  expect_invalid(with({{"item", 0, 0, true}}), "width is 0");
  expect_invalid(with({{"item", 0, 4, true}, {"twin", 0, 5, true}}), "rows of 4");
  expect_invalid(with({{"item", 1, 4, true}, {"twin", 1, 4, true}}), "table 0");
  expect_invalid(with({{"item", 7, 4, true}}), "table 7 is out of range");
  expect_invalid(with({{"item", 0, 4, true}, {"content", 0, 4, true, true}}), "trained and frozen");
  expect_invalid(with({{"item", 0, 4, true, false, 2}}), "rows that are not trained");
}

}  // namespace
}  // namespace meander::models
