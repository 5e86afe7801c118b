// SPDX-License-Identifier: Apache-2.0
// Models of graphs against independent ones in PyTorch (tools/make_graph_fixtures.py, float64).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/executor.h"
#include "models/model.h"
#include "nn/neighbourhood.h"
#include "nn/sparse.h"
#include "tests/golden/models/fixture.h"

namespace meander::models {
namespace {

// We compute in float32: seven digits, of which sums take one or two.
constexpr double kTolerance = 1e-5;

std::vector<nn::SparseEntry> pairs(const Fixture::Array& array, bool both_ways) {
  const std::size_t n = array.shape[1];
  std::vector<nn::SparseEntry> entries;
  for (std::size_t i = 0; i < n; ++i) {
    const auto a = static_cast<std::uint32_t>(array.values[i]);
    const auto b = static_cast<std::uint32_t>(array.values[n + i]);
    entries.push_back({a, b, 1.0f});
    if (both_ways) entries.push_back({b, a, 1.0f});
  }
  return entries;
}

void expect_close(const std::vector<double>& expected, std::span<const float> values,
                  const std::string& what) {
  ASSERT_EQ(values.size(), expected.size()) << what;
  double largest = 0;
  for (const double x : expected) largest = std::max(largest, std::abs(x));
  for (std::size_t i = 0; i < values.size(); ++i) {
    ASSERT_NEAR(values[i], expected[i], kTolerance * largest) << what << " at " << i;
  }
}

// One step on the fixture's batch, its histories in one part, in the order of the file; the rows of
// the tables lie in another order than that of the ids.
class GraphStep {
 public:
  GraphStep(const Fixture& fixture, const ModelSpec& spec, const std::vector<std::int32_t>& nodes,
            const nn::Neighbourhood* around = nullptr)
      : fixture_(fixture), graph_(build_model(spec).value()), around_(around) {
    for (std::int32_t t = 0; t < 2; ++t) {
      const std::int32_t width = graph_.table_width(t);
      for (std::int32_t n = 0; n < nodes[t]; ++n) {
        rows_[t].push_back(static_cast<std::uint32_t>((n + 1) % nodes[t]));
      }
      tables_[t].resize(static_cast<std::size_t>(nodes[t]) * width);
      dtables_[t].resize(tables_[t].size());
      const std::string name = "table/" + std::to_string(t);
      const std::vector<float> by_id =
          fixture.has(name) ? fixture.at(name).floats() : std::vector<float>(tables_[t].size());
      for (std::int32_t n = 0; n < nodes[t]; ++n) {
        std::copy_n(&by_id[n * width], width, &tables_[t][rows_[t][n] * width]);
      }
      views_.push_back({tables_[t].data(), nodes[t], width, width});
      dviews_.push_back({dtables_[t].data(), nodes[t], width, width});
      catalogues_.push_back({rows_[t], {}});
    }
    dense_.resize(graph_.dense_size());
    ddense_.resize(dense_.size());
    for (const nn::ParamSpec& param : graph_.params()) {
      std::ranges::copy(fixture.at("param/" + param.name).floats(), dense_.begin() + param.offset);
    }
    train();
  }

  void expect_as_in_the_fixture() const {
    EXPECT_NEAR(output_.loss, fixture_.at("loss").values[0], kTolerance);
    expect_close(fixture_.at("logits").values, logits_, "logits");
    for (const nn::ParamSpec& param : graph_.params()) {
      expect_close(fixture_.at("dparam/" + param.name).values,
                   std::span(ddense_).subspan(param.offset, param.rows * param.cols), param.name);
    }
    for (std::int32_t t = 0; t < 2; ++t) {
      const std::string name = "dtable/" + std::to_string(t);
      if (!fixture_.has(name)) continue;
      const std::int32_t width = graph_.table_width(t);
      std::vector<float> by_id;
      for (const std::uint32_t row : rows_[t]) {
        by_id.insert(by_id.end(), &dtables_[t][row * width], &dtables_[t][row * width] + width);
      }
      expect_close(fixture_.at(name).values, by_id, name);
    }
  }

 private:
  void train() {
    const Fixture::Array& target = fixture_.at("target");
    const std::size_t groups = target.shape[1], k = target.shape[2];
    std::vector<JaggedGroup> all(groups);
    for (std::size_t g = 0; g < groups; ++g) {
      all[g].history = {{}, {}};
      for (std::size_t t = 0; t < 2; ++t) {
        std::vector<std::uint32_t>& keys = all[g].target.emplace_back();
        for (std::size_t c = 0; c < k; ++c) {
          keys.push_back(
              rows_[t][static_cast<std::size_t>(target.values[(t * groups + g) * k + c])]);
        }
      }
      for (std::size_t c = 0; c < k; ++c) all[g].label.push_back(c == 0 ? 1.0f : 0.0f);
    }
    const JaggedBatch batch({all});
    logits_.resize(groups * k);
    output_ = {dviews_, ddense_, logits_};
    InlineExecutor executor;
    nn::Session session(graph_);
    session.train({batch.inputs(), views_, dense_, catalogues_, 0, around_}, executor, output_);
  }

