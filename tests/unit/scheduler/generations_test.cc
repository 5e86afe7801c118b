// SPDX-License-Identifier: Apache-2.0
#include "scheduler/generations.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint/generation.h"

namespace meander::scheduler {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Memory, of which some operations can be made to fail; says what was made durable.
class FakeStorage final : public Storage {
 public:
  Result<Buffer> read(const std::string& path) override { return memory_->read(path); }
  Result<std::unique_ptr<WritableFile>> create(const std::string& path) override {
    return memory_->create(path);
  }
  Status rename(const std::string& from, const std::string& to) override {
    return memory_->rename(from, to);
  }
  Status remove(const std::string& path) override {
    return fails_to_remove ? failed("cannot remove " + path) : memory_->remove(path);
  }
  Status make_directories(const std::string& path) override {
    return memory_->make_directories(path);
  }
  Status sync_directory(const std::string& path) override {
    synced.push_back(path);
    return {};
  }
  Result<std::vector<std::string>> list(const std::string& path) override {
    return memory_->list(path);
  }
  bool exists(const std::string& path) override { return memory_->exists(path); }

  bool fails_to_remove = false;
  std::vector<std::string> synced;

 private:
  const std::unique_ptr<Storage> memory_ = make_memory_storage();
};

manifest::Manifest numbered(std::uint64_t generation) {
  manifest::Manifest manifest;
  manifest.set_generation(generation);
  manifest.set_model("m");
  manifest.add_streams()->set_ended(true);
  return manifest;
}

void complete_next(Generations& generations) {
  ASSERT_TRUE(generations.begin().ok());
  ASSERT_TRUE(generations.complete(numbered(generations.begun()), {}).ok());
}

TEST(Generations, AreNumberedAboveHalfOnesWhichGoAtTheStart) {
  FakeStorage storage;
  Generations first(storage, "ckpt", 2);
  ASSERT_TRUE(first.find_next().ok());
  complete_next(first);
  ASSERT_TRUE(first.begin().ok());  // generation 2 stays half
  Generations second(storage, "ckpt", 2);
  ASSERT_TRUE(second.restore("ckpt", "m", 1, true).ok());
  ASSERT_TRUE(second.find_next().ok());
  EXPECT_THAT(storage.list("ckpt").value(), ElementsAre("gen-000001"));
  complete_next(second);
  EXPECT_EQ(second.dir(), "ckpt/gen-000003");
}

TEST(Generations, LeftoversThatCannotBeRemovedDoNotStopARun) {
  FakeStorage storage;
  ASSERT_TRUE(storage.make_directories("ckpt/gen-000007").ok());
  storage.fails_to_remove = true;
  Generations generations(storage, "ckpt", 2);
  EXPECT_TRUE(generations.find_next().ok());
  storage.fails_to_remove = false;
  complete_next(generations);
  EXPECT_EQ(generations.dir(), "ckpt/gen-000008");
}

TEST(Generations, ACompleteOneStaysWhenOlderOnesCannotBeRemoved) {
  FakeStorage storage;
  Generations generations(storage, "ckpt", 1);
  complete_next(generations);
  ASSERT_TRUE(generations.begin().ok());
  storage.fails_to_remove = true;
  ASSERT_TRUE(generations.complete(numbered(2), {}).ok());
  EXPECT_EQ(generations.dir(), "ckpt/gen-000002");
  EXPECT_EQ(checkpoint::newest_generation(storage, "ckpt").value(), "ckpt/gen-000002");
  storage.fails_to_remove = false;
  complete_next(generations);
  EXPECT_THAT(storage.list("ckpt").value(), ElementsAre("gen-000003"));
}

TEST(Generations, OneThatDeltasMayStandOnIsMadeDurableFirst) {
  FakeStorage storage;
  Generations first(storage, "ckpt", 2);
  complete_next(first);
  EXPECT_THAT(storage.synced, IsEmpty());
  Generations second(storage, "ckpt", 2);
  ASSERT_TRUE(second.restore("ckpt", "m", 1, true).ok());
  EXPECT_THAT(storage.synced, ElementsAre("ckpt/gen-000001"));
  Generations elsewhere(storage, "other", 2);  // nothing there stands on it
  ASSERT_TRUE(elsewhere.restore("ckpt", "m", 1, true).ok());
  EXPECT_THAT(storage.synced, ElementsAre("ckpt/gen-000001"));
}

}  // namespace
}  // namespace meander::scheduler
