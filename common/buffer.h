// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "common/check.h"

namespace meander {

constexpr std::size_t kBufferAlign = 64;  // a cache line, and an AVX-512 register

// A run of bytes with a shared owner: copying a Buffer copies a pointer. The one who allocated it
// writes it; once handed over it is read only.
class Buffer {
 public:
  Buffer() = default;

  // `size` bytes at a 64-byte boundary, not initialised.
  static Buffer allocate(std::size_t size);
  // A copy of `bytes`, aligned.
  static Buffer copy_of(const void* bytes, std::size_t size) {
    Buffer b = allocate(size);
    if (size != 0) std::memcpy(b.data(), bytes, size);
    return b;
  }
  template <class T>
  static Buffer copy_of(std::span<const T> values) {
    return copy_of(values.data(), values.size_bytes());
  }
  // Bytes that somebody else keeps alive: `owner` is held as long as the Buffer is.
  static Buffer view(const void* bytes, std::size_t size, std::shared_ptr<const void> owner) {
    Buffer b;
    b.data_ = static_cast<std::byte*>(const_cast<void*>(bytes));
    b.size_ = size;
    b.owner_ = std::move(owner);
    return b;
  }
  template <class T>
  static Buffer own(std::vector<T> values) {
    auto owner = std::make_shared<std::vector<T>>(std::move(values));
    return view(owner->data(), owner->size() * sizeof(T), owner);
  }

  std::byte* data() { return data_; }
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  // Does nobody else hold these bytes? Then what others did with them is done.
  bool is_sole_owner() const;

  // The bytes as values of T. CHECKs that they are aligned and a whole number: a length that a peer
  // sent must have been validated before (see holds<T>()).
  template <class T>
  std::span<const T> as() const {
    CHECK(holds<T>()) << size_ << " bytes are not an array of " << sizeof(T) << "-byte values";
    return {reinterpret_cast<const T*>(data_), size_ / sizeof(T)};
  }
  template <class T>
  std::span<T> as_mutable() {
    CHECK(holds<T>());
    return {reinterpret_cast<T*>(data_), size_ / sizeof(T)};
  }
  template <class T>
  bool holds() const {
    return size_ % sizeof(T) == 0 && reinterpret_cast<std::uintptr_t>(data_) % alignof(T) == 0;
  }
  Buffer slice(std::size_t offset, std::size_t size) const {
    CHECK_LE(offset + size, size_);
    return view(data_ + offset, size, owner_);
  }

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::shared_ptr<const void> owner_;
};

// Buffers whose memory is used again once nobody holds them: what comes and goes at the same sizes
// is allocated once. One thread takes; the Buffers may end on any.
class BufferPool {
 public:
  // `size` bytes at a 64-byte boundary, not initialised.
  Buffer take(std::size_t size);

 private:
  static constexpr std::size_t kKeptMax = 64;  // beyond them, memory is not used again
  std::vector<Buffer> kept_;
};

}  // namespace meander
