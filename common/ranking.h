// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "common/status.h"

namespace meander {

// Sums from which ranking metrics of any set of targets follow. Each target has a place among its
// candidates, 0 for the best. Two can be merged, in any order.
//
// A user may have several targets (a list of held-out items that are all ranked at once): hit rate
// and reciprocal rank are means over targets; recall and NDCG are means over users, with the ideal
// DCG of min(k, the user's targets). Where every user has one target, recall is the hit rate.
class RankSums {
 public:
  static constexpr std::array<std::uint32_t, 4> kCuts = {1, 5, 10, 20};

  // `user_targets`: how many targets the user has, this one among them (at least 1).
  void add(double rank, std::uint32_t user_targets);
  // Of one target beside its negatives: the share of them that score below it, equal ones by half.
  void add_group_auc(double auc);
  void merge(const RankSums& other);

  std::uint64_t targets() const { return targets_; }
  double hit_rate(std::uint32_t cut) const { return mean(hits_, cut, targets_); }
  double reciprocal_rank(std::uint32_t cut) const { return mean(reciprocal_, cut, targets_); }
  double recall(std::uint32_t cut) const { return mean(recall_, cut, users_); }
  double ndcg(std::uint32_t cut) const { return mean(ndcg_, cut, users_); }
  // Mean over the targets that have negatives of their own; NaN without any.
  double group_auc() const;

  static constexpr std::size_t kBytes = (2 + 2 + 4 * kCuts.size()) * 8;
  std::array<char, kBytes> encode() const;
  static Result<RankSums> decode(const char* bytes, std::size_t size);  // kCorrupt

 private:
  using Sums = std::array<double, kCuts.size()>;
  static std::size_t index_of(std::uint32_t cut);
  static double mean(const Sums& sums, std::uint32_t cut, double count);

  std::uint64_t targets_ = 0, groups_ = 0;
  double users_ = 0;  // sum over targets of 1 / the user's targets
  double group_auc_ = 0;
  Sums hits_{}, reciprocal_{}, recall_{}, ndcg_{};  // by cut
};

}  // namespace meander
