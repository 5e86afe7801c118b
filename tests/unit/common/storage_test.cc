// SPDX-License-Identifier: Apache-2.0
#include "common/storage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>
#include <vector>

#include "common/rng.h"

namespace meander {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string text_of(const Buffer& b) { return {reinterpret_cast<const char*>(b.data()), b.size()}; }

// Every test holds for each kind of storage. `root` is a directory of its own.
class StorageTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (GetParam() == std::string("memory")) {
      storage = make_memory_storage();
      root = "root";
      ASSERT_TRUE(storage->make_directories(root).ok());
      return;
    }
    std::string pattern = ::testing::TempDir() + "/storage.XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    root = pattern;
    storage = make_posix_storage();
  }
  void TearDown() override { ASSERT_TRUE(storage->remove(root).ok()); }
  std::string at(const std::string& name) const { return join_path(root, name); }
  Status put(const std::string& name, const std::string& text) {
    ASSIGN_OR_RETURN(auto file, storage->create(at(name)));
    RETURN_IF_ERROR(file->append(text.data(), text.size()));
    return file->close();
  }
  std::string get(const std::string& name) {
    Result<Buffer> bytes = storage->read(at(name));
    return bytes.ok() ? text_of(bytes.value()) : bytes.status().message();
  }

  std::unique_ptr<Storage> storage;
  std::string root;
};

TEST_P(StorageTest, ReadsWhatWasWritten) {
  ASSERT_TRUE(put("a", "hello").ok());
  EXPECT_EQ(get("a"), "hello");
  EXPECT_TRUE(storage->exists(at("a")));
}

TEST_P(StorageTest, WritesManySmallAndBigPiecesInOrder) {
  std::string expected;
  auto file = storage->create(at("a")).value();
  for (int i = 0; i < 300; ++i) {
    const std::string piece(i % 100 == 99 ? 3 << 20 : 1000 + i, static_cast<char>('a' + i % 26));
    ASSERT_TRUE(file->append(piece.data(), piece.size()).ok());
    expected += piece;
  }
  ASSERT_TRUE(file->close().ok());
  EXPECT_TRUE(get("a") == expected);
}

TEST_P(StorageTest, EmptyFileReadsEmpty) {
  ASSERT_TRUE(put("a", "").ok());
  Result<Buffer> bytes = storage->read(at("a"));
  ASSERT_TRUE(bytes.ok());
  EXPECT_TRUE(bytes->empty());
}

TEST_P(StorageTest, CreateTruncates) {
  ASSERT_TRUE(put("a", "a long text").ok());
  ASSERT_TRUE(put("a", "short").ok());
  EXPECT_EQ(get("a"), "short");
}

TEST_P(StorageTest, BytesReadOutliveTheFile) {
  ASSERT_TRUE(put("a", "hello").ok());
  const Buffer bytes = storage->read(at("a")).value();
  ASSERT_TRUE(storage->remove(at("a")).ok());
  EXPECT_EQ(text_of(bytes), "hello");
}

TEST_P(StorageTest, MissingFileIsNotFoundAndNamed) {
  const Status status = storage->read(at("absent")).status();
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr(at("absent")));
  EXPECT_FALSE(storage->exists(at("absent")));
}

TEST_P(StorageTest, ReadingOrReplacingADirectoryIsInvalid) {
  ASSERT_TRUE(storage->make_directories(at("d")).ok());
  EXPECT_EQ(storage->read(at("d")).status().code(), Code::kInvalid);
  EXPECT_EQ(put("d", "x").code(), Code::kInvalid);
}

TEST_P(StorageTest, CreateInAMissingDirectoryIsNotFound) {
  EXPECT_EQ(put("no/such", "x").code(), Code::kNotFound);
}

TEST_P(StorageTest, RenameReplacesAFile) {
  ASSERT_TRUE(put("a", "new").ok());
  ASSERT_TRUE(put("b", "old").ok());
  ASSERT_TRUE(storage->rename(at("a"), at("b")).ok());
  EXPECT_EQ(get("b"), "new");
  EXPECT_FALSE(storage->exists(at("a")));
}

TEST_P(StorageTest, RenameMovesADirectoryWithAllItHolds) {
  ASSERT_TRUE(storage->make_directories(at("d.tmp/e")).ok());
  ASSERT_TRUE(put("d.tmp/e/f", "x").ok());
  ASSERT_TRUE(storage->rename(at("d.tmp"), at("d")).ok());
  EXPECT_EQ(get("d/e/f"), "x");
  EXPECT_FALSE(storage->exists(at("d.tmp")));
}

