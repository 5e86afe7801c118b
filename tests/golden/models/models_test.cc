// SPDX-License-Identifier: Apache-2.0
// Each model against an independent one in PyTorch (tools/make_fixtures.py, float64).
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>

#include "common/executor.h"
#include "models/model.h"
#include "nn/ops/click.h"
#include "tests/golden/models/fixture.h"

namespace meander::models {
namespace {

// We compute in float32: seven digits, of which long sums and gates (exact to 3e-7) take two.
constexpr double kLogitTolerance = 1e-5;
constexpr double kLossTolerance = 1e-6;
// Relative to the largest gradient of the same parameter or table: each is a sum of terms that
// partly cancel, so its rounding is that of the terms.
constexpr double kGradientTolerance = 2e-5;
// A softmax does not feel a shift of its scores, so the last bias of attention has a gradient of 0.
constexpr double kGradientFloor = 1e-8;
// Ten steps of Adam: a gradient that is almost 0 moves its weight by up to the rate, in the
// direction of its sign, which is rounding. Such weights matter as little as their gradients.
constexpr double kTenStepsTolerance = 2e-5;

ModelSpec spec_of(const std::string& name, const Fixture& fixture) {
  const std::vector<double>& widths = fixture.at("widths").values;
  ModelSpec spec;
  const std::size_t variant = name.find('_');
  spec.kind = name == "lstm2" ? "lstm" : name.substr(0, variant);
  if (name == "next_bce") spec.cell = "lstm";
  if (name.ends_with("_second")) {
    spec.click_weight = 0.75f;
    spec.second_weight = 0.5f;
  } else if (spec.kind == "dien" && variant != std::string::npos) {
    spec.evolution = name.substr(variant + 1);
  }
  spec.layers = name == "lstm2" ? 2 : 1;
  spec.slots = {{"item", 0, static_cast<std::int32_t>(widths[0]), true},
                {"category", 1, static_cast<std::int32_t>(widths[1]), true}};
  spec.hidden = 8;
  spec.attention = {12, 6};
  spec.head = {16, 8};
  if (name != "next") spec.loss = "bce";
  spec.positions = 6;
  if (name == "sasrec" || name == "bst") spec.heads = 2;
  return spec;
}

// One table: rows, their gradients, and what lazy Adam keeps of each row.
struct Table {
  std::vector<float> rows, gradient, m, v;
  std::int32_t width = 0;
};

// Adam, rate 1e-3, on one value; `step` counts from 1.
void adam(int step, float gradient, float& m, float& v, float& x) {
  m = 0.9f * m + 0.1f * gradient;
  v = 0.999f * v + 0.001f * gradient * gradient;
  const double scale = std::sqrt(1 - std::pow(0.999, step)) / (1 - std::pow(0.9, step));
  x -= static_cast<float>(1e-3 * scale * m / (std::sqrt(v) + 1e-8));
}

class GoldenModel : public ::testing::TestWithParam<const char*> {
 protected:
  GoldenModel()
      : fixture_(GetParam()), graph_(build()), session_(graph_), dense_(graph_.dense_size()) {
    for (const nn::ParamSpec& spec : graph_.params()) load(spec);
    for (int t = 0; t < 2; ++t) {
      tables_[t].rows = fixture_.at("table/" + std::to_string(t)).floats();
      tables_[t].width = graph_.table_width(t);
      for (auto* state : {&tables_[t].gradient, &tables_[t].m, &tables_[t].v}) {
        state->assign(tables_[t].rows.size(), 0.0f);
      }
    }
    ddense_.resize(dense_.size());
  }

  nn::Graph build() const {
    Result<nn::Graph> graph = build_model(spec_of(GetParam(), fixture_));
    CHECK(graph.ok()) << graph.status().message();
    return std::move(graph).value();
  }

  void load(const nn::ParamSpec& spec) {
    const Fixture::Array& array = fixture_.at("param/" + spec.name);
    ASSERT_EQ(array.shape, (std::vector<std::int32_t>{spec.rows, spec.cols})) << spec.name;
    const std::vector<float> values = array.floats();
    std::copy(values.begin(), values.end(), dense_.begin() + spec.offset);
  }

  // Runs one step on batch `b`, cut into parts of these many groups; logits by group of the file.
  nn::StepOutput train(int b, const std::vector<std::size_t>& part_sizes) {
    const std::vector<JaggedGroup> groups = fixture_.groups(b);
    std::vector<std::vector<JaggedGroup>> parts;
    std::size_t first = 0;
    for (std::size_t size : part_sizes) {
      parts.emplace_back(groups.begin() + first, groups.begin() + first + size);
      first += size;
    }
    CHECK_EQ(first, groups.size());
    const JaggedBatch batch(std::move(parts));
    std::vector<nn::ConstMatrix> rows;
    std::vector<nn::Matrix> gradients;
    for (Table& table : tables_) {
      const auto n = static_cast<std::int32_t>(table.rows.size()) / table.width;
      rows.push_back({table.rows.data(), n, table.width, table.width});
      gradients.push_back({table.gradient.data(), n, table.width, table.width});
    }
    const std::size_t k = groups[0].label.size();
    std::vector<float> logits(groups.size() * k);
    nn::StepOutput output{gradients, ddense_, logits};
    InlineExecutor executor;
    std::vector<std::uint32_t> items(tables_[0].rows.size() / tables_[0].width);
    std::iota(items.begin(), items.end(), 0u);
    const nn::Catalogue catalogues[2] = {{.rows = items, .log_expected = {}}, {}};
    session_.train({batch.inputs(), rows, dense_, catalogues}, executor, output);
    const auto in_order = [&](std::span<const float> from, std::vector<float>& to) {
      to.resize(from.size());
      if (from.empty()) return;
      const std::vector<std::size_t> order = batch.order();
      for (std::size_t g = 0; g < order.size(); ++g) {
        std::copy_n(from.begin() + g * k, k, to.begin() + order[g] * k);
      }
    };
    in_order(logits, logits_);
    in_order(nn::second_logits(graph_, session_), second_logits_);
    return output;
  }

