// SPDX-License-Identifier: Apache-2.0
#include "launch/children.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

namespace meander::launch {
namespace {

using ::testing::ElementsAre;

class ChildrenTest : public testing::Test {
 protected:
  template <class Holds>
  void tend_until(Children& children, Holds holds) {
    const TimePoint deadline = clock_.now() + std::chrono::seconds(20);
    while (!holds() && clock_.now() < deadline) {
      ASSERT_TRUE(children.tend().ok());
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    EXPECT_TRUE(holds());
  }
  SystemClock clock_;
  std::vector<std::string> dead_;
  const Children::OnDeath on_death_ = [this](const std::vector<std::string>& peers) {
    dead_.insert(dead_.end(), peers.begin(), peers.end());
  };
};

TEST_F(ChildrenTest, WordsOfTheLeaderAreNotInItsOutput) {
  Children children("/bin/sh", clock_, on_death_);
  ASSERT_TRUE(
      children.lead("leader", {"-c", "echo first; echo @lanes 4; printf last"}, false).ok());
  tend_until(children, [&] { return children.leader_code().has_value(); });
  EXPECT_EQ(children.leader_output(), "first\nlast");
  EXPECT_THAT(children.take_leader_words(), ElementsAre("@lanes 4"));
  EXPECT_TRUE(children.take_leader_words().empty());
}

TEST_F(ChildrenTest, WhoIsReleasedMayLeaveAsItLikes) {
  Children children("/bin/sh", clock_, on_death_);
  ASSERT_TRUE(children.start("ps/1", {"-c", "sleep 0.3; exit 3", "--lane", "1"}, {"lane/1"}).ok());
  EXPECT_TRUE(children.has("lane/1"));
  children.release("lane/1", {"--lane", "1"});
  EXPECT_FALSE(children.has("lane/1"));
  const TimePoint end = clock_.now() + std::chrono::milliseconds(600);
  tend_until(children, [&] { return clock_.now() > end; });
  EXPECT_TRUE(dead_.empty());
  EXPECT_EQ(children.restarts(), 0u);
}

TEST_F(ChildrenTest, WhoKeepsAPeerIsStartedAgainForIt) {
  Children children("/bin/sh", clock_, on_death_);
  ASSERT_TRUE(children
                  .start("ps/1",
                         {"-c", "sleep 0.1; kill -9 $$", "sh", "--lane", "1", "--lane", "2"},
                         {"lane/1", "lane/2"})
                  .ok());
  children.release("lane/2", {"--lane", "2"});
  EXPECT_TRUE(children.has("lane/1"));
  tend_until(children, [&] { return children.restarts() > 0; });
  EXPECT_THAT(dead_, ElementsAre("lane/1"));
}

}  // namespace
}  // namespace meander::launch