TEST_P(StorageTest, RenameReplacesADirectoryThatHoldsSomething) {
  ASSERT_TRUE(storage->make_directories(at("old")).ok());
  ASSERT_TRUE(put("old/x", "old").ok());
  ASSERT_TRUE(storage->make_directories(at("new")).ok());
  ASSERT_TRUE(put("new/y", "new").ok());
  ASSERT_TRUE(storage->rename(at("new"), at("old")).ok());
  EXPECT_THAT(storage->list(root).value(), ElementsAre("old"));
  EXPECT_THAT(storage->list(at("old")).value(), ElementsAre("y"));
}

TEST_P(StorageTest, RenameOfNothingIsNotFound) {
  EXPECT_EQ(storage->rename(at("absent"), at("a")).code(), Code::kNotFound);
}

TEST_P(StorageTest, ListIsSortedAndHoldsNamesOnly) {
  ASSERT_TRUE(storage->make_directories(at("d")).ok());
  for (const char* name : {"c", "a", "b-1", "b", "d/inside"}) ASSERT_TRUE(put(name, "x").ok());
  EXPECT_THAT(storage->list(root).value(), ElementsAre("a", "b", "b-1", "c", "d"));
  EXPECT_THAT(storage->list(at("d")).value(), ElementsAre("inside"));
  EXPECT_EQ(storage->list(at("absent")).status().code(), Code::kNotFound);
}

TEST_P(StorageTest, RemoveTakesADirectoryWithAllItHoldsAndNoMore) {
  ASSERT_TRUE(storage->make_directories(at("d/e")).ok());
  ASSERT_TRUE(put("d/e/f", "x").ok());
  ASSERT_TRUE(put("d2", "x").ok());
  EXPECT_TRUE(storage->remove(at("d")).ok());
  EXPECT_TRUE(storage->remove(at("absent")).ok());
  EXPECT_THAT(storage->list(root).value(), ElementsAre("d2"));
}

TEST_P(StorageTest, MakeDirectoriesTwiceIsFineAndOverAFileIsNot) {
  EXPECT_TRUE(storage->make_directories(at("a/b/c")).ok());
  EXPECT_TRUE(storage->make_directories(at("a/b/c/")).ok());
  ASSERT_TRUE(put("f", "x").ok());
  EXPECT_EQ(storage->make_directories(at("f")).code(), Code::kInvalid);
  EXPECT_EQ(storage->make_directories(at("f/g")).code(), Code::kInvalid);
}

TEST_P(StorageTest, WriteAtomicReplacesAndLeavesNothingElse) {
  ASSERT_TRUE(put("a", "old").ok());
  ASSERT_TRUE(storage->write_atomic(at("a"), "new!", 4).ok());
  EXPECT_EQ(get("a"), "new!");
  EXPECT_THAT(storage->list(root).value(), ElementsAre("a"));
}

TEST_P(StorageTest, WriteAtomicThatFailsLeavesNothing) {
  ASSERT_TRUE(storage->make_directories(at("a/b")).ok());
  ASSERT_TRUE(put("f", "x").ok());
  EXPECT_FALSE(storage->write_atomic(at("absent/f"), "x", 1).ok());
  EXPECT_THAT(storage->list(root).value(), ElementsAre("a", "f"));
}

TEST_P(StorageTest, WriteExclusiveWritesWhatIsNotThereAndNothingElse) {
  ASSERT_TRUE(storage->write_exclusive(at("a"), "first", 5).ok());
  const Status again = storage->write_exclusive(at("a"), "second", 6);
  EXPECT_EQ(again.code(), Code::kInvalid);
  EXPECT_THAT(again.message(), HasSubstr(at("a")));
  EXPECT_EQ(storage->write_exclusive(at("absent/a"), "x", 1).code(), Code::kNotFound);
  EXPECT_EQ(get("a"), "first");
  EXPECT_THAT(storage->list(root).value(), ElementsAre("a"));
}

