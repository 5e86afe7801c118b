// SPDX-License-Identifier: Apache-2.0
#include "data/held_out.h"

#include <algorithm>

#include "common/check.h"

namespace meander::data {

HeldOut::HeldOut(const PreparedLog& log, const StreamSpec& spec)
    : log_(log),
      is_fold_(spec.is_fold),
      is_on_(is_fold_ || spec.part == LogPart::kTest),
      lists_seen_(spec.seen) {
  if (!is_on_ || is_fold_ || !log.test_history_is_known_part()) return;
  for (const Shard& shard : log.shards()) {
    std::vector<std::uint32_t>& targets = targets_[&shard];
    targets.resize(shard.users.size());
    for (const Target& target : shard.test_targets) ++targets[target.user];
  }
}

// Targets that come one after another have each a history of its own: they are no list.
std::uint32_t HeldOut::targets_of(const Sample& sample) const {
  const auto shard = targets_.find(sample.shard);
  return shard == targets_.end() ? 1 : shard->second[sample.target.user];
}

void HeldOut::fill(const std::vector<Sample>& samples, const std::vector<std::uint32_t>& groups,
                   Part& part) const {
  part.user_targets.clear();
  part.is_cold.clear();
  part.seen.clear();
  part.seen_begin.clear();
  if (!is_on_) return;
  if (lists_seen_) part.seen_begin.push_back(0);
  for (const std::uint32_t g : groups) {
    const Sample& sample = samples[g];
    const ItemEntry* item = log_.find_item(sample.item().item);
    part.user_targets.push_back(targets_of(sample));
    part.is_cold.push_back(item == nullptr || item->count == 0);
    if (!lists_seen_) continue;
    list_seen(sample, part.seen);
    part.seen_begin.push_back(static_cast<std::uint32_t>(part.seen.size()));
  }
}

// Each item once, by place; the target is never among them.
void HeldOut::list_seen(const Sample& sample, std::vector<std::uint32_t>& seen) const {
  const std::size_t before = seen.size();
  const std::uint64_t target = sample.item().item;
  const std::uint32_t first = sample.shard->users[sample.target.user].first;
  const std::uint32_t end = log_.test_history_is_known_part() && !is_fold_
                                ? first + sample.shard->users[sample.target.user].known
                                : sample.target.event;
  for (std::uint32_t event = first; event < end; ++event) {
    if (sample.shard->item[event] == target) continue;
    const ItemEntry* item = log_.find_item(sample.shard->item[event]);
    CHECK(item != nullptr) << log_.path() << ": an event of an item that is not listed";
    seen.push_back(static_cast<std::uint32_t>(item - log_.items().data()));
  }
  std::sort(seen.begin() + static_cast<std::ptrdiff_t>(before), seen.end());
  seen.erase(std::unique(seen.begin() + static_cast<std::ptrdiff_t>(before), seen.end()),
             seen.end());
}

}  // namespace meander::data
