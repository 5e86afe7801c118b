// SPDX-License-Identifier: Apache-2.0
#include "data/sampler.h"

#include <algorithm>

#include "common/rng.h"

namespace meander::data {
namespace {

constexpr std::uint64_t kNegativeSalt = 0x6e6567617469766eull;
constexpr std::uint64_t kAuxiliarySalt = 0x617578696c696172ull;

// No early exit: the loop is then a few vector compares for the 50 items of a history.
bool contains(std::span<const std::uint64_t> items, std::uint64_t item) {
  std::uint64_t found = 0;
  for (const std::uint64_t other : items) found |= other == item;
  return found != 0;
}

std::uint64_t auxiliary_draw(std::uint64_t prefix, std::uint32_t position, std::uint32_t t,
                             Sampler::Range range) {
  return bounded(hash64(prefix, position * 32 + t), range.end - range.begin);
}

}  // namespace

Sample sample_of(const PreparedLog& log, const Shard& shard, const Target& target, bool is_test,
                 std::uint32_t history) {
  const UserEntry& user = shard.users[target.user];
  std::uint32_t end = target.event;
  if (is_test && log.test_history_is_known_part()) end = std::min(end, user.first + user.known);
  const std::uint32_t begin = end - user.first > history ? end - history : user.first;
  return {&shard, target, begin, end};
}

Sampler::Range Sampler::window_before(std::int64_t time_ms) const {
  return {log_.pool_lower_bound(time_ms - spec_.window_ms), log_.pool_lower_bound(time_ms)};
}

bool Sampler::is_excluded(const Sample& sample, std::uint64_t item,
                          std::span<const ItemRef> drawn) const {
  const Shard& shard = *sample.shard;
  if (item == shard.item[sample.target.event]) return true;
  for (const ItemRef& other : drawn) {
    if (other.item == item) return true;
  }
  return is_had(sample, item);
}

bool Sampler::is_had(const Sample& sample, std::uint64_t item) const {
  const Shard& shard = *sample.shard;
  if (spec_.exclude == Exclude::kHistory) {
    return contains(shard.item.subspan(sample.history_begin, sample.length()), item);
  }
  const UserEntry& user = shard.users[sample.target.user];
  const bool known = spec_.exclude == Exclude::kKnown;
  return contains(shard.item.subspan(user.first, known ? user.known : user.count), item);
}

void Sampler::draw(std::uint64_t seed, const Sample& sample, std::span<ItemRef> out) const {
  const bool uniform = spec_.kind == NegativeKind::kUniform;
  Range range{0, uniform ? log_.items().size() : log_.pool().size()};
  if (spec_.kind == NegativeKind::kRecent) {
    const Range window = window_before(sample.shard->time_ms[sample.target.event]);
    if (window.begin < window.end) range = window;
  }
  const std::uint64_t prefix = hash64(seed ^ kNegativeSalt, sample.target.row);
  for (std::size_t n = 0; n < out.size(); ++n) {
    for (std::uint32_t t = 0; t <= kNegativeTriesMax; ++t) {
      const std::uint64_t random = hash64(prefix, n * 1024 + t);
      const std::uint64_t at = range.begin + bounded(random, range.end - range.begin);
      out[n] =
          uniform ? ItemRef{log_.items()[at].item, log_.items()[at].category} : log_.pool()[at];
      if (!is_excluded(sample, out[n].item, out.first(n))) break;
    }
  }
}

std::uint64_t Sampler::auxiliary_prefix(std::uint64_t seed, const Sample& sample) {
  return hash64(seed ^ kAuxiliarySalt, sample.target.row);
}

Sampler::Range Sampler::auxiliary_range(std::uint64_t prefix, const Sample& sample,
                                        std::uint32_t position) const {
  const std::uint32_t event = sample.history_begin + position;
  if (spec_.kind == NegativeKind::kUniform) return {0, log_.items().size()};
  Range range{0, log_.pool().size()};
  if (spec_.kind == NegativeKind::kRecent) range = window_before(sample.shard->time_ms[event]);
  if (range.begin != range.end) {
    __builtin_prefetch(&log_.pool()[range.begin + auxiliary_draw(prefix, position, 0, range)]);
  }
  return range;
}

bool Sampler::draw_auxiliary(std::uint64_t prefix, const Sample& sample, std::uint32_t position,
                             Range range, ItemRef& out) const {
  if (range.begin == range.end) return false;
  const std::uint64_t positive = sample.shard->item[sample.history_begin + position];
  if (spec_.kind == NegativeKind::kUniform) {
    for (std::uint32_t t = 0; t <= kAuxiliaryTriesMax; ++t) {
      const ItemEntry& drawn = log_.items()[auxiliary_draw(prefix, position, t, range)];
      out = {drawn.item, drawn.category};
      if (out.item != positive && !is_had(sample, out.item)) return true;
    }
    return false;
  }
  for (std::uint32_t t = 0; t <= kAuxiliaryTriesMax; ++t) {
    out = log_.pool()[range.begin + auxiliary_draw(prefix, position, t, range)];
    if (out.item != positive) return true;
  }
  return false;
}

}  // namespace meander::data
