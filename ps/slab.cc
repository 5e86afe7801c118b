// SPDX-License-Identifier: Apache-2.0
#include "ps/slab.h"

#include <sys/mman.h>

#include <algorithm>

#include "common/check.h"

namespace meander::ps {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::size_t round_up(std::size_t bytes, std::size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

// Zeroed pages at a huge page's boundary.
std::byte* map_aligned(std::size_t bytes) {
  void* raw = mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  PCHECK(raw != MAP_FAILED) << "out of memory: a slab of " << bytes << " bytes";
  auto* begin = static_cast<std::byte*>(raw);
  const auto address = reinterpret_cast<std::uintptr_t>(raw);
  const std::size_t head = round_up(address, kHugePage) - address;
  if (head != 0) munmap(begin, head);
  if (head != kHugePage) munmap(begin + head + bytes, kHugePage - head);
  return begin + head;
}

}  // namespace

Slab::Slab(std::size_t item_bytes) : item_bytes_(item_bytes) {
  CHECK_GT(item_bytes, 0u);
  while ((item_bytes << (shift_ + 1)) <= kSlabBytes) ++shift_;
  mask_ = static_cast<std::uint32_t>((std::uint64_t{1} << shift_) - 1);
  slab_bytes_ = round_up(item_bytes << shift_, kHugePage);
}

Slab::~Slab() {
  for (std::byte* slab : slabs_) munmap(slab, slab_bytes_);
}

std::uint32_t Slab::allocate() {
  if (!free_.empty()) {
    const std::uint32_t slot = free_.back();
    free_.pop_back();
    return slot;
  }
  CHECK_LT(slots_, kNone) << "a table of one lane holds at most 2^32 - 1 rows: use more lanes";
  if ((slots_ >> shift_) == slabs_.size()) add_slab();
  return slots_++;
}

std::vector<std::span<std::byte>> Slab::reserve(std::uint32_t items) {
  std::vector<std::span<std::byte>> untouched;
  for (std::uint64_t slot = slots_; slot < items;) {
    if ((slot >> shift_) == slabs_.size()) add_slab();
    const std::uint64_t end = std::min<std::uint64_t>(items, ((slot >> shift_) + 1) << shift_);
    untouched.emplace_back(at(static_cast<std::uint32_t>(slot)), (end - slot) * item_bytes_);
    slot = end;
  }
  return untouched;
}

void Slab::add_slab() {
  std::byte* slab = map_aligned(slab_bytes_);
  const std::size_t small = slabs_.empty() ? std::min(kSmallBytes, slab_bytes_) : 0;
  // Refused where the kernel has no huge pages: then it is only slower.
  madvise(slab + small, slab_bytes_ - small, MADV_HUGEPAGE);
  slabs_.push_back(slab);
}

void make_resident(std::span<std::byte> memory) {
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  const std::uintptr_t begin = round_up(address, kHugePage);
  const std::uintptr_t end = (address + memory.size()) / kHugePage * kHugePage;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_WRITE);
}

}  // namespace meander::ps
