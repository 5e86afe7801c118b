// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/status.h"
#include "common/storage.h"
#include "data/prepared_log.h"
#include "data/shard_builder.h"

namespace meander::data {

// What only the whole log shows.
struct MergeResult {
  std::vector<ItemEntry> items;  // by id
  std::uint64_t categories = 0;  // distinct
};

// Merges the shards' runs into the log's order (time, then input row): writes each shard's ranks,
// unless the input was in that order, and the pool into `directory`. Memory: a few MiB, and 64
// bytes an item.
Result<MergeResult> merge_runs(Storage& storage, const std::string& directory,
                               const std::vector<ShardDraft>& drafts, const LogShape& shape);

}  // namespace meander::data
