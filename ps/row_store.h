// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <emmintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "common/check.h"
#include "common/rng.h"
#include "ps/slab.h"

namespace meander::ps {

// Rows of one width under 64-bit keys (every key is legal): an index of cache-line buckets and rows
// in slabs. docs/table.md draws both.
//
// Index: extendible hashing. A directory leads from some bits of the key's hash to a segment of 256
// buckets; a segment that is kLoad full is split in two, which is all that ever moves at once. A
// bucket is one cache line: 12 one-byte tags, 12 slots, and how many rows passed it by because it
// was full (they lie in the buckets that follow, inside the segment). Row: key u64, last step and
// touch count (40 + 24 bits), then `values` floats.
//
// Slots are stable as long as the row lives. Not thread safe; concurrent const calls are.
class RowStore {
 public:
  static constexpr std::uint32_t kNone = Slab::kNone;
  static constexpr std::uint32_t kWays = 12;
  static constexpr std::uint32_t kBuckets = 256;
  static constexpr std::uint32_t kLoad = kWays * kBuckets * 85 / 100;  // rows of a segment
  static constexpr std::uint32_t kCountMax = (1u << 24) - 1;           // a touch count stays there
  static constexpr std::uint64_t kStepMax = (std::uint64_t{1} << 40) - 2;
  static constexpr std::size_t kHeaderBytes = 16;

  explicit RowStore(std::size_t values);

  static std::uint64_t hash(std::uint64_t key) { return mix64(key); }
  void prefetch_bucket(std::uint64_t hash) const { ask_for(&home(hash)); }
  // The slot of a row that may be the key's (compare key()), or kNone: it is certainly absent.
  std::uint32_t candidate(std::uint64_t hash) const;
  void prefetch_row(std::uint32_t slot, std::size_t bytes) const {
    const std::byte* row = rows_.at(slot);
    for (std::size_t i = 0; i + 1 < bytes; i += 64) ask_for(row + i);
    ask_for(row + bytes - 1);
  }
  // The key's slot, or kNone.
  std::uint32_t find(std::uint64_t key, std::uint64_t hash) const;
  // Adds a row whose values are not set. The key must be absent.
  std::uint32_t insert(std::uint64_t key, std::uint64_t hash);
  void erase(std::uint64_t key, std::uint64_t hash);  // the key must be there
  // Makes room in the index for so many rows in all, so that inserting them moves nothing. What
  // Slab::reserve() says of the rows.
  std::vector<std::span<std::byte>> reserve(std::uint64_t rows);

  std::uint64_t key(std::uint32_t slot) const { return load(rows_.at(slot)); }
  float* values(std::uint32_t slot) {
    return reinterpret_cast<float*>(rows_.at(slot) + kHeaderBytes);
  }
  const float* values(std::uint32_t slot) const {
    return reinterpret_cast<const float*>(rows_.at(slot) + kHeaderBytes);
  }
  std::uint64_t step(std::uint32_t slot) const { return meta(slot) >> 24; }
  std::uint32_t count(std::uint32_t slot) const {
    return static_cast<std::uint32_t>(meta(slot)) & kCountMax;
  }
  void set_touched(std::uint32_t slot, std::uint64_t step, std::uint32_t count) {
    const std::uint64_t meta = step << 24 | std::min(count, kCountMax);
    std::memcpy(rows_.at(slot) + 8, &meta, sizeof(meta));
  }
  // One more touch, at `step`.
  void touch(std::uint32_t slot, std::uint64_t step) { set_touched(slot, step, count(slot) + 1); }

  // True if the slot holds a row now: also for slots out of any range.
  bool is_live(std::uint32_t slot) const { return slot < rows_.slots() && meta(slot) != kFree; }
  std::uint32_t slots() const { return rows_.slots(); }  // for iteration, with is_live()
  std::uint64_t size() const { return size_; }
  std::size_t row_bytes() const { return rows_.item_bytes(); }
  std::size_t index_bytes() const;

 private:
  struct alignas(64) Bucket {
    std::uint8_t tag[kWays];  // 0: empty
    std::uint16_t passed;     // rows whose way led past this full bucket
    std::uint16_t segment;    // of bucket 0: the segment's rows; of bucket 1: its depth
    std::uint32_t slot[kWays];
  };
  static_assert(sizeof(Bucket) == 64);
  using Segment = Bucket*;                                   // kBuckets of them
  static constexpr std::uint64_t kFree = ~std::uint64_t{0};  // meta of a slot without a row

  // The hash's bits: 0-7 tag, 8-15 bucket, 16-49 directory, 50-63 partition (common/partition.h).
  static std::uint8_t tag_of(std::uint64_t hash) {
    const auto tag = static_cast<std::uint8_t>(hash);
    return tag == 0 ? 1 : tag;
  }
  // Into the second-level cache: it waits for more lines at once than the first, by a third of the
  // rate of a bare gather.
  static void ask_for(const void* line) { __builtin_prefetch(line, 0, 2); }
  static std::uint32_t bucket_of(std::uint64_t hash) { return (hash >> 8) & (kBuckets - 1); }
  static std::uint64_t directory_bits(std::uint64_t hash) { return (hash >> 16) & 0x3ffffffffull; }
  static std::uint64_t load(const std::byte* p) {
    std::uint64_t v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  static std::uint32_t matches(const Bucket& bucket, std::uint8_t tag) {
    const __m128i tags = _mm_load_si128(reinterpret_cast<const __m128i*>(bucket.tag));
    const __m128i equal = _mm_cmpeq_epi8(tags, _mm_set1_epi8(static_cast<char>(tag)));
    return static_cast<std::uint32_t>(_mm_movemask_epi8(equal)) & ((1u << kWays) - 1);
  }

  std::uint64_t meta(std::uint32_t slot) const { return load(rows_.at(slot) + 8); }
  Segment segment(std::uint64_t hash) const {
    return directory_[directory_bits(hash) & (directory_.size() - 1)];
  }
  const Bucket& home(std::uint64_t hash) const { return segment(hash)[bucket_of(hash)]; }
  // Where the key's tag lies: bucket and way; null when absent.
  struct Place {
    Bucket* bucket;
    std::uint32_t way;
  };
  Place locate(std::uint64_t key, std::uint64_t hash) const;
  Segment new_segment(std::uint16_t depth);
  static void place(Segment segment, std::uint64_t hash, std::uint32_t slot);
  void split(std::uint64_t hash);

  Slab rows_;
  Slab segments_;
  std::vector<Segment> directory_;
  std::uint64_t size_ = 0;
};

}  // namespace meander::ps
