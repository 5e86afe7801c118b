// SPDX-License-Identifier: Apache-2.0
#include "scheduler/members.h"

namespace meander::scheduler {
namespace {

// "2 of 4 workers (worker/1, worker/3)": those of which `is_absent` holds; empty if of none.
template <class M, class Predicate>
std::string listed(const std::vector<M>& members, const std::string& what, Predicate is_absent) {
  std::string names;
  std::size_t count = 0;
  for (const M& member : members) {
    if (!is_absent(member)) continue;
    names += (count++ == 0 ? "" : ", ") + member.name;
  }
  if (count == 0) return {};
  return std::to_string(count) + " of " + std::to_string(members.size()) + " " + what + " (" +
         names + ")";
}

}  // namespace

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

std::string absentees(const std::vector<LaneMember>& lanes,
                      const std::vector<WorkerMember>& workers) {
  const std::string no_lanes =
      listed(lanes, "lanes", [](const LaneMember& lane) { return !lane.is_known; });
  const std::string no_workers =
      listed(workers, "workers", [](const WorkerMember& worker) { return !worker.is_live; });
  if (no_lanes.empty()) return no_workers + ": start them, or lower cluster.workers";
  if (no_workers.empty()) return no_lanes + ": start them, or lower cluster.lanes";
  return no_lanes + " and " + no_workers +
         ": start them, or lower cluster.lanes and cluster.workers";
}

}  // namespace meander::scheduler
