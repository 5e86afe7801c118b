// SPDX-License-Identifier: Apache-2.0
#include "tests/sim/world/sim_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace meander::sim {
namespace {

std::string text_of(Storage& storage, const std::string& path) {
  const Result<Buffer> bytes = storage.read(path);
  if (!bytes.ok()) return "none";
  return {reinterpret_cast<const char*>(bytes->data()), bytes->size()};
}

// Writes without close().
std::unique_ptr<WritableFile> begin(Storage& storage, const std::string& path,
                                    const std::string& text) {
  auto file = storage.create(path);
  EXPECT_TRUE(file.ok() && file.value()->append(text.data(), text.size()).ok());
  return std::move(file).value();
}

TEST(SimDisk, WhatIsSyncedSurvivesACrash) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SimDisk disk(seed);
    const auto storage = disk.open(0);
    ASSERT_TRUE(storage->make_directories("a/b").ok());
    ASSERT_TRUE(begin(*storage, "a/b/closed", "whole")->close().ok());
    ASSERT_TRUE(storage->write_atomic("a/b/renamed", "new", 3).ok());
    EXPECT_EQ(text_of(*disk.worst_case()->open(0), "a/b/renamed"), "new");
    disk.crash(0);
    EXPECT_EQ(text_of(*storage, "a/b/closed"), "whole");
    EXPECT_EQ(text_of(*storage, "a/b/renamed"), "new");
    EXPECT_FALSE(storage->exists("a/b/renamed.tmp"));
  }
}

TEST(SimDisk, WhatIsNotSyncedMayBeLostTornOrThere) {
  int whole = 0, none = 0, other = 0, removed = 0;
  for (std::uint64_t seed = 1; seed <= 400; ++seed) {
    SimDisk disk(seed);
    const auto storage = disk.open(0), neighbour = disk.open(1);
    ASSERT_TRUE(begin(*neighbour, "theirs", "kept")->close().ok());
    ASSERT_TRUE(begin(*storage, "old", "old")->close().ok());
    const auto file = begin(*storage, "new", "12345678");
    ASSERT_TRUE(storage->remove("old").ok());
    EXPECT_EQ(text_of(*neighbour, "new"), "12345678");  // others see it at once
    EXPECT_EQ(text_of(*disk.worst_case()->open(0), "new"), "none");
    disk.crash(0);
    const std::string left = text_of(*storage, "new");
    whole += left == "12345678";
    none += left == "none";
    other += left != "12345678" && left != "none";
    removed += !storage->exists("old");
    EXPECT_EQ(text_of(*storage, "theirs"), "kept");
  }
  for (const int count : {whole, none, other, removed, 400 - removed}) EXPECT_GT(count, 20);
}

TEST(SimDisk, WhatAnotherHostHasNotSyncedSurvives) {
  SimDisk disk(1);
  const auto one = disk.open(1);
  const auto file = begin(*one, "file", "text");
  disk.crash(0);
  EXPECT_EQ(text_of(*one, "file"), "text");
}

TEST(SimDisk, ADeadProcessChangesNothing) {
  SimDisk disk(1);
  const auto dying = disk.open(0), other = disk.open(0);
  bool has_died = false;
  dying->die_in(3, [&] { has_died = true; });
  const auto file = begin(*dying, "file", "text");  // two operations
  EXPECT_FALSE(has_died);
  EXPECT_FALSE(file->append("more", 4).ok());
  EXPECT_TRUE(has_died);
  EXPECT_FALSE(dying->remove("file").ok());
  EXPECT_FALSE(dying->write_atomic("next", "x", 1).ok());
  EXPECT_EQ(text_of(*other, "file"), "text");
  EXPECT_FALSE(other->exists("next.tmp"));
}

TEST(SimDisk, AFailedAppendMayHaveWrittenAPart) {
  SimDisk disk(1);
  const auto storage = disk.open(0);
  const auto file = begin(*storage, "file", "");
  disk.set_faults({.is_full = true});
  EXPECT_EQ(file->append("12345678", 8).code(), Code::kExhausted);
  disk.set_faults({});
  EXPECT_FALSE(file->append("9", 1).ok()) << "it would leave a hole";
  EXPECT_FALSE(file->close().ok());
  EXPECT_TRUE(std::string("12345678").starts_with(text_of(*storage, "file")));
}

}  // namespace
}  // namespace meander::sim
