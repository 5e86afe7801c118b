// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/clock.h"

namespace meander::scheduler {

// A peer over its incarnations: a process that was started again under the same name is another.
struct Member {
  std::string name;        // "lane/0"
  std::string where = {};  // "host, pid 123"
  bool is_known = false;   // has been heard of at all
  bool is_live = false;
  std::uint64_t incarnation = 0;
  TimePoint heard{};
  bool has_stopped = false;
  TimePoint next_ask{};  // of set-up or Stop

  enum Standing {
    kCurrent,
    kNew,       // another incarnation than before: what the old one held is gone
    kStranger,  // a late word of one that is over
  };
  // A word of `incarnation` has arrived.
  Standing hear(TimePoint now, std::uint64_t whose);
  // This incarnation is dead for certain.
  void bury();

 private:
  std::set<std::uint64_t> past_, dead_;
};

struct LaneMember : Member {
  std::string endpoint;
  bool is_ready = false;   // has done the present set-up
  bool is_missed = false;  // has been silent for longer than a live lane is
};

struct WorkerMember : Member {
  std::uint64_t setup = 0;                         // shown by its last heartbeat
  std::uint64_t paused = 0;                        // the cut it is paused for
  std::uint64_t lanes_version = 0;                 // of the lanes' endpoints that it knows
  TimePoint next_move{};                           // when to tell it of others
  std::map<std::uint64_t, std::uint64_t> counted;  // last heartbeat, by incarnation

  // May be given work under this set-up.
  bool is_ready(std::uint64_t present) const { return is_live && setup == present; }
};

// "2 of 4 workers (worker/1, worker/3): start them, or lower cluster.workers": the lanes that never
// came and the workers that are not there.
std::string absentees(const std::vector<LaneMember>& lanes,
                      const std::vector<WorkerMember>& workers);

}  // namespace meander::scheduler