TEST_P(StorageTest, OfManyExclusiveWritersOneWins) {
  std::atomic<int> winners = 0;
  std::vector<std::thread> writers;
  for (int i = 0; i < 8; ++i) {
    writers.emplace_back([&, i] {
      const std::string text = std::to_string(i);
      if (storage->write_exclusive(at("a"), text.data(), text.size()).ok()) ++winners;
    });
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(winners, 1);
  EXPECT_THAT(storage->list(root).value(), ElementsAre("a"));
}

TEST_P(StorageTest, HasTellsFilesAndDirectories) {
  ASSERT_TRUE(put("a", "x").ok());
  EXPECT_TRUE(storage->has(at("a")).value());
  EXPECT_TRUE(storage->has(root).value());
  EXPECT_FALSE(storage->has(at("absent")).value());
  EXPECT_FALSE(storage->has(at("absent/b")).value());
}

TEST_P(StorageTest, RangeIsTheBytesAskedForUpToTheEnd) {
  ASSERT_TRUE(put("a", "0123456789").ok());
  const auto range = [&](std::uint64_t offset, std::size_t size) {
    return text_of(storage->read_range(at("a"), offset, size).value());
  };
  EXPECT_EQ(range(0, 4), "0123");
  EXPECT_EQ(range(3, 4), "3456");
  EXPECT_EQ(range(8, 4), "89");
  EXPECT_EQ(range(10, 4), "");
  EXPECT_EQ(range(1 << 20, 4), "");
  EXPECT_EQ(range(2, 0), "");
  EXPECT_EQ(storage->read_range(at("absent"), 0, 4).status().code(), Code::kNotFound);
  EXPECT_EQ(storage->read_range(root, 0, 4).status().code(), Code::kInvalid);
}

// Any sizes of appends and reads, with syncs between: as much as fills the blocks that are written
// past the cache, and ends that fill none.
TEST_P(StorageTest, ColdFilesHoldWhatWasAppendedInAnyPieces) {
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    Rng rng(seed);
    std::string text(rng.below(seed < 4 ? 10'000 : 9'000'000), ' ');
    for (char& c : text) c = static_cast<char>(rng.next());
    auto file = storage->create_cold(at("a")).value();
    const std::uint64_t part_max = std::uint64_t{1} << rng.below(23);
    for (std::size_t done = 0; done < text.size();) {
      const auto part = std::min<std::size_t>(1 + rng.below(part_max), text.size() - done);
      ASSERT_TRUE(file->append(text.data() + done, part).ok());
      done += part;
      if (rng.chance(0.01)) (void)file->sync();  // refused by some kinds
    }
    ASSERT_TRUE(file->close().ok());
    ASSERT_TRUE(get("a") == text) << "seed " << seed;

    const auto reader = storage->open_cold(at("a")).value();
    const std::size_t size = 1 + rng.below(3'000'000);
    for (std::uint64_t at = rng.below(100); at < text.size();) {
      ASSERT_TRUE(text_of(reader->read(at, size).value()) == text.substr(at, size))
          << "seed " << seed << ", from " << at;
      at += rng.chance(0.2) ? rng.below(2 * size) : size;
    }
    EXPECT_TRUE(reader->read(text.size(), size).value().empty());
  }
}

TEST_P(StorageTest, ColdFileThatIsNotThereIsNotFound) {
  const auto file = storage->open_cold(at("absent"));
  const Status status = file.ok() ? file.value()->read(0, 4).status() : file.status();
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_EQ(storage->create_cold(at("no/file")).status().code(), Code::kNotFound);
}

INSTANTIATE_TEST_SUITE_P(Kinds, StorageTest, ::testing::Values("posix", "memory"),
                         [](const auto& info) { return std::string(info.param); });

TEST(PosixStorage, FullDiskIsExhaustedAndSaysWhatToDo) {
  if (::access("/dev/full", W_OK) != 0) GTEST_SKIP() << "needs /dev/full";
  auto file = make_posix_storage()->create("/dev/full").value();
  ASSERT_TRUE(file->append("x", 1).ok()) << "small pieces wait";
  const Status status = file->close();
  EXPECT_EQ(status.code(), Code::kExhausted);
  EXPECT_EQ(status.message(),
            "cannot write to /dev/full: No space left on device: free some space");
}

TEST(PosixStorage, ReadOnlyPlaceIsInvalid) {
  const Status status = make_posix_storage()->create("/proc/1/no").status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(status.message(), HasSubstr("/proc/1/no"));
}

TEST(JoinPath, KeepsAbsolutePathsAndDoublesNoSlash) {
  EXPECT_EQ(join_path("a", "b"), "a/b");
  EXPECT_EQ(join_path("a/", "b"), "a/b");
  EXPECT_EQ(join_path("a", "/b"), "/b");
  EXPECT_EQ(join_path("", "b"), "b");
}

}  // namespace
}  // namespace meander
