// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace meander::ps {

// Items of one size that never move, under 32-bit slots. Memory is taken from the system in slabs
// of up to kSlabBytes on huge pages, and becomes resident as slots are used; the first kSmallBytes
// are on small pages, so that a tiny table costs little. New items are zeros; a released slot is
// given out again as it was left. Not thread safe; concurrent at() is, while nobody allocates.
class Slab {
 public:
  static constexpr std::size_t kSlabBytes = std::size_t{32} << 20;
  static constexpr std::size_t kSmallBytes = std::size_t{2} << 20;
  static constexpr std::uint32_t kNone = 0xffffffffu;  // no slot

  explicit Slab(std::size_t item_bytes);
  ~Slab();
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;

  std::uint32_t allocate();
  // So many items in all are about to be allocated. What of their memory is not resident yet: see
  // make_resident().
  std::vector<std::span<std::byte>> reserve(std::uint32_t items);
  void release(std::uint32_t slot) { free_.push_back(slot); }
  // The item's address. `slot` must be below slots().
  std::byte* at(std::uint32_t slot) const {
    return slabs_[slot >> shift_] + (slot & mask_) * item_bytes_;
  }
  // One more than the highest slot given out so far.
  std::uint32_t slots() const { return slots_; }
  std::size_t item_bytes() const { return item_bytes_; }
  // Address space taken; what is resident is less.
  std::size_t reserved_bytes() const { return slabs_.size() * slab_bytes_; }

 private:
  void add_slab();

  std::size_t item_bytes_, slab_bytes_;
  unsigned shift_ = 0;
  std::uint32_t mask_ = 0, slots_ = 0;
  std::vector<std::byte*> slabs_;
  std::vector<std::uint32_t> free_;
};

// Takes pages from the system for the whole 2 MiB of it, which would else be done at their first
// touch. What they hold stays as it is; others may use them meanwhile. Only a hint.
void make_resident(std::span<std::byte> memory);

}  // namespace meander::ps
