// SPDX-License-Identifier: Apache-2.0
#include "scheduler/describe.h"

#include "checkpoint/generation.h"
#include "common/partition.h"

namespace meander::scheduler {

wire::LaneSetup describe_to_lanes(const SchedulerOptions& options) {
  wire::LaneSetup setup;
  setup.set_lanes(options.lanes);
  setup.set_streams(options.streams);
  setup.set_staleness(options.staleness);
  *setup.mutable_tables() = {options.tables.begin(), options.tables.end()};
  return setup;
}

std::vector<Buffer> preset_frames(const SchedulerOptions& options, std::uint32_t lane) {
  const PartitionMap partitions = PartitionMap::even(options.lanes);
  std::vector<Buffer> frames;
  for (const SchedulerOptions::Preset& preset : options.presets) {
    const std::size_t width = options.tables.at(preset.table).width();
    std::vector<std::uint64_t> keys;
    std::vector<float> rows;
    for (std::size_t i = 0; i < preset.keys.size(); ++i) {
      if (partitions.lane_of(preset.keys[i]) != lane) continue;
      keys.push_back(preset.keys[i]);
      const auto row = preset.rows.begin() + static_cast<std::ptrdiff_t>(i * width);
      rows.insert(rows.end(), row, row + static_cast<std::ptrdiff_t>(width));
    }
    frames.push_back(Buffer::own(std::move(keys)));
    frames.push_back(Buffer::own(std::move(rows)));
  }
  return frames;
}

manifest::Manifest describe_in_manifest(const SchedulerOptions& options) {
  manifest::Manifest manifest;
  manifest.set_model(options.model);
  manifest.set_lanes(options.lanes);
  manifest.set_job(options.job);
  for (const wire::TableSpec& spec : options.tables) {
    const wire::Optimizer::Kind kind = spec.optimizer().kind();
    manifest::Table& table = *manifest.add_tables();
    table.set_name(spec.name());
    table.set_width(spec.width());
    table.set_state_width(checkpoint::state_width(kind, spec.width()));
    table.set_optimizer(checkpoint::optimizer_name(kind));
    table.set_expire_steps(spec.expire_steps());
    table.set_keep_count(spec.keep_count());
  }
  return manifest;
}

}  // namespace meander::scheduler
