// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world/planted.h"

#include <iterator>

namespace meander {
namespace {

PlantedBug planted = PlantedBug::kNone;

}  // namespace

bool is_planted(PlantedBug bug) { return planted == bug; }

namespace sim {

void plant(PlantedBug bug) { planted = bug; }

const char* name_of(PlantedBug bug) {
  constexpr const char* kNames[] = {"none",
                                    "repeat_applied",
                                    "fence_ignored",
                                    "epochs_start_again",
                                    "repeat_reads_new_rows",
                                    "one_lane_answers_for_all",
                                    "flip_before_drained",
                                    "release_before_all_flipped",
                                    "copy_skipped",
                                    "delta_off_by_one",
                                    "metrics_survive_roll_back",
                                    "heartbeat_counted_twice",
                                    "prune_forgets_base",
                                    "rows_not_synced",
                                    "restored_not_synced",
                                    "removal_not_synced",
                                    "file_not_synced",
                                    "directory_not_synced",
                                    "last_round_skipped",
                                    "moved_before_drained"};
  static_assert(std::size(kNames) == static_cast<std::size_t>(PlantedBug::kEnd));
  return kNames[static_cast<int>(bug)];
}

std::optional<PlantedBug> planted_bug(const std::string& name) {
  for (int i = 0; i < static_cast<int>(PlantedBug::kEnd); ++i) {
    if (name == name_of(static_cast<PlantedBug>(i))) return static_cast<PlantedBug>(i);
  }
  return {};
}

}  // namespace sim
}  // namespace meander
