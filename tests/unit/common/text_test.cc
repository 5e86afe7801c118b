// SPDX-License-Identifier: Apache-2.0
#include "common/text.h"

#include <gtest/gtest.h>

namespace meander {
namespace {

const std::vector<std::string> kFields = {"train.batch", "train.seed", "cluster.workers",
                                          "data.path"};

TEST(NearestName, FindsASlipOfTheKeys) {
  EXPECT_EQ(nearest_name("train.bach", kFields), "train.batch");
  EXPECT_EQ(nearest_name("cluster.worker", kFields), "cluster.workers");
  EXPECT_EQ(nearest_name("data.paht", kFields), "data.path");
  EXPECT_EQ(nearest_name("train.seed", kFields), "train.seed");
}

TEST(NearestName, SaysNothingWhenNothingIsNear) {
  EXPECT_EQ(nearest_name("quantization", kFields), "");
  EXPECT_EQ(nearest_name("x", {"y", "yz"}), "");
  EXPECT_EQ(nearest_name("", {"model"}), "");
  EXPECT_EQ(nearest_name("a", {}), "");
}

TEST(NearestName, PrefersTheFirstOfEquals) {
  EXPECT_EQ(nearest_name("dim", {"din", "dim2"}), "din");
}

}  // namespace
}  // namespace meander
