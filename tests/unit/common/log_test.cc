// SPDX-License-Identifier: Apache-2.0
#include "common/log.h"

#include <gtest/gtest.h>

#include "common/check.h"

namespace meander {
namespace {

TEST(Log, VerbosityDecidesWhatIsSaidAndMayChange) {
  init_log("log_test", 2);
  EXPECT_TRUE(VLOG_IS_ON(2));
  EXPECT_FALSE(VLOG_IS_ON(3));
  init_log("log_test", -1);
  EXPECT_FALSE(VLOG_IS_ON(1));
  ::testing::internal::CaptureStderr();
  LOG(INFO) << "a word";
  LOG(ERROR) << "an error";
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(said.find("a word"), std::string::npos);
  EXPECT_NE(said.find("an error"), std::string::npos);
  init_log("log_test", 0);
}

}  // namespace
}  // namespace meander
