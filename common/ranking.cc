// SPDX-License-Identifier: Apache-2.0
#include "common/ranking.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "common/check.h"

namespace meander {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr std::uint64_t kCountMax = std::uint64_t{1} << 48;  // no sum of counts can overflow

double discount(double rank) { return 1 / std::log2(rank + 2); }

double ideal_gain(std::uint32_t targets) {
  double sum = 0;
  for (std::uint32_t i = 0; i < targets; ++i) sum += discount(i);
  return sum;
}

}  // namespace

std::size_t RankSums::index_of(std::uint32_t cut) {
  const auto at = std::ranges::find(kCuts, cut);
  CHECK(at != kCuts.end()) << "no sums at " << cut;
  return static_cast<std::size_t>(at - kCuts.begin());
}

double RankSums::mean(const Sums& sums, std::uint32_t cut, double count) {
  return count > 0 ? sums[index_of(cut)] / count : kNaN;
}

double RankSums::group_auc() const {
  return groups_ > 0 ? group_auc_ / static_cast<double>(groups_) : kNaN;
}

void RankSums::add(double rank, std::uint32_t user_targets) {
  const double share = 1.0 / user_targets;
  ++targets_;
  users_ += share;
  for (std::size_t i = 0; i < kCuts.size(); ++i) {
    if (rank >= kCuts[i]) continue;
    hits_[i] += 1;
    reciprocal_[i] += 1 / (rank + 1);
    recall_[i] += share;
    ndcg_[i] += discount(rank) / ideal_gain(std::min(user_targets, kCuts[i]));
  }
}

void RankSums::add_group_auc(double auc) {
  ++groups_;
  group_auc_ += auc;
}

void RankSums::merge(const RankSums& other) {
  targets_ += other.targets_;
  groups_ += other.groups_;
  users_ += other.users_;
  group_auc_ += other.group_auc_;
  for (std::size_t i = 0; i < kCuts.size(); ++i) {
    hits_[i] += other.hits_[i];
    reciprocal_[i] += other.reciprocal_[i];
    recall_[i] += other.recall_[i];
    ndcg_[i] += other.ndcg_[i];
  }
}

// Targets, groups (u64), users, group AUC (f64), then hits, reciprocal ranks, recall, NDCG by cut.
std::array<char, RankSums::kBytes> RankSums::encode() const {
  std::array<char, kBytes> bytes;
  char* at = bytes.data();
  const auto put = [&at](const auto& value) {
    std::memcpy(at, &value, sizeof value);
    at += sizeof value;
  };
  put(targets_);
  put(groups_);
  put(users_);
  put(group_auc_);
  for (const Sums* sums : {&hits_, &reciprocal_, &recall_, &ndcg_}) put(*sums);
  return bytes;
}

Result<RankSums> RankSums::decode(const char* bytes, std::size_t size) {
  if (size != kBytes) return corrupt("rank sums: wrong length");
  RankSums sums;
  const auto get = [&bytes](auto& value) {
    std::memcpy(&value, bytes, sizeof value);
    bytes += sizeof value;
  };
  get(sums.targets_);
  get(sums.groups_);
  get(sums.users_);
  get(sums.group_auc_);
  for (Sums* s : {&sums.hits_, &sums.reciprocal_, &sums.recall_, &sums.ndcg_}) get(*s);
  if (sums.targets_ > kCountMax || sums.groups_ > kCountMax) {
    return corrupt("rank sums: counts out of range");
  }
  return sums;
}

}  // namespace meander
