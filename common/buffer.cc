// SPDX-License-Identifier: Apache-2.0
#include "common/buffer.h"

#include <algorithm>
#include <atomic>
#include <new>

namespace meander {

Buffer Buffer::allocate(std::size_t size) {
  Buffer b;
  b.size_ = size;
  if (size == 0) return b;
  const std::align_val_t align{kBufferAlign};
  b.data_ = static_cast<std::byte*>(::operator new(size, align));
  b.owner_ = std::shared_ptr<const void>(
      b.data_, [align](const void* p) { ::operator delete(const_cast<void*>(p), align); });
  return b;
}

bool Buffer::is_sole_owner() const {
  if (owner_.use_count() != 1) return false;
  std::atomic_thread_fence(std::memory_order_acquire);
  return true;
}

// The smallest that fits; else the largest free one gives way to one that does.
Buffer BufferPool::take(std::size_t size) {
  Buffer *fits = nullptr, *largest = nullptr;
  for (Buffer& buffer : kept_) {
    if (!buffer.is_sole_owner()) continue;
    if (buffer.size() >= size && (fits == nullptr || buffer.size() < fits->size())) fits = &buffer;
    if (largest == nullptr || buffer.size() > largest->size()) largest = &buffer;
  }
  if (fits == nullptr && largest == nullptr && kept_.size() < kKeptMax) {
    largest = &kept_.emplace_back();
  }
  if (fits == nullptr && largest == nullptr) return Buffer::allocate(size);
  if (fits == nullptr) {
    *largest = Buffer();
    *largest = Buffer::allocate(size + size / 4);
    fits = largest;
  }
  return fits->slice(0, size);
}

}  // namespace meander
