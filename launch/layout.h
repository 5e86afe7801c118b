// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/status.h"
#include "launch/job.h"

namespace meander::launch {

// The lanes of ps process `index` of `count`: [first, end), equal shares in order.
struct LaneRange {
  std::uint32_t first = 0, end = 0;
  std::vector<std::uint32_t> all() const;
};
LaneRange lanes_of(std::uint32_t index, std::uint32_t count, std::uint32_t lanes);
// The lanes whose backups it holds, if there are replicas: those of the next process.
LaneRange backups_of(std::uint32_t index, const job::Cluster& cluster);

// In all: cluster.lanes, or one for each ps.
std::uint32_t lane_count(const job::Cluster& cluster);
// The lanes of ps process `index`: its share of the job's, or for one beyond cluster.ps, which
// joins a run that is given more lanes, one lane beyond them.
LaneRange lanes_of_ps(std::uint32_t index, const job::Cluster& cluster);

// Where in a checkpoint directory it says how the run's scheduler is reached: {"scheduler":
// endpoint}.
std::string cluster_file(const std::string& checkpoint_dir);

// Which of its kind this process is: `flag` (>= 0), else JOB_COMPLETION_INDEX (a Kubernetes Job),
// else the ordinal at the end of `host` (a StatefulSet: meander-ps-2). kInvalid: none of them says
// and there are several, or it is not below `limit` (0: below `count`).
Result<std::uint32_t> own_index(int flag, const std::string& host, std::uint32_t count,
                                std::uint32_t limit = 0);

// The roles of `ranks` processes under mpirun: rank 0 is the scheduler, then ps, then workers.
struct RankLayout {
  std::uint32_t ps = 0, workers = 0;
};
// cluster.ps and cluster.workers where they fit; else those that --set did not name are split anew.
// kInvalid: fewer than three ranks, or what --set names does not fit.
Result<RankLayout> rank_layout(const LoadedJob& job, std::uint32_t ranks);

}  // namespace meander::launch