  // The rows of a table that batch `b` looks up.
  std::set<std::uint32_t> touched(int b, int table) const {
    std::set<std::uint32_t> rows;
    const bool is_whole = graph_.catalogue(table, true) != nn::Graph::CatalogueUse::kNone;
    const std::size_t keys = tables_[table].rows.size() / tables_[table].width;
    for (std::uint32_t row = 0; is_whole && row < keys; ++row) rows.insert(row);
    for (const JaggedGroup& group : fixture_.groups(b)) {
      rows.insert(group.target[table].begin(), group.target[table].end());
      rows.insert(group.history[table].begin(), group.history[table].end());
      for (std::size_t t = 0; graph_.needs_negatives() && t < group.valid.size(); ++t) {
        if (group.valid[t] != 0) rows.insert(group.negative[table][t]);
      }
    }
    return rows;
  }

  void update(int step) {
    m_.resize(dense_.size());
    v_.resize(dense_.size());
    for (std::size_t i = 0; i < dense_.size(); ++i) adam(step, ddense_[i], m_[i], v_[i], dense_[i]);
    for (int t = 0; t < 2; ++t) {
      Table& table = tables_[t];
      for (std::uint32_t row : touched(step - 1, t)) {
        for (std::size_t i = row * table.width; i < (row + 1u) * table.width; ++i) {
          adam(step, table.gradient[i], table.m[i], table.v[i], table.rows[i]);
        }
      }
    }
  }

  void expect_gradient(const std::string& name, std::span<const float> gradient) const {
    const std::vector<double>& expected = fixture_.at(name).values;
    ASSERT_EQ(gradient.size(), expected.size()) << name;
    double largest = 0;
    for (double x : expected) largest = std::max(largest, std::abs(x));
    const double tolerance = std::max(kGradientTolerance * largest, kGradientFloor);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(gradient[i], expected[i], tolerance) << name << " " << i;
    }
  }

  static void expect_logits(const std::vector<float>& logits, const std::vector<double>& expected) {
    ASSERT_EQ(logits.size(), expected.size());
    for (std::size_t i = 0; i < logits.size(); ++i) {
      EXPECT_NEAR(logits[i], expected[i], kLogitTolerance);
    }
  }

  void expect_step_matches(const std::vector<std::size_t>& part_sizes) {
    const nn::StepOutput output = train(0, part_sizes);
    expect_logits(logits_, fixture_.at("logits").values);
    if (fixture_.has("second_logits")) {
      expect_logits(second_logits_, fixture_.at("second_logits").values);
    }
    EXPECT_NEAR(output.loss, fixture_.at("loss").values[0], kLossTolerance);
    for (const nn::ParamSpec& spec : graph_.params()) {
      expect_gradient("dparam/" + spec.name,
                      std::span(ddense_).subspan(spec.offset, spec.rows * spec.cols));
    }
    for (int t = 0; t < 2; ++t) {
      expect_gradient("dtable/" + std::to_string(t), tables_[t].gradient);
    }
  }

  Fixture fixture_;
  nn::Graph graph_;
  nn::Session session_;
  std::vector<float> dense_, ddense_, m_, v_, logits_, second_logits_;
  Table tables_[2];
};

TEST_P(GoldenModel, HasTheParametersOfTheReference) {
  std::vector<std::string> names;
  for (const nn::ParamSpec& spec : graph_.params()) names.push_back(spec.name);
  std::ranges::sort(names);
  EXPECT_EQ(names, fixture_.names("param/"));
}

TEST_P(GoldenModel, LogitsLossAndEveryGradientMatchReference) { expect_step_matches({7}); }

TEST_P(GoldenModel, TheSameInFourParts) { expect_step_matches({3, 1, 0, 3}); }

TEST_P(GoldenModel, LossesOfTenStepsMatchReference) {
  const std::vector<double>& losses = fixture_.at("losses").values;
  ASSERT_EQ(losses.size(), 10u);
  for (int step = 1; step <= 10; ++step) {
    EXPECT_NEAR(train(step - 1, {4, 3}).loss, losses[step - 1], kTenStepsTolerance) << step;
    update(step);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, GoldenModel,
                         ::testing::Values("dnn", "lstm", "lstm2", "din", "dien", "sasrec", "bst",
                                           "next", "next_bce", "caser", "dien_agru", "dien_aigru",
                                           "din_second", "dien_second"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace meander::models
