// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "common/buffer.h"
#include "proto/manifest.pb.h"
#include "scheduler/scheduler.h"

namespace meander::scheduler {

// What a run is, in the words of others.

// The part of a LaneSetup that is the same for every lane and set-up.
wire::LaneSetup describe_to_lanes(const SchedulerOptions& options);
// The frames of a fresh start: for each preset the keys and rows that belong to `lane`.
std::vector<Buffer> preset_frames(const SchedulerOptions& options, std::uint32_t lane);
// A manifest without what the lanes save: model, job, tables with neither rows nor steps.
manifest::Manifest describe_in_manifest(const SchedulerOptions& options);

}  // namespace meander::scheduler
