// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "data/batch.h"
#include "data/sampler.h"
#include "data/stream.h"

namespace meander::data {

// What the metrics of held-out targets need beside the scores: fills Part's user_targets, is_cold
// and, if asked for, seen. Does nothing for a stream of training targets.
class HeldOut {
 public:
  HeldOut(const PreparedLog& log, const StreamSpec& spec);
  // `groups`: places in `samples` of the groups of the part.
  void fill(const std::vector<Sample>& samples, const std::vector<std::uint32_t>& groups,
            Part& part) const;

 private:
  std::uint32_t targets_of(const Sample& sample) const;
  void list_seen(const Sample& sample, std::vector<std::uint32_t>& seen) const;

  const PreparedLog& log_;
  const bool is_fold_, is_on_, lists_seen_;
  // By shard, of each of its users; where a user's test targets are one list.
  std::unordered_map<const Shard*, std::vector<std::uint32_t>> targets_;
};

}  // namespace meander::data
