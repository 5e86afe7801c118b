// SPDX-License-Identifier: Apache-2.0
#include "common/buffer.h"

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

}  // namespace meander
