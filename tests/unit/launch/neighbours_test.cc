// SPDX-License-Identifier: Apache-2.0
#include "launch/neighbours.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/small_export.h"

namespace meander::launch {
namespace {

class NeighboursTest : public ::testing::Test {
 protected:
  std::shared_ptr<const serve::Artefact> load(SmallExport& small) {
    EXPECT_TRUE(
        artefact::write_export(*storage_, small.contents(), artefact::Layout::kPlain, "e").ok());
    return serve::Artefact::load(*storage_, "e").value();
  }
  std::unique_ptr<Storage> storage_ = make_memory_storage();
  InlineExecutor executor_;
};

models::ModelSpec decaying(const std::string& decay) {
  models::ModelSpec spec = SmallExport::spec_of("decay");
  spec.decay = decay;
  spec.half_life_h = 5;
  return spec;
}

// u_t = u_{t-1} exp(-rate dt) + e(behaviour), of the last `longest` up to `at_ms`, to length 1.
std::vector<double> interest(const SmallExport& small, const artefact::UserHistory& history,
                             std::int64_t at_ms, double rate, std::size_t longest) {
  SmallExport& of = const_cast<SmallExport&>(small);
  const auto& tables = of.contents().tables;
  std::size_t end = 0;
  while (end < history.time_ms.size() && history.time_ms[end] <= at_ms) ++end;
  std::vector<double> u(tables[0].width + tables[1].width);
  std::int64_t before = 0;
  for (std::size_t i = end > longest ? end - longest : 0; i < end; ++i) {
    const double hours = static_cast<double>(history.time_ms[i] - before) / 3.6e6;
    before = history.time_ms[i];
    for (double& x : u) x *= std::exp(-rate * hours);
    const std::uint64_t ids[] = {history.item[i], history.category[i]};
    std::size_t column = 0;
    for (std::size_t t = 0; t < 2; ++t) {
      const std::size_t row = tables[t].index_of(ids[t]);
      for (std::uint32_t c = 0; c < tables[t].width; ++c) {
        u[column++] += tables[t].rows[row * tables[t].width + c];
      }
    }
  }
  double square = 0;
  for (const double x : u) square += x * x;
  for (double& x : u) x /= square > 0 ? std::sqrt(square) : 1;
  return u;
}

TEST_F(NeighboursTest, AUsersVectorIsWhatTimeHasLeftOfTheInterest) {
  for (const char* decay : {"fixed", "learned"}) {
    SmallExport small(decaying(decay));
    const auto artefact = load(small);
    double rate = std::log(2.0) / 5;
    for (const nn::ParamSpec& param : small.graph().params()) {
      if (!param.name.ends_with("log_rate")) continue;
      rate *= std::exp(static_cast<double>(small.contents().dense[param.offset]));
    }
    for (const std::int64_t hour : {60, 9, 0}) {
      const std::int64_t at_ms = hour * SmallExport::kHourMs;
      const Vectors vectors = vectors_of_users(artefact, at_ms, executor_).value();
      ASSERT_EQ(vectors.ids.size(), SmallExport::kUsers);
      ASSERT_EQ(vectors.width, 10);
      for (std::size_t u = 0; u < vectors.ids.size(); ++u) {
        const auto history = artefact->history(vectors.ids[u]);
        const std::vector<double> expected = interest(small, *history, at_ms, rate, 12);
        for (std::int32_t c = 0; c < vectors.width; ++c) {
          ASSERT_NEAR(vectors.values[u * vectors.width + c], expected[c], 1e-5)
              << decay << ", " << hour << " h, user " << vectors.ids[u];
        }
      }
    }
    EXPECT_EQ(vectors_of_users(artefact, -1, executor_).value().ids.size(), 0u);
  }
}

TEST_F(NeighboursTest, WhereNothingDecaysAUsersVectorIsTheRow) {
  SmallExport small(SmallExport::spec_of("dnn", /*user=*/true));
  const auto artefact = load(small);
  const Vectors users = vectors_of_users(artefact, 0, executor_).value();
  EXPECT_EQ(users.ids.size(), SmallExport::kUsers);
  EXPECT_EQ(users.width, 5);
  const float* const row = &small.contents().tables[2].rows[3 * 5];
  EXPECT_NEAR(users.values[3 * 5 + 1] / users.values[3 * 5], row[1] / row[0], 1e-4);
  const Vectors items = vectors_of_items(*artefact).value();
  EXPECT_EQ(items.ids.size(), SmallExport::kItems);
  // The largest id is the least as a signed number; each is found.
  for (std::size_t i = 0; i < SmallExport::kItems; ++i) {
    const std::uint64_t id = small.item(i);
    EXPECT_EQ(items.ids[items.row_of(id).value()], id);
  }
  EXPECT_EQ(items.row_of(12345).status().code(), Code::kInvalid);
}

TEST_F(NeighboursTest, AModelThatKnowsNoUsersIsRefused) {
  SmallExport small(SmallExport::spec_of("din"));
  const auto users = vectors_of_users(load(small), 0, executor_);
  ASSERT_FALSE(users.ok());
  EXPECT_EQ(users.status().code(), Code::kInvalid);
  EXPECT_NE(users.status().message().find("model din has no vectors of users"), std::string::npos);
}

}  // namespace
}  // namespace meander::launch
