// SPDX-License-Identifier: Apache-2.0
#include "data/target_order.h"

#include <algorithm>
#include <bit>

#include "common/check.h"
#include "common/rng.h"

namespace meander::data {
namespace {

constexpr std::uint64_t kShuffleKey = 0x73687566666c6564ull;
constexpr std::uint64_t kUsersKey = 0x7573657273ull;
constexpr std::uint64_t kFoldKey = 0x666f6c6473ull;
constexpr std::uint32_t kRounds = 4;

std::uint64_t targets_before(std::span<const Target> targets, std::uint64_t row) {
  return std::lower_bound(targets.begin(), targets.end(), row,
                          [](const Target& t, std::uint64_t row) { return t.row < row; }) -
         targets.begin();
}

}  // namespace

Permutation::Permutation(std::uint64_t n, std::uint64_t key) : n_(n), key_(key) {
  const auto bits = static_cast<std::uint32_t>(std::bit_width(n > 1 ? n - 1 : 1));
  half_bits_ = (bits + 1) / 2;
}

std::uint64_t Permutation::once(std::uint64_t i) const {
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  std::uint64_t left = i >> half_bits_, right = i & mask;
  for (std::uint32_t round = 0; round < kRounds; ++round) {
    const std::uint64_t next = left ^ (hash64(key_ + round, right) & mask);
    left = right;
    right = next;
  }
  return left << half_bits_ | right;
}

std::uint64_t Permutation::operator()(std::uint64_t i) const {
  do {
    i = once(i);
  } while (i >= n_);
  return i;
}

TargetOrder::TargetOrder(const PreparedLog& log, const StreamSpec& spec)
    : order_(spec.order), shuffle_(spec.shuffle), rows_(log.events()), random_(spec.shuffle) {
  const auto& shards = log.shards();
  for (std::size_t s = spec.index; s < shards.size(); s += spec.count) {
    if (spec.part != LogPart::kTest) add_run(shards[s], dealt(shards[s], spec), false, spec);
    if (spec.part != LogPart::kTrain) add_run(shards[s], shards[s].test_targets, true, spec);
  }
  next_.assign(runs_.size(), 0);
  if (order_ == StreamOrder::kUsers) group_by_user();
}

std::span<const Target> TargetOrder::dealt(const Shard& shard, const StreamSpec& spec) {
  if (spec.folds == 0) return shard.train_targets;
  std::vector<Target>& own = dealt_.emplace_back();
  for (const Target& target : shard.train_targets) {
    const std::uint64_t hash = hash64(kFoldKey, shard.users[target.user].id);
    if ((bounded(hash, spec.folds) == spec.fold) == spec.is_fold) own.push_back(target);
  }
  return own;
}

void TargetOrder::add_run(const Shard& shard, std::span<const Target> part, bool is_test,
                          const StreamSpec& spec) {
  const auto before = [&shard](std::int64_t time_ms) {
    return [&shard, time_ms](const Target& t) { return shard.time_ms[t.event] < time_ms; };
  };
  auto begin = part.begin(), end = part.end();
  if (!shard.time_ms.empty()) {  // the order of rows is that of time
    begin = std::partition_point(begin, end, before(spec.from_ms));
    end = std::partition_point(begin, end, before(spec.until_ms));
  }
  runs_.push_back({&shard, {begin, end}, is_test, std::uint64_t(begin - part.begin())});
  offsets_.push_back(offsets_.back() + runs_.back().targets.size());
}

TargetRef TargetOrder::ref(const Run& run, std::uint64_t i) const {
  return {run.shard, run.targets[i], run.is_test, run.first_index + i};
}

void TargetOrder::get(std::uint32_t epoch, std::uint64_t from, std::vector<TargetRef>& out) {
  CHECK_LE(from + out.size(), size());
  switch (order_) {
    case StreamOrder::kTime:
      return get_by_time(from, out);
    case StreamOrder::kShuffle:
      return get_shuffled(epoch, from, out);
    case StreamOrder::kHashed:
      return get_hashed(epoch, from, out);
    case StreamOrder::kUsers:
      return get_of_users(epoch, from, out);
  }
}

// Rows are distinct, so some row has exactly `place` targets before it.
void TargetOrder::seek(std::uint64_t place) {
  std::uint64_t low = 0, high = rows_;
  while (low < high) {
    const std::uint64_t row = low + (high - low) / 2;
    std::uint64_t before = 0;
    for (const Run& run : runs_) before += targets_before(run.targets, row);
    if (before >= place) {
      high = row;
    } else {
      low = row + 1;
    }
  }
  for (std::size_t r = 0; r < runs_.size(); ++r) next_[r] = targets_before(runs_[r].targets, low);
  place_ = place;
}

std::size_t TargetOrder::take_next() {
  std::size_t best = runs_.size();
  for (std::size_t r = 0; r < runs_.size(); ++r) {
    if (next_[r] == runs_[r].targets.size()) continue;
    if (best == runs_.size() ||
        runs_[r].targets[next_[r]].row < runs_[best].targets[next_[best]].row) {
      best = r;
    }
  }
  ++next_[best];
  ++place_;
  return best;
}

void TargetOrder::get_by_time(std::uint64_t from, std::vector<TargetRef>& out) {
  if (from != place_) seek(from);
  for (TargetRef& target : out) {
    const std::size_t run = take_next();
    target = ref(runs_[run], next_[run] - 1);
  }
}

TargetRef TargetOrder::ref_at(std::uint64_t place) const {
  const std::size_t r =
      std::upper_bound(offsets_.begin(), offsets_.end(), place) - offsets_.begin() - 1;
  return ref(runs_[r], place - offsets_[r]);
}

void TargetOrder::get_hashed(std::uint32_t epoch, std::uint64_t from,
                             std::vector<TargetRef>& out) const {
  const Permutation permutation(size(), hash64(kShuffleKey, shuffle_, epoch));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = ref_at(permutation(from + i));
}

// Users in the order of their shards; those whose targets are in both parts count in each.
void TargetOrder::group_by_user() {
  by_user_.resize(size());
  user_begin_.push_back(0);
  for (std::size_t r = 0; r < runs_.size(); ++r) {
    std::vector<std::uint32_t> end(runs_[r].shard->users.size());  // of each user's, as it fills
    for (const Target& target : runs_[r].targets) ++end[target.user];
    for (std::uint32_t& user : end) {
      const std::uint32_t count = user;
      user = user_begin_.back();
      if (count > 0) user_begin_.push_back(user + count);
    }
    for (std::size_t i = 0; i < runs_[r].targets.size(); ++i) {
      by_user_[end[runs_[r].targets[i].user]++] = static_cast<std::uint32_t>(offsets_[r] + i);
    }
  }
}

void TargetOrder::get_of_users(std::uint32_t epoch, std::uint64_t from,
                               std::vector<TargetRef>& out) const {
  const std::uint64_t of_epoch = hash64(kUsersKey, shuffle_, epoch);
  for (std::size_t i = 0; i < out.size(); ++i) {
    const std::uint64_t draw = hash64(of_epoch, from + i);
    const std::uint64_t user = bounded(draw, user_begin_.size() - 1);
    const std::uint32_t begin = user_begin_[user], count = user_begin_[user + 1] - begin;
    out[i] = ref_at(by_user_[begin + bounded(hash64(draw, 1), count)]);
  }
}

// How many numbers a shuffle draws depends on what it draws: a later pass takes all before it.
void TargetOrder::shuffle(std::uint32_t epoch) {
  std::uint32_t next = shuffled_.empty() ? 0 : shuffled_epoch_ + 1;
  if (epoch < next) {
    random_ = NumpyRandom(shuffle_);
    next = 0;
  }
  for (; next <= epoch; ++next) {
    shuffled_.resize(size());
    seek(0);
    for (std::uint32_t& place : shuffled_) {
      const std::size_t run = take_next();
      place = static_cast<std::uint32_t>(offsets_[run] + next_[run] - 1);
    }
    random_.shuffle(shuffled_);
  }
  shuffled_epoch_ = epoch;
}

void TargetOrder::get_shuffled(std::uint32_t epoch, std::uint64_t from,
                               std::vector<TargetRef>& out) {
  if (shuffled_.empty() || epoch != shuffled_epoch_) shuffle(epoch);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = ref_at(shuffled_[from + i]);
}

}  // namespace meander::data
