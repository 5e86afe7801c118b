// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <vector>

#include "net/transport.h"

namespace meander::net {

// The memory of a link between two processes of one host: for each of its two directions a ring of
// messages and an arena that they lie in (docs/protocol.md draws it). It has no name: it is gone
// with the last process that holds it, however that ends. What the other process may write is
// checked before use, so that its faults cost no more than what it sent.
class ShmArea {
 public:
  static constexpr std::size_t kMessagesMax = 1024;  // of a direction, sent and not yet taken
  static constexpr std::size_t kArenaBytes = std::size_t{256} << 20;  // only what is used is there

  struct Ring {
    alignas(64) std::atomic<std::uint64_t> head;    // messages sent
    alignas(64) std::atomic<std::uint64_t> tail;    // messages taken
    alignas(64) std::atomic<std::uint32_t> sleeps;  // the receiver waits: ring its bell
    alignas(64) std::array<std::uint64_t, kMessagesMax> blocks;
  };
  // In front of every piece of the arena. 0 references: the sender may use it again.
  struct alignas(64) Block {
    std::atomic<std::uint32_t> references;
  };

  static Result<std::shared_ptr<ShmArea>> create();
  // As another process made it. kInvalid: it could shrink under us, or has not our size.
  static Result<std::shared_ptr<ShmArea>> open(int descriptor);
  ~ShmArea();
  ShmArea(const ShmArea&) = delete;
  ShmArea& operator=(const ShmArea&) = delete;

  int descriptor() const { return descriptor_; }
  Ring& ring(int direction) { return reinterpret_cast<Ring*>(memory_)[direction]; }
  std::byte* arena(int direction) { return memory_ + kArenaStart + direction * kArenaBytes; }
  Block& block(int direction, std::uint64_t offset) {
    return *reinterpret_cast<Block*>(arena(direction) + offset);
  }

 private:
  static constexpr std::size_t kArenaStart = std::size_t{32} << 10;
  static constexpr std::size_t kBytes = kArenaStart + 2 * kArenaBytes;
  static_assert(2 * sizeof(Ring) <= kArenaStart);

  ShmArea(int descriptor, std::byte* memory) : descriptor_(descriptor), memory_(memory) {}
  static Result<std::shared_ptr<ShmArea>> map(int descriptor);

  int descriptor_;
  std::byte* memory_;
};

// The sending end of a direction. One thread; Buffers that it has given may end on any.
class ShmSender {
 public:
  ShmSender(std::shared_ptr<ShmArea> area, int direction);

  // Memory that send() need not copy from. An empty Buffer: there is no room.
  Buffer allocate(std::size_t size);
  enum class Outcome { kSent, kFull, kTooBig };
  // kFull: kMessagesMax are on their way. kTooBig: the arena has no room for the frames now.
  Outcome send(const wire::Header& header, const std::vector<Buffer>& frames);
  // True: the receiver sleeps and is to be woken, once.
  bool takes_waking();

 private:
  static constexpr std::uint64_t kNone = ~std::uint64_t{0};
  static constexpr int kClassFirst = 9;  // the smallest block has 2^9 bytes
  static constexpr int kClasses = 20;
  struct Piece {
    std::uint64_t offset;
    int size_class;
    std::uint64_t end() const { return offset + (std::uint64_t{1} << (kClassFirst + size_class)); }
  };

  std::uint64_t take_block(std::size_t bytes);
  void reclaim();
  // The block of a frame that allocate() has given, or kNone.
  std::uint64_t block_of(const Buffer& frame) const;

  std::shared_ptr<ShmArea> area_;
  int direction_;
  std::byte* arena_;
  std::vector<Piece> used_;
  std::array<std::vector<std::uint64_t>, kClasses> free_;
  std::uint64_t next_ = 0;             // what lies above was never used
  std::vector<std::uint64_t> blocks_;  // of the frames being sent
};

// The receiving end. One thread; Buffers that it has given may end on any.
class ShmReceiver {
 public:
  ShmReceiver(std::shared_ptr<ShmArea> area, int direction);

  enum class Outcome { kNothing, kMessage, kMalformed, kBroken };
  // kMessage: the frames are views of the area, and keep it. kMalformed: one was thrown away.
  // kBroken: the ring makes no sense; nothing more can be expected of this link.
  Outcome receive(Message& message);
  bool is_empty() const { return ring_.head.load(std::memory_order_acquire) == tail_; }
  // Before and after waiting for the bell. True: really nothing is there.
  bool falls_asleep();
  void wakes_up() { ring_.sleeps.store(0, std::memory_order_relaxed); }

 private:
  bool parse(std::uint64_t offset, Message& message);

  std::shared_ptr<ShmArea> area_;
  int direction_;
  ShmArea::Ring& ring_;
  std::byte* arena_;
  std::uint64_t tail_;
};

}  // namespace meander::net
