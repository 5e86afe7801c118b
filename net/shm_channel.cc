// SPDX-License-Identifier: Apache-2.0
#include "net/shm_channel.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

namespace meander::net {
namespace {

constexpr std::size_t kAlign = sizeof(ShmArea::Block);

// A message in its block: this, then where its frames are, then the header's bytes and the frames
// that have no block of their own, each at a cache line.
struct Head {
  std::uint32_t header_bytes;
  std::uint32_t frames;
};
struct FrameAt {
  std::uint64_t block;   // that the frame keeps
  std::uint64_t offset;  // of its bytes
  std::uint64_t size;
};

std::size_t aligned(std::size_t size) { return (size + kAlign - 1) / kAlign * kAlign; }

bool is_inside(std::uint64_t offset, std::uint64_t size) {
  return offset <= ShmArea::kArenaBytes && size <= ShmArea::kArenaBytes - offset;
}
bool is_block(std::uint64_t offset) { return offset % kAlign == 0 && is_inside(offset, kAlign); }

void release(ShmArea::Block& block) { block.references.fetch_sub(1, std::memory_order_release); }

// Keeps the blocks of a message, and the area, as long as one of its frames is kept.
struct Kept {
  std::shared_ptr<ShmArea> area;
  int direction;
  std::vector<std::uint64_t> blocks;
  ~Kept() {
    for (const std::uint64_t block : blocks) release(area->block(direction, block));
  }
};

}  // namespace

Result<std::shared_ptr<ShmArea>> ShmArea::map(int descriptor) {
  void* memory = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (memory == MAP_FAILED) {
    const int error = errno;
    ::close(descriptor);
    return unavailable(std::string("cannot map shared memory: ") + std::strerror(error));
  }
  return std::shared_ptr<ShmArea>(new ShmArea(descriptor, static_cast<std::byte*>(memory)));
}

Result<std::shared_ptr<ShmArea>> ShmArea::create() {
  const int descriptor = ::memfd_create("meander", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (descriptor < 0 || ::ftruncate(descriptor, kBytes) != 0 ||
      ::fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    const int error = errno;
    if (descriptor >= 0) ::close(descriptor);
    return unavailable(std::string("cannot make shared memory: ") + std::strerror(error));
  }
  return map(descriptor);  // its zero bytes are an empty area
}

Result<std::shared_ptr<ShmArea>> ShmArea::open(int descriptor) {
  struct stat status{};
  const int seals = ::fcntl(descriptor, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || ::fstat(descriptor, &status) != 0 ||
      status.st_size != static_cast<off_t>(kBytes)) {
    ::close(descriptor);
    return invalid("not the shared memory of a link");
  }
  return map(descriptor);
}

ShmArea::~ShmArea() {
  ::munmap(memory_, kBytes);
  ::close(descriptor_);
}

ShmSender::ShmSender(std::shared_ptr<ShmArea> area, int direction)
    : area_(std::move(area)), direction_(direction), arena_(area_->arena(direction)) {}

// Blocks are powers of two: what was used once is warm, and fits the next request of its kind.
std::uint64_t ShmSender::take_block(std::size_t bytes) {
  const int size_class =
      std::max(0, static_cast<int>(std::bit_width(bytes + kAlign - 1)) - kClassFirst);
  if (size_class >= kClasses) return kNone;
  auto& free = free_[size_class];
  if (free.empty()) reclaim();
  Piece piece{next_, size_class};
  if (!free.empty()) {
    piece.offset = free.back();
    free.pop_back();
  } else if (piece.end() <= ShmArea::kArenaBytes) {
    next_ = piece.end();
  } else {
    return kNone;
  }
  used_.push_back(piece);
  area_->block(direction_, piece.offset).references.store(1, std::memory_order_relaxed);
  return piece.offset;
}

void ShmSender::reclaim() {
  std::erase_if(used_, [&](const Piece& piece) {
    const auto& references = area_->block(direction_, piece.offset).references;
    if (references.load(std::memory_order_acquire) != 0) return false;
    free_[piece.size_class].push_back(piece.offset);
    return true;
  });
  if (!used_.empty()) return;
  for (auto& free : free_) free.clear();  // so that the arena can be cut anew
  next_ = 0;
}

Buffer ShmSender::allocate(std::size_t size) {
  const std::uint64_t offset = take_block(size);
  if (offset == kNone) return {};
  auto keeper = [area = area_, direction = direction_, offset](const void*) {
    release(area->block(direction, offset));
  };
  std::byte* bytes = arena_ + offset + kAlign;
  return Buffer::view(bytes, size, std::shared_ptr<const void>(bytes, std::move(keeper)));
}

std::uint64_t ShmSender::block_of(const Buffer& frame) const {
  if (frame.data() < arena_ || frame.data() >= arena_ + ShmArea::kArenaBytes) return kNone;
  const auto at = static_cast<std::uint64_t>(frame.data() - arena_);
  if (at % sizeof(std::uint64_t) != 0) return kNone;  // frames arrive aligned: by a copy
  for (const Piece& piece : used_) {
    if (at > piece.offset && at < piece.end()) return piece.offset;
  }
  return kNone;
}

ShmSender::Outcome ShmSender::send(const wire::Header& header, const std::vector<Buffer>& frames) {
  ShmArea::Ring& ring = area_->ring(direction_);
  const std::uint64_t head = ring.head.load(std::memory_order_relaxed);
  if (head - ring.tail.load(std::memory_order_acquire) >= ShmArea::kMessagesMax) {
    return Outcome::kFull;
  }
  const std::size_t header_bytes = header.ByteSizeLong();
  CHECK_LE(header_bytes, kHeaderBytesMax);
  const std::size_t frames_at = sizeof(Head) + frames.size() * sizeof(FrameAt);
  std::size_t size = aligned(frames_at + header_bytes);
  blocks_.clear();
  for (const Buffer& frame : frames) {
    blocks_.push_back(block_of(frame));
    if (blocks_.back() == kNone) size += aligned(frame.size());
  }
  const std::uint64_t block = take_block(size);
  if (block == kNone) return Outcome::kTooBig;

  const std::uint64_t begin = block + kAlign;
  std::byte* const out = arena_ + begin;
  const Head counts{static_cast<std::uint32_t>(header_bytes),
                    static_cast<std::uint32_t>(frames.size())};
  std::memcpy(out, &counts, sizeof counts);
  header.SerializeWithCachedSizesToArray(reinterpret_cast<std::uint8_t*>(out + frames_at));
  std::uint64_t at = begin + aligned(frames_at + header_bytes);
  for (std::size_t i = 0; i < frames.size(); ++i) {
    FrameAt where{block, at, frames[i].size()};
    if (blocks_[i] != kNone) {
      where.block = blocks_[i];
      where.offset = static_cast<std::uint64_t>(frames[i].data() - arena_);
      area_->block(direction_, where.block).references.fetch_add(1, std::memory_order_relaxed);
    } else {
      if (!frames[i].empty()) std::memcpy(arena_ + at, frames[i].data(), frames[i].size());
      at += aligned(frames[i].size());
    }
    std::memcpy(out + sizeof(Head) + i * sizeof(FrameAt), &where, sizeof where);
  }
  ring.blocks[head % ShmArea::kMessagesMax] = block;
  ring.head.store(head + 1, std::memory_order_release);
  return Outcome::kSent;
}

bool ShmSender::takes_waking() {
  std::atomic_thread_fence(std::memory_order_seq_cst);  // with falls_asleep(): one sees the other
  auto& sleeps = area_->ring(direction_).sleeps;
  return sleeps.load(std::memory_order_relaxed) != 0 && sleeps.exchange(0) != 0;
}

ShmReceiver::ShmReceiver(std::shared_ptr<ShmArea> area, int direction)
    : area_(std::move(area)),
      direction_(direction),
      ring_(area_->ring(direction)),
      arena_(area_->arena(direction)),
      tail_(ring_.tail.load()) {}

bool ShmReceiver::falls_asleep() {
  ring_.sleeps.store(1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return is_empty();
}

ShmReceiver::Outcome ShmReceiver::receive(Message& message) {
  const std::uint64_t sent = ring_.head.load(std::memory_order_acquire) - tail_;
  if (sent == 0) return Outcome::kNothing;
  if (sent > ShmArea::kMessagesMax) return Outcome::kBroken;
  const bool is_good = parse(ring_.blocks[tail_ % ShmArea::kMessagesMax], message);
  ring_.tail.store(++tail_, std::memory_order_release);
  return is_good ? Outcome::kMessage : Outcome::kMalformed;
}

// The sender may write while this reads: each value is copied once, checked, and then used.
bool ShmReceiver::parse(std::uint64_t offset, Message& message) {
  if (!is_block(offset) || !is_inside(offset, kAlign + sizeof(Head))) return false;
  const std::uint64_t begin = offset + kAlign;
  Head head;
  std::memcpy(&head, arena_ + begin, sizeof head);
  if (head.header_bytes > kHeaderBytesMax || head.frames > kFramesMax) return false;
  const std::uint64_t header_at = begin + sizeof(Head) + head.frames * sizeof(FrameAt);
  if (!is_inside(header_at, head.header_bytes)) return false;

  const auto kept = std::make_shared<Kept>(area_, direction_);
  kept->blocks.reserve(1 + head.frames);
  kept->blocks.push_back(offset);
  message.frames.reserve(head.frames);
  for (std::uint32_t i = 0; i < head.frames; ++i) {
    FrameAt frame;
    std::memcpy(&frame, arena_ + begin + sizeof(Head) + i * sizeof(FrameAt), sizeof frame);
    if (!is_block(frame.block) || frame.offset % sizeof(std::uint64_t) != 0 ||
        !is_inside(frame.offset, frame.size)) {
      return false;
    }
    if (frame.block != offset) kept->blocks.push_back(frame.block);
    message.frames.push_back(Buffer::view(arena_ + frame.offset, frame.size, kept));
  }
  return message.header.ParseFromArray(arena_ + header_at, static_cast<int>(head.header_bytes));
}

}  // namespace meander::net
