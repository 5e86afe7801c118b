// SPDX-License-Identifier: Apache-2.0
#include "data/merge.h"

#include <algorithm>
#include <boost/unordered/unordered_flat_map.hpp>
#include <boost/unordered/unordered_flat_set.hpp>
#include <optional>
#include <tuple>

#include "common/rng.h"
#include "data/column_file.h"

namespace meander::data {
namespace {

constexpr std::size_t kReadBytes = std::size_t{32} << 20;  // of all runs together
constexpr std::size_t kReadBytesMax = std::size_t{1} << 20;
constexpr std::size_t kRankBufferBytes = std::size_t{16} << 10;

struct Mix {
  std::size_t operator()(std::uint64_t key) const { return mix64(key); }
};

class Merge {
 public:
  Merge(Storage& storage, const LogShape& shape) : storage_(storage), shape_(shape) {}

  Status open(const std::string& directory, const std::vector<ShardDraft>& drafts) {
    const std::size_t bytes = std::min(kReadBytesMax, kReadBytes / drafts.size());
    for (const ShardDraft& draft : drafts) {
      runs_.emplace_back(storage_, draft.run_path, draft.events, bytes / sizeof(RunEntry));
      ASSIGN_OR_RETURN(ColumnWriter ranks,
                       ColumnWriter::create(storage_, draft.rank_path, sizeof(std::uint64_t),
                                            kRankBufferBytes, true));
      ranks_.push_back(std::move(ranks));
    }
    ASSIGN_OR_RETURN(
        pool_, ColumnWriter::create(storage_, join_path(directory, "pool.col"), sizeof(ItemRef)));
    if (!shape_.has_time) return {};
    ASSIGN_OR_RETURN(pool_time_,
                     ColumnWriter::create(storage_, join_path(directory, "pool_time.col"),
                                          sizeof(std::int64_t)));
    return {};
  }

  Status run() {
    for (std::uint32_t s = 0; s < runs_.size(); ++s) RETURN_IF_ERROR(push_next(s));
    for (std::uint64_t rank = 0; !heads_.empty(); ++rank) {
      std::pop_heap(heads_.begin(), heads_.end(), later);
      const Head head = heads_.back();
      heads_.pop_back();
      RETURN_IF_ERROR(ranks_[head.shard].append(rank));
      RETURN_IF_ERROR(take(*head.entry));
      RETURN_IF_ERROR(push_next(head.shard));
    }
    for (ColumnWriter& ranks : ranks_) RETURN_IF_ERROR(ranks.finish());
    RETURN_IF_ERROR(pool_->finish());
    return pool_time_ ? pool_time_->finish() : Status();
  }

  MergeResult result() const {
    MergeResult result;
    result.items.reserve(items_.size());
    for (const auto& [item, entry] : items_) result.items.push_back(entry);
    std::sort(result.items.begin(), result.items.end(),
              [](const ItemEntry& a, const ItemEntry& b) { return a.item < b.item; });
    result.categories = shape_.has_category ? categories_.size() : 0;
    return result;
  }

 private:
  struct Head {
    const RunEntry* entry;  // in its reader's chunk; used up before the reader moves on
    std::uint32_t shard;
  };
  static bool later(const Head& a, const Head& b) {
    return std::tie(a.entry->time_ms, a.entry->row) > std::tie(b.entry->time_ms, b.entry->row);
  }

  Status push_next(std::uint32_t shard) {
    if (const RunEntry* entry = runs_[shard].next()) {
      heads_.push_back({entry, shard});
      std::push_heap(heads_.begin(), heads_.end(), later);
    }
    return runs_[shard].status();
  }

  Status take(const RunEntry& entry) {
    ItemEntry& item = items_[entry.item];
    item.item = entry.item;
    item.category = entry.category;
    item.count += (entry.flags & kInTraining) != 0;
    categories_.insert(entry.category);
    if ((entry.flags & kInPool) == 0) return {};
    RETURN_IF_ERROR(pool_->append(ItemRef{entry.item, entry.category}));
    return pool_time_ ? pool_time_->append(entry.time_ms) : Status();
  }

  Storage& storage_;
  const LogShape& shape_;
  std::vector<ColumnReader<RunEntry>> runs_;
  std::vector<ColumnWriter> ranks_;
  std::vector<Head> heads_;
  std::optional<ColumnWriter> pool_, pool_time_;
  boost::unordered_flat_map<std::uint64_t, ItemEntry, Mix> items_;
  boost::unordered_flat_set<std::uint64_t, Mix> categories_;
};

}  // namespace

Result<MergeResult> merge_runs(Storage& storage, const std::string& directory,
                               const std::vector<ShardDraft>& drafts, const LogShape& shape) {
  Merge merge(storage, shape);
  RETURN_IF_ERROR(merge.open(directory, drafts));
  RETURN_IF_ERROR(merge.run());
  return merge.result();
}

}  // namespace meander::data
