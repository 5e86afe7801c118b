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
constexpr std::uint64_t kWindow = std::uint64_t{1} << 14;  // ranks

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
      if (shape_.rows_in_order) continue;
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
    RETURN_IF_ERROR(shape_.rows_in_order ? run_by_rank() : run_by_time());
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
  // Every rank is there once: a window of them is filled by all runs in turn, then taken in order.
  Status run_by_rank() {
    std::vector<RunEntry> window(kWindow);
    std::uint64_t begin = 0, end = 0;  // of the window's ranks
    do {
      begin = end;
      for (auto& run : runs_) {
        const RunEntry* entry = run.peek();
        for (; entry != nullptr && entry->row < begin + kWindow; entry = run.peek()) {
          window[entry->row - begin] = *entry;
          ++end;
          run.next();
        }
        RETURN_IF_ERROR(run.status());
      }
      for (std::uint64_t rank = begin; rank < end; ++rank) take(window[rank - begin]);
      RETURN_IF_ERROR(status());
    } while (end == begin + kWindow);
    return {};
  }

  Status run_by_time() {
    for (std::uint32_t s = 0; s < runs_.size(); ++s) {
      if (runs_[s].peek() != nullptr) heads_.push_back(s);
      RETURN_IF_ERROR(runs_[s].status());
    }
    const auto later = [this](std::uint32_t a, std::uint32_t b) {
      const RunEntry *x = runs_[a].peek(), *y = runs_[b].peek();
      return std::tie(x->time_ms, x->row) > std::tie(y->time_ms, y->row);
    };
    std::make_heap(heads_.begin(), heads_.end(), later);
    for (std::uint64_t rank = 0; !heads_.empty(); ++rank) {
      std::pop_heap(heads_.begin(), heads_.end(), later);
      const std::uint32_t shard = heads_.back();
      ranks_[shard].append(rank);
      take(*runs_[shard].next());
      if (runs_[shard].peek() != nullptr) {
        std::push_heap(heads_.begin(), heads_.end(), later);
      } else {
        RETURN_IF_ERROR(runs_[shard].status());
        heads_.pop_back();
      }
      if (rank % kWindow == 0) RETURN_IF_ERROR(status());
    }
    for (ColumnWriter& ranks : ranks_) RETURN_IF_ERROR(ranks.finish());
    return {};
  }

  void take(const RunEntry& entry) {
    auto [found, is_new] = items_.try_emplace(entry.item);
    ItemEntry& item = found->second;
    if (is_new || item.category != entry.category) categories_.insert(entry.category);
    item.item = entry.item;
    item.category = entry.category;
    item.count += (entry.flags & kInTraining) != 0;
    if ((entry.flags & kInPool) == 0) return;
    pool_->append(ItemRef{entry.item, entry.category});
    if (pool_time_) pool_time_->append(entry.time_ms);
  }

  // The first error of what is written; looked at now and then, for a disk that is full is no less
  // so for a few more rows.
  const Status& status() const {
    for (const ColumnWriter& ranks : ranks_) {
      if (!ranks.status().ok()) return ranks.status();
    }
    return pool_time_ && !pool_time_->status().ok() ? pool_time_->status() : pool_->status();
  }

  Storage& storage_;
  const LogShape& shape_;
  std::vector<ColumnReader<RunEntry>> runs_;
  std::vector<ColumnWriter> ranks_;
  std::vector<std::uint32_t> heads_;  // a heap of the runs that go on, by what is next in each
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
