// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "checkpoint/generation.h"
#include "common/buffer.h"

namespace meander::ps {

// Copies of one table's records, one behind the other: key u64, step u64, count u32, floats u32,
// then the floats. Floats of all admitted ones are as many.
class PackedRecords {
 public:
  void add(const checkpoint::Record& record) {
    const Head head{record.key, record.step, record.count,
                    record.admitted ? static_cast<std::uint32_t>(record.values.size()) : kCounter};
    append(&head, sizeof(head));
    append(record.values.data(), record.values.size_bytes());
  }
  void append(const PackedRecords& other) {
    bytes_.insert(bytes_.end(), other.bytes_.begin(), other.bytes_.end());
  }
  std::size_t bytes() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  void clear() { bytes_.clear(); }

  // Its bytes, for a message; nothing is left.
  Buffer release() { return Buffer::own(std::exchange(bytes_, {})); }

  // Calls visit(record) for each; stops at the first error.
  template <class Visit>
  Status visit(Visit visit) const {
    return PackedRecords::visit(std::span(bytes_), visit);
  }
  // Of bytes that somebody sent, at a boundary of 8. kCorrupt: they are no records.
  template <class Visit>
  static Status visit(std::span<const std::byte> bytes, Visit visit) {
    for (std::size_t at = 0; at < bytes.size();) {
      Head head;
      if (bytes.size() - at < sizeof(head)) return corrupt("a record is cut off");
      std::memcpy(&head, bytes.data() + at, sizeof(head));
      const std::size_t floats = head.floats == kCounter ? 0 : head.floats;
      if ((bytes.size() - at - sizeof(head)) / sizeof(float) < floats) {
        return corrupt("a record is cut off");
      }
      const auto* values = reinterpret_cast<const float*>(bytes.data() + at + sizeof(head));
      RETURN_IF_ERROR(visit(checkpoint::Record{
          head.key, head.step, head.count, head.floats != kCounter, {values, floats}}));
      at += sizeof(head) + floats * sizeof(float);
    }
    return {};
  }

 private:
  static constexpr std::uint32_t kCounter = ~std::uint32_t{0};  // not admitted
  struct Head {
    std::uint64_t key, step;
    std::uint32_t count, floats;
  };
  static_assert(sizeof(Head) == 24);

  void append(const void* from, std::size_t size) {
    const auto* bytes = static_cast<const std::byte*>(from);
    bytes_.insert(bytes_.end(), bytes, bytes + size);
  }

  std::vector<std::byte> bytes_;
};

}  // namespace meander::ps