  const Fixture& fixture_;
  nn::Graph graph_;
  const nn::Neighbourhood* const around_;
  std::vector<std::uint32_t> rows_[2];
  std::vector<float> tables_[2], dtables_[2], dense_, ddense_, logits_;
  std::vector<nn::ConstMatrix> views_;
  std::vector<nn::Matrix> dviews_;
  std::vector<nn::Catalogue> catalogues_;
  nn::StepOutput output_;
};

TEST(GoldenGraph, LightGcnLogitsLossAndGradientsMatchReference) {
  const Fixture fixture("lightgcn");
  const auto& items = fixture.at("table/0").shape;
  const auto& users = fixture.at("table/1").shape;
  ModelSpec spec;
  spec.kind = "lightgcn";
  spec.slots = {{"item", 0, items[1], true}, {"user", 1, users[1], false}};
  spec.layers = static_cast<std::int32_t>(fixture.at("layers").values[0]);
  spec.adjacency = std::make_shared<const nn::SparseMatrix>(nn::symmetrically_normalised(
      nn::sparse_matrix(users[0], items[0], pairs(fixture.at("edges"), false))));
  GraphStep(fixture, spec, {items[0], users[0]}).expect_as_in_the_fixture();
}

TEST(GoldenGraph, GcnLogitsLossAndGradientsMatchReference) {
  const Fixture fixture("gcn");
  constexpr std::int32_t kNodes = 12;
  const auto& w0 = fixture.at("param/gcn/kernel0").shape;
  const auto& w1 = fixture.at("param/gcn/kernel1").shape;
  ModelSpec spec;
  spec.kind = "gcn";
  spec.slots = {{"item", 0, 1, true}, {"user", 1, 1, false}};
  spec.hidden = w0[1];
  spec.classes = w1[1];
  std::vector<nn::SparseEntry> links = pairs(fixture.at("links"), true);
  for (std::uint32_t n = 0; n < kNodes; ++n) links.push_back({n, n, 1.0f});
  spec.adjacency = std::make_shared<const nn::SparseMatrix>(
      nn::symmetrically_normalised(nn::sparse_matrix(kNodes, kNodes, links)));
  spec.features = std::make_shared<const nn::SparseMatrix>(
      nn::row_normalised(nn::sparse_matrix(kNodes, w0[0], pairs(fixture.at("words"), false))));
  GraphStep(fixture, spec, {spec.classes, kNodes}).expect_as_in_the_fixture();
}

TEST(GoldenGraph, GraphSageLogitsLossAndGradientsMatchReference) {
  const Fixture fixture("graphsage");
  const auto& words = fixture.at("table/1").shape;
  const auto& bias0 = fixture.at("param/sage/bias0").shape;
  const auto& bias1 = fixture.at("param/sage/bias1").shape;
  ModelSpec spec;
  spec.kind = "graphsage";
  spec.slots = {{"item", 0, 1, true}, {"word", 1, words[1], false}};
  spec.hidden = bias0[1];
  spec.classes = bias1[1];
  std::vector<std::int32_t> nodes;
  for (const double n : fixture.at("nodes").values) nodes.push_back(static_cast<std::int32_t>(n));
  std::vector<nn::SparseMatrix> hops;
  for (std::int32_t h = 0; h < 2; ++h) {
    const std::string name = "hop/" + std::to_string(h);
    std::vector<nn::SparseEntry> shares = pairs(fixture.at(name), false);
    const std::vector<float> values = fixture.at(name + "/share").floats();
    for (std::size_t e = 0; e < shares.size(); ++e) shares[e].value = values[e];
    hops.push_back(nn::sparse_matrix(nodes[h], nodes[h + 1], shares));
  }
  // The rows of words lie in the order that GraphStep gives them.
  std::vector<nn::SparseEntry> has = pairs(fixture.at("words"), false);
  for (nn::SparseEntry& entry : has) entry.column = (entry.column + 1) % words[0];
  const nn::SparseMatrix described = nn::row_normalised(nn::sparse_matrix(nodes[2], words[0], has));
  const Fixture::Array& target = fixture.at("target");
  std::vector<std::uint32_t> users;
  for (std::int32_t g = 0; g < target.shape[1]; ++g) {
    users.push_back(static_cast<std::uint32_t>(target.values[target.shape[1] + g]));
  }
  const nn::Neighbourhood around{
      nodes, {hops[0].view(), hops[1].view()}, {{}, described.view()}, users, {}};
  GraphStep(fixture, spec, {spec.classes, words[0]}, &around).expect_as_in_the_fixture();
}

}  // namespace
}  // namespace meander::models
