// SPDX-License-Identifier: Apache-2.0
#include "launch/layout.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>

#include "common/storage.h"

namespace meander::launch {
namespace {

bool parse_whole(std::string_view text, std::uint32_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return !text.empty() && error == std::errc() && end == text.data() + text.size();
}

}  // namespace

LaneRange lanes_of(std::uint32_t index, std::uint32_t count, std::uint32_t lanes) {
  const std::uint64_t all = lanes;
  return {static_cast<std::uint32_t>(all * index / count),
          static_cast<std::uint32_t>(all * (index + 1) / count)};
}

LaneRange backups_of(std::uint32_t index, const job::Cluster& cluster) {
  if (cluster.replicas() == 0) return {};
  return lanes_of((index + 1) % cluster.ps(), cluster.ps(), lane_count(cluster));
}

std::uint32_t lane_count(const job::Cluster& cluster) {
  return cluster.lanes() == 0 ? cluster.ps() : cluster.lanes();
}

std::vector<std::uint32_t> LaneRange::all() const {
  std::vector<std::uint32_t> lanes;
  for (std::uint32_t lane = first; lane < end; ++lane) lanes.push_back(lane);
  return lanes;
}

std::string cluster_file(const std::string& checkpoint_dir) {
  return join_path(checkpoint_dir, "cluster.json");
}

LaneRange lanes_of_ps(std::uint32_t index, const job::Cluster& cluster) {
  const std::uint32_t lanes = lane_count(cluster);
  if (index < cluster.ps()) return lanes_of(index, cluster.ps(), lanes);
  const std::uint32_t lane = lanes + index - cluster.ps();
  return {lane, lane + 1};
}

Result<std::uint32_t> own_index(int flag, const std::string& host, std::uint32_t count,
                                std::uint32_t limit) {
  std::uint32_t index = 0;
  std::string from = "--index";
  const char* job_index = std::getenv("JOB_COMPLETION_INDEX");
  if (flag >= 0) {
    index = static_cast<std::uint32_t>(flag);
  } else if (job_index != nullptr && parse_whole(job_index, index)) {
    from = "JOB_COMPLETION_INDEX";
  } else {
    const std::string name = host.substr(0, host.find('.'));
    const std::size_t dash = name.rfind('-');
    if (dash == std::string::npos || !parse_whole(name.substr(dash + 1), index)) {
      if (count == 1) return 0u;
      return invalid("which one is this? give --index (0 to " + std::to_string(count - 1) +
                     "), MEANDER_INDEX or JOB_COMPLETION_INDEX");
    }
    from = "the host name " + host;
  }
  if (index < (limit == 0 ? count : limit)) return index;
  return invalid(from + " says " + std::to_string(index) + ", but the job has " +
                 std::to_string(count) + ": set cluster.ps and cluster.workers");
}

Result<RankLayout> rank_layout(const LoadedJob& job, std::uint32_t ranks) {
  const job::Cluster& cluster = job.spec.cluster();
  RankLayout layout{cluster.ps(), cluster.workers()};
  if (ranks < 3) return invalid("mpirun needs at least 3 processes: scheduler, ps, worker");
  const std::uint32_t others = ranks - 1;
  if (layout.ps + layout.workers == others) return layout;
  const bool ps_given = origin_of(job.origins, "cluster.ps") == "--set";
  const bool workers_given = origin_of(job.origins, "cluster.workers") == "--set";
  if (!ps_given) {
    layout.ps =
        workers_given ? others - std::min(others, layout.workers) : std::max(1u, others / 2);
  }
  if (!workers_given) layout.workers = others - std::min(others, layout.ps);
  if (layout.ps > 0 && layout.workers > 0 && layout.ps + layout.workers == others) return layout;
  return invalid("mpirun started " + std::to_string(ranks) + " processes, but 1 scheduler, " +
                 std::to_string(cluster.ps()) + " ps and " + std::to_string(cluster.workers()) +
                 " workers are asked for");
}

}  // namespace meander::launch
