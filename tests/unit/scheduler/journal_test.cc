// SPDX-License-Identifier: Apache-2.0
#include "scheduler/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

namespace meander::scheduler {
namespace {

using testing::HasSubstr;

Accumulator sums(std::uint64_t samples) {
  Accumulator sums;
  sums.samples = samples;
  sums.batches = 1;
  return sums;
}

std::string bytes_of(const Accumulator& sums) {
  const Buffer bytes = sums.encode();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

journal::Record everything(std::uint64_t setup, std::uint64_t samples) {
  journal::Record record;
  record.mutable_state()->set_identity("this run");
  record.mutable_state()->set_cluster(77);
  record.mutable_state()->set_setup(setup);
  record.set_training(bytes_of(sums(samples)));
  return record;
}

journal::Record heartbeat(std::uint32_t worker, std::uint64_t number, std::uint64_t samples) {
  journal::Record record;
  journal::Counted& counted = *record.mutable_metrics()->mutable_counted();
  counted.set_worker(worker);
  counted.set_incarnation(10 + worker);
  counted.set_number(number);
  record.mutable_metrics()->set_sums(bytes_of(sums(samples)));
  return record;
}

class JournalTest : public testing::Test {
 protected:
  std::unique_ptr<Journal> open(std::uint64_t nonce = 1) {
    auto journal = std::make_unique<Journal>(*storage_, "ckpt/journal", nonce);
    Result<JournalContents> taken = journal->take_over();
    EXPECT_TRUE(taken.ok()) << taken.status().message();
    contents_ = std::move(taken).value();
    return journal;
  }
  std::vector<std::string> files() { return storage_->list("ckpt/journal").value(); }
  Buffer bytes() { return storage_->read("ckpt/journal/" + files().back()).value(); }
  // Three records: everything, and two heartbeats.
  Buffer three_records() {
    const auto journal = open();
    EXPECT_TRUE(journal->rewrite(everything(1, 100)).ok());
    for (std::uint64_t number : {1, 2}) {
      ends_.push_back(bytes().size());
      journal->append(heartbeat(0, number, number));
      EXPECT_TRUE(journal->sync().ok());
    }
    ends_.push_back(bytes().size());
    return bytes();
  }

  std::unique_ptr<Storage> storage_ = make_memory_storage();
  JournalContents contents_;
  std::vector<std::size_t> ends_;  // of each record
};

TEST_F(JournalTest, TellsASuccessorAllThatWasMadeDurable) {
  const auto first = open(5);
  EXPECT_TRUE(contents_.is_empty);
  EXPECT_EQ(first->term(), 1u);
  ASSERT_TRUE(first->rewrite(everything(3, 100)).ok());
  first->append(heartbeat(0, 4, 10));
  first->append(heartbeat(1, 7, 20));
  first->append(heartbeat(0, 5, 1));
  EXPECT_FALSE(first->is_durable());
  ASSERT_TRUE(first->sync().ok());
  EXPECT_TRUE(first->is_durable());
  first->append(heartbeat(0, 6, 1000));  // never durable

  const auto second = open(2);  // a lower nonce is no lower term
  EXPECT_EQ(second->term(), 2u);
  EXPECT_FALSE(contents_.is_empty);
  EXPECT_EQ(contents_.torn, 0u);
  EXPECT_EQ(contents_.state.setup(), 3u);
  EXPECT_EQ(contents_.training.samples, 131u);
  ASSERT_EQ(contents_.state.counted_size(), 2);
  EXPECT_EQ(contents_.state.counted(0).number(), 5u);
  EXPECT_EQ(contents_.state.counted(1).number(), 7u);
}

TEST_F(JournalTest, WhoeverOpensItHasTakenItOver) {
  const auto first = open();
  ASSERT_TRUE(first->rewrite(everything(1, 1)).ok());
  const auto second = open(2);
  first->append(heartbeat(0, 1, 1));
  EXPECT_EQ(first->sync().code(), Code::kUnavailable);
  EXPECT_EQ(first->rewrite(everything(9, 9)).code(), Code::kUnavailable);
  ASSERT_TRUE(second->rewrite(everything(2, 2)).ok());
  EXPECT_EQ(first->check_still_mine().code(), Code::kUnavailable);
  EXPECT_TRUE(second->check_still_mine().ok());
  open(3);
  EXPECT_EQ(contents_.state.setup(), 2u);
}

TEST_F(JournalTest, ASuccessorThatDiedAtItsStartHidesNothing) {
  const auto first = open();
  ASSERT_TRUE(first->rewrite(everything(4, 1)).ok());
  open(2);
  const auto third = open(3);
  EXPECT_EQ(contents_.state.setup(), 4u);
  EXPECT_EQ(third->term(), 3u);
}

TEST_F(JournalTest, RewritingKeepsOneFileAndForgetsNothing) {
  const auto journal = open();
  ASSERT_TRUE(journal->rewrite(everything(1, 100)).ok());
  const std::size_t size = bytes().size();
  for (std::uint64_t i = 1; i <= 1000; ++i) journal->append(heartbeat(0, i, 1));
  ASSERT_TRUE(journal->sync().ok());
  EXPECT_GT(bytes().size(), 1000 * 12u);
  ASSERT_TRUE(journal->rewrite(everything(1, 1100)).ok());
  EXPECT_EQ(files().size(), 1u);
  EXPECT_LE(bytes().size(), size + 8);
  open(2);
  EXPECT_EQ(contents_.training.samples, 1100u);
}

TEST_F(JournalTest, ATornTailIsDroppedWhereverItIsTorn) {
  const Buffer whole = three_records();
  for (std::size_t size = 0; size <= whole.size(); ++size) {
    const Result<JournalContents> read = read_journal(whole.slice(0, size), "j");
    ASSERT_TRUE(read.ok()) << size << ": " << read.status().message();
    std::size_t records = 0;
    while (records < ends_.size() && ends_[records] <= size) ++records;
    EXPECT_EQ(read.value().is_empty, records == 0) << size;
    const std::uint64_t expected[] = {0, 100, 101, 103};
    EXPECT_EQ(read.value().training.samples, expected[records]) << size;
    EXPECT_EQ(read.value().torn, records == 0 && size > 8   ? size - 8
                                 : records == 0 && size < 8 ? size
                                 : records == 0             ? 0
                                                            : size - ends_[records - 1]);
  }
}

TEST_F(JournalTest, NoBitFlipGoesUnnoticed) {
  const Buffer whole = three_records();
  const std::string original(reinterpret_cast<const char*>(whole.data()), whole.size());
  for (std::size_t bit = 0; bit < 8 * original.size(); ++bit) {
    std::string flipped = original;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    const Result<JournalContents> read =
        read_journal(Buffer::copy_of(flipped.data(), flipped.size()), "j");
    if (bit / 8 < ends_[1]) {  // whole records follow
      ASSERT_FALSE(read.ok()) << bit;
      EXPECT_EQ(read.status().code(), Code::kCorrupt);
      EXPECT_THAT(read.status().message(), HasSubstr("j is damaged at byte"));
    } else {  // no different from a torn tail
      ASSERT_TRUE(read.ok()) << bit;
      EXPECT_EQ(read.value().training.samples, 101u);
      EXPECT_GT(read.value().torn, 0u);
    }
  }
}

TEST_F(JournalTest, DamageIsNotTakenForTheEnd) {
  three_records();
  const std::string path = "ckpt/journal/" + files().back();
  std::string bytes(reinterpret_cast<const char*>(this->bytes().data()), this->bytes().size());
  bytes[ends_[0] + 20] ^= 1;
  ASSERT_TRUE(storage_->write_atomic(path, bytes.data(), bytes.size()).ok());
  Journal next(*storage_, "ckpt/journal", 9);
  EXPECT_EQ(next.take_over().status().code(), Code::kCorrupt);
}

TEST_F(JournalTest, LivesOnFiles) {
  const std::string dir = testing::TempDir() + "meander-journal-test";
  std::filesystem::remove_all(dir);
  storage_ = make_posix_storage();
  Journal first(*storage_, dir, 1);
  ASSERT_TRUE(first.take_over().ok());
  ASSERT_TRUE(first.rewrite(everything(1, 5)).ok());
  first.append(heartbeat(0, 1, 6));
  ASSERT_TRUE(first.sync().ok());
  Journal second(*storage_, dir, 2);  // the first has not closed its file: it may have been killed
  Result<JournalContents> taken = second.take_over();
  ASSERT_TRUE(taken.ok()) << taken.status().message();
  EXPECT_EQ(taken.value().training.samples, 11u);
  EXPECT_EQ(first.check_still_mine().code(), Code::kUnavailable);
  ASSERT_TRUE(second.remove().ok());
  EXPECT_FALSE(Journal::exists(*storage_, dir));
}

// A storage whose files become durable only as a whole, as an object store's.
class ObjectStore final : public Storage {
 public:
  class File final : public WritableFile {
   public:
    Status append(const void*, std::size_t) override { return {}; }
    Status close() override { return {}; }
  };
  Result<Buffer> read(const std::string& p) override { return memory_->read(p); }
  Result<std::unique_ptr<WritableFile>> create(const std::string&) override {
    return std::unique_ptr<WritableFile>(std::make_unique<File>());
  }
  Status rename(const std::string& a, const std::string& b) override {
    return memory_->rename(a, b);
  }
  Status remove(const std::string& p) override { return memory_->remove(p); }
  Status make_directories(const std::string&) override { return {}; }
  Result<std::vector<std::string>> list(const std::string& p) override { return memory_->list(p); }
  bool exists(const std::string& p) override { return memory_->exists(p); }

 private:
  std::unique_ptr<Storage> memory_ = make_memory_storage();
};

TEST_F(JournalTest, SaysWhereItCannotBeKept) {
  ObjectStore store;
  Journal journal(store, "journal", 1);
  EXPECT_EQ(journal.take_over().status().code(), Code::kInvalid);
}

}  // namespace
}  // namespace meander::scheduler
