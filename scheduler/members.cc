// SPDX-License-Identifier: Apache-2.0
#include "scheduler/members.h"

namespace meander::scheduler {

Member::Standing Member::hear(TimePoint now, std::uint64_t whose) {
  if (dead_.contains(whose)) return kStranger;
  if (is_known && whose != incarnation && is_live && past_.contains(whose)) return kStranger;
  const bool is_new = !is_known || whose != incarnation;
  if (is_new && is_known) past_.insert(incarnation);
  is_known = is_live = true;
  incarnation = whose;
  heard = now;
  return is_new ? kNew : kCurrent;
}

void Member::bury() {
  if (is_known) dead_.insert(incarnation);
  is_live = false;
}

}  // namespace meander::scheduler
