// SPDX-License-Identifier: Apache-2.0
#include "ps/row_store.h"

#include <array>

namespace meander::ps {

RowStore::RowStore(std::size_t values)
    : rows_(kHeaderBytes + values * sizeof(float)), segments_(kBuckets * sizeof(Bucket)) {
  directory_.push_back(new_segment(0));
}

RowStore::Segment RowStore::new_segment(std::uint16_t depth) {
  auto* segment = reinterpret_cast<Bucket*>(segments_.at(segments_.allocate()));
  segment[1].segment = depth;
  return segment;
}

std::uint32_t RowStore::candidate(std::uint64_t hash) const {
  const Segment in = segment(hash);
  const std::uint8_t tag = tag_of(hash);
  for (std::uint32_t i = 0; i < kBuckets; ++i) {
    const Bucket& bucket = in[(bucket_of(hash) + i) & (kBuckets - 1)];
    if (const std::uint32_t found = matches(bucket, tag)) return bucket.slot[__builtin_ctz(found)];
    if (bucket.passed == 0) return kNone;
  }
  return kNone;
}

RowStore::Place RowStore::locate(std::uint64_t key, std::uint64_t hash) const {
  const Segment in = segment(hash);
  const std::uint8_t tag = tag_of(hash);
  for (std::uint32_t i = 0; i < kBuckets; ++i) {
    Bucket& bucket = in[(bucket_of(hash) + i) & (kBuckets - 1)];
    for (std::uint32_t found = matches(bucket, tag); found != 0; found &= found - 1) {
      const auto way = static_cast<std::uint32_t>(__builtin_ctz(found));
      if (this->key(bucket.slot[way]) == key) return {&bucket, way};
    }
    if (bucket.passed == 0) break;
  }
  return {nullptr, 0};
}

std::uint32_t RowStore::find(std::uint64_t key, std::uint64_t hash) const {
  const Place at = locate(key, hash);
  return at.bucket == nullptr ? kNone : at.bucket->slot[at.way];
}

void RowStore::place(Segment segment, std::uint64_t hash, std::uint32_t slot) {
  for (std::uint32_t i = 0; i < kBuckets; ++i) {
    Bucket& bucket = segment[(bucket_of(hash) + i) & (kBuckets - 1)];
    if (const std::uint32_t empty = matches(bucket, 0)) {
      const int way = __builtin_ctz(empty);
      bucket.tag[way] = tag_of(hash);
      bucket.slot[way] = slot;
      ++segment[0].segment;
      return;
    }
    ++bucket.passed;
  }
  LOG(FATAL) << "a segment below its load limit has an empty way";
}

std::uint32_t RowStore::insert(std::uint64_t key, std::uint64_t hash) {
  // One split is enough unless all of the segment's rows fall on one side.
  while (segment(hash)[0].segment >= kLoad) split(hash);
  const std::uint32_t slot = rows_.allocate();
  std::memcpy(rows_.at(slot), &key, sizeof(key));
  set_touched(slot, 0, 0);
  place(segment(hash), hash, slot);
  ++size_;
  return slot;
}

void RowStore::erase(std::uint64_t key, std::uint64_t hash) {
  const Place at = locate(key, hash);
  CHECK(at.bucket != nullptr) << "erase of an absent key";
  const std::uint32_t slot = at.bucket->slot[at.way];
  const Segment in = segment(hash);
  for (Bucket* bucket = &in [bucket_of(hash)]; bucket != at.bucket;
       bucket = &in[(bucket - in + 1) & (kBuckets - 1)]) {
    --bucket->passed;
  }
  at.bucket->tag[at.way] = 0;
  --in[0].segment;
  std::memcpy(rows_.at(slot) + 8, &kFree, sizeof(kFree));
  rows_.release(slot);
  --size_;
}

std::vector<std::span<std::byte>> RowStore::reserve(std::uint64_t rows) {
  // Segments fill unevenly: with so many rows in each on average, few are ever split.
  constexpr std::uint64_t kAverage = kLoad * 8 / 10;
  while (directory_.size() * kAverage < rows) {
    const std::uint64_t half = directory_.size();
    for (std::uint64_t i = 0; i < half; ++i) split(i << 16);
  }
  return rows_.reserve(static_cast<std::uint32_t>(std::min<std::uint64_t>(rows, kNone)));
}

void RowStore::split(std::uint64_t hash) {
  const Segment old = segment(hash);
  const std::uint16_t depth = old[1].segment;
  if ((std::uint64_t{1} << depth) == directory_.size()) {
    const std::size_t half = directory_.size();
    directory_.resize(2 * half);
    std::copy_n(directory_.begin(), half, directory_.begin() + half);
  }
  CHECK_LT(depth, 34) << "more keys share 34 bits of their hash than a segment holds";
  const Segment added = new_segment(depth + 1);
  const std::uint64_t bit = std::uint64_t{1} << depth;
  for (std::uint64_t i = (directory_bits(hash) & (bit - 1)) | bit; i < directory_.size();
       i += 2 * bit) {
    directory_[i] = added;
  }

  struct Entry {
    std::uint64_t hash;
    std::uint32_t slot;
  };
  std::array<Entry, kLoad> entries;
  std::size_t n = 0;
  for (std::uint32_t b = 0; b < kBuckets; ++b) {
    for (std::uint32_t way = 0; way < kWays; ++way) {
      if (old[b].tag[way] == 0) continue;
      entries[n].slot = old[b].slot[way];
      __builtin_prefetch(rows_.at(entries[n++].slot));
    }
  }
  for (std::size_t i = 0; i < n; ++i) entries[i].hash = RowStore::hash(key(entries[i].slot));
  std::memset(static_cast<void*>(old), 0, kBuckets * sizeof(Bucket));
  old[1].segment = depth + 1;
  for (std::size_t i = 0; i < n; ++i) {
    place(directory_bits(entries[i].hash) & bit ? added : old, entries[i].hash, entries[i].slot);
  }
}

std::size_t RowStore::index_bytes() const {
  return std::size_t{segments_.slots()} * kBuckets * sizeof(Bucket) +
         directory_.capacity() * sizeof(Segment);
}

}  // namespace meander::ps
