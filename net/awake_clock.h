// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "common/clock.h"

namespace meander::net {

// Time as a driver hands it to its node: it goes on by kStepMax at most between two looks. A driver
// looks at least every second, so a longer gap is one in which nobody ran (the process was stopped,
// its machine suspended): whoever is waited for had no more of a chance to answer than the node had
// to hear it, and no deadline counts that time.
class AwakeClock {
 public:
  static constexpr Duration kStepMax = std::chrono::seconds(2);

  // `now`: of a clock that never goes back. The first look is that clock's time.
  TimePoint look(TimePoint now) {
    awake_ = has_looked_ ? awake_ + std::min(now - seen_, kStepMax) : now;
    has_looked_ = true;
    seen_ = now;
    return awake_;
  }
  TimePoint now() const { return awake_; }  // of the last look
  // When the other clock will show it that it is `awake`, if no pause comes between.
  TimePoint seen_at(TimePoint awake) const {
    return awake == kNever ? kNever : awake - awake_ + seen_;
  }

 private:
  TimePoint seen_{}, awake_{};
  bool has_looked_ = false;
};

}  // namespace meander::net
