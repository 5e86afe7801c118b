// SPDX-License-Identifier: Apache-2.0
#include "net/shm_channel.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <deque>
#include <thread>

#include "common/rng.h"
#include "tests/unit/net/wires.h"

namespace meander::net {
namespace {

// Both ends of one direction, each with a mapping of its own, as in two processes.
struct Channel {
  std::shared_ptr<ShmArea> area = std::move(ShmArea::create()).value();
  std::shared_ptr<ShmArea> other = std::move(ShmArea::open(dup(area->descriptor()))).value();
  ShmSender sender{area, 0};
  ShmReceiver receiver{other, 0};
};

TEST(ShmChannel, WhatIsSentArrivesInOrderWhateverIsKeptOfItAndHoweverLong) {
  Channel channel;
  Rng rng(1);
  struct Kept {
    std::uint64_t seed;
    Buffer frame;
  };
  std::deque<std::uint64_t> sent;
  std::vector<Kept> kept;
  std::uint64_t next = 0;
  for (int round = 0; round < 20'000; ++round) {
    if (rng.chance(0.5)) {
      const std::uint64_t seed = next++;
      Buffer frame = noise(seed, 8 * (1 + Rng(seed).below(seed % 50 == 0 ? 40'000 : 200)));
      if (rng.chance(0.5)) {
        Buffer in_place = channel.sender.allocate(frame.size());
        ASSERT_FALSE(in_place.empty());
        std::memcpy(in_place.data(), frame.data(), frame.size());
        frame = in_place;
      }
      ASSERT_EQ(channel.sender.send(numbered(seed), {frame, Buffer(), frame}),
                ShmSender::Outcome::kSent);
      sent.push_back(seed);
    } else if (!sent.empty()) {
      Message got;
      ASSERT_EQ(channel.receiver.receive(got), ShmReceiver::Outcome::kMessage);
      ASSERT_EQ(got.header.request(), sent.front());
      ASSERT_EQ(got.frames.size(), 3u);
      ASSERT_TRUE(got.frames[1].empty());
      const bool front = rng.chance(0.5);
      kept.push_back({sent.front(), got.frames[front ? 0 : 2]});
      sent.pop_front();
    }
    if (kept.size() > 40 || (round % 100 == 99 && !kept.empty())) {
      const std::size_t at = rng.below(kept.size());
      const Buffer& frame = kept[at].frame;
      ASSERT_TRUE(equal(frame, noise(kept[at].seed, frame.size()))) << "seed " << kept[at].seed;
      kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(at));
    }
  }
  for (const Kept& k : kept) EXPECT_TRUE(equal(k.frame, noise(k.seed, k.frame.size())));
}

TEST(ShmChannel, AFrameOfAllocatedMemoryIsNotCopied) {
  Channel channel;
  Buffer frame = channel.sender.allocate(1000);
  frame.as_mutable<std::uint64_t>()[0] = 1;
  ASSERT_EQ(channel.sender.send(numbered(1), {frame}), ShmSender::Outcome::kSent);
  frame.as_mutable<std::uint64_t>()[0] = 2;  // against the rules, to see that it is the same memory
  Message got;
  ASSERT_EQ(channel.receiver.receive(got), ShmReceiver::Outcome::kMessage);
  EXPECT_EQ(got.frames[0].as<std::uint64_t>()[0], 2u);
}

TEST(ShmChannel, ASliceThatIsNotAlignedArrivesAligned) {
  Channel channel;
  Buffer frame = channel.sender.allocate(64);
  for (std::byte& b : std::span(frame.data(), 64)) b = std::byte(&b - frame.data());
  ASSERT_EQ(channel.sender.send(numbered(1), {frame.slice(3, 16)}), ShmSender::Outcome::kSent);
  Message got;
  ASSERT_EQ(channel.receiver.receive(got), ShmReceiver::Outcome::kMessage);
  ASSERT_TRUE(got.frames[0].holds<std::uint64_t>());
  EXPECT_EQ(got.frames[0].data()[0], std::byte(3));
}

TEST(ShmChannel, IsBoundedAndGoesOnOnceThereIsRoom) {
  Channel channel;
  for (std::size_t i = 0; i < ShmArea::kMessagesMax; ++i) {
    ASSERT_EQ(channel.sender.send(numbered(i), {}), ShmSender::Outcome::kSent);
  }
  EXPECT_EQ(channel.sender.send(numbered(0), {}), ShmSender::Outcome::kFull);
  const Buffer half = Buffer::allocate(ShmArea::kArenaBytes / 2);
  Message got;
  while (channel.receiver.receive(got) == ShmReceiver::Outcome::kMessage) got = {};
  got = {};
  EXPECT_EQ(channel.sender.send(numbered(1), {half, half}), ShmSender::Outcome::kTooBig);
  EXPECT_EQ(channel.sender.send(numbered(1), {half.slice(64, half.size() - 256)}),
            ShmSender::Outcome::kSent);
}

TEST(ShmChannel, WhatIsNoLongerKeptIsUsedAgain) {
  Channel channel;
  const Buffer megabytes = noise(1, 3 << 20);
  for (int i = 0; i < 100; ++i) {  // more than the arena
    ASSERT_EQ(channel.sender.send(numbered(i), {megabytes}), ShmSender::Outcome::kSent);
    Message got;
    ASSERT_EQ(channel.receiver.receive(got), ShmReceiver::Outcome::kMessage);
  }
}

TEST(ShmChannel, FramesOutliveBothEnds) {
  Message got;
  {
    Channel channel;
    ASSERT_EQ(channel.sender.send(numbered(1), {noise(1, 4096)}), ShmSender::Outcome::kSent);
    ASSERT_EQ(channel.receiver.receive(got), ShmReceiver::Outcome::kMessage);
  }
  EXPECT_TRUE(equal(got.frames[0], noise(1, 4096)));
}

TEST(ShmChannel, AnotherThreadsMessagesAllArrive) {
  Channel channel;
  constexpr std::uint64_t kMessages = 50'000;
  std::thread other([&] {
    const Buffer bytes = noise(1, 256);
    for (std::uint64_t i = 1; i <= kMessages;) {
      if (channel.sender.send(numbered(i), {bytes}) == ShmSender::Outcome::kSent) ++i;
    }
  });
  std::uint64_t last = 0;
  while (last < kMessages) {
    Message got;
    if (channel.receiver.receive(got) != ShmReceiver::Outcome::kMessage) continue;
    ASSERT_EQ(got.header.request(), last + 1);
    ASSERT_TRUE(equal(got.frames.at(0), noise(1, 256)));
    last = got.header.request();
  }
  other.join();
}

// What a broken process may leave in the memory.
TEST(ShmChannel, NoContentsOfTheAreaStopTheReceiver) {
  Rng rng(7);
  for (int round = 0; round < 300; ++round) {
    Channel channel;
    for (int i = 0; i < 4; ++i) {
      ASSERT_EQ(channel.sender.send(numbered(i), {noise(i, 512)}), ShmSender::Outcome::kSent);
    }
    ShmArea::Ring& ring = channel.area->ring(0);
    std::byte* const arena = channel.area->arena(0);
    for (int i = 0; i < 8; ++i) {  // the first block's head and list of frames
      arena[64 + rng.below(64)] = std::byte(rng.below(256));
    }
    if (rng.chance(0.3)) ring.blocks[rng.below(4)] = rng.next() >> rng.below(60);
    if (rng.chance(0.2)) ring.blocks[rng.below(4)] = ShmArea::kArenaBytes - 64 * rng.below(3);
    if (rng.chance(0.2)) ring.head = rng.next();
    Message got;
    for (int i = 0; i < 2000; ++i) {
      got = {};
      const auto outcome = channel.receiver.receive(got);
      if (outcome == ShmReceiver::Outcome::kNothing || outcome == ShmReceiver::Outcome::kBroken) {
        break;
      }
      for (const Buffer& frame : got.frames) {  // is all of it there?
        if (frame.empty()) continue;
        EXPECT_GE(int(frame.data()[frame.size() - 1]), 0);
      }
    }
  }
}

TEST(ShmArea, MemoryThatIsNotOursIsRefused) {
  const int small = memfd_create("small", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  EXPECT_EQ(ShmArea::open(small).status().code(), Code::kInvalid);
  const int unsealed = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  ASSERT_EQ(ftruncate(unsealed, (32 << 10) + 2 * static_cast<off_t>(ShmArea::kArenaBytes)), 0);
  EXPECT_EQ(ShmArea::open(unsealed).status().code(), Code::kInvalid) << "it could shrink under us";
}

}  // namespace
}  // namespace meander::net
