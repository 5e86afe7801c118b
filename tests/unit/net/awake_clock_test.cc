// SPDX-License-Identifier: Apache-2.0
#include "net/awake_clock.h"

#include <gtest/gtest.h>

namespace meander::net {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;

TEST(AwakeClock, GoesWithTheOtherClockWhileItIsLookedAt) {
  AwakeClock clock;
  TimePoint now{minutes(7)};
  for (int i = 0; i < 100; ++i, now += milliseconds(900)) EXPECT_EQ(clock.look(now), now);
  EXPECT_EQ(clock.seen_at(clock.now() + milliseconds(5)),
            now + milliseconds(5) - milliseconds(900));
}

TEST(AwakeClock, LeavesOutAPauseButForTheLongestStep) {
  AwakeClock clock;
  const TimePoint begin{minutes(7)};
  clock.look(begin);
  const TimePoint awake = clock.look(begin + minutes(10));
  EXPECT_EQ(awake, begin + AwakeClock::kStepMax);
  EXPECT_EQ(clock.look(begin + minutes(10) + milliseconds(3)), awake + milliseconds(3));
  // A timer due in a second is due in a second.
  EXPECT_EQ(clock.seen_at(clock.now() + milliseconds(1000)),
            begin + minutes(10) + milliseconds(1003));
  EXPECT_EQ(clock.seen_at(kNever), kNever);
}

}  // namespace
}  // namespace meander::net
