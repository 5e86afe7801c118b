// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "checkpoint/block.h"
#include "common/crc32c.h"
#include "common/partition.h"

namespace meander::checkpoint {
namespace {

using ::testing::HasSubstr;

struct StoredRecord {
  std::uint64_t key, step;
  std::uint32_t count;
  bool admitted;
  std::vector<float> values;

  bool operator==(const StoredRecord&) const = default;
};

StoredRecord stored(const Record& record) {
  return {record.key,
          record.step,
          record.count,
          record.admitted,
          {record.values.begin(), record.values.end()}};
}

std::vector<StoredRecord> random_records(std::uint64_t seed, std::size_t n, std::uint32_t values,
                                         bool compressible) {
  Rng rng(seed);
  std::vector<StoredRecord> records;
  for (std::size_t i = 0; i < n; ++i) {
    StoredRecord record{rng.next(),
                        rng.below(1000),
                        static_cast<std::uint32_t>(rng.below(50)),
                        rng.chance(0.8),
                        {}};
    if (record.admitted) record.values.resize(values, 0.25f);
    if (!compressible) {
      for (float& v : record.values) v = static_cast<float>(rng.uniform());
    }
    records.push_back(record);
  }
  std::sort(records.begin(), records.end(),
            [](const auto& a, const auto& b) { return mix64(a.key) < mix64(b.key); });
  return records;
}

manifest::File write(Storage& storage, const std::string& path, std::uint32_t values,
                     const std::vector<StoredRecord>& records,
                     const RowsWriter::Cutting& cutting = {}) {
  auto writer = RowsWriter::create(storage, path, 3, values, cutting);
  EXPECT_TRUE(writer.ok());
  for (const StoredRecord& r : records) {
    EXPECT_TRUE(writer.value()->add({r.key, r.step, r.count, r.admitted, r.values}).ok());
  }
  auto file = writer.value()->finish();
  EXPECT_TRUE(file.ok());
  return file.value();
}

Result<std::vector<StoredRecord>> read(Storage& storage, const std::string& path,
                                       const manifest::File& file, std::uint32_t first = 0,
                                       std::uint32_t last = kPartitions - 1) {
  std::vector<StoredRecord> records;
  RETURN_IF_ERROR(read_rows(storage, path, file, first, last, [&](const Record& record) {
    records.push_back(stored(record));
    return Status();
  }));
  return records;
}

// What is wrong with a file of `bytes`, when nothing is known of its size.
Status scan(const std::vector<std::byte>& bytes) {
  auto storage = make_memory_storage();
  EXPECT_TRUE(storage->write_atomic("x", bytes.data(), bytes.size()).ok());
  return scan_rows(*storage, "x", bytes.size(), 0, kPartitions - 1, true,
                   [](const Records&) { return Status(); })
      .status();
}

std::vector<StoredRecord> by_key(std::vector<StoredRecord> records) {
  std::ranges::sort(records, {}, &StoredRecord::key);
  return records;
}

TEST(RowsFile, RecordsComeBackAsTheyWere) {
  auto storage = make_memory_storage();
  for (const bool compressible : {false, true}) {
    for (const std::uint32_t values : {0u, 1u, 3u, 37u}) {
      const auto records = random_records(values + 1, 1'000, values, compressible);
      const manifest::File file = write(*storage, "x.rows", values, records);
      EXPECT_EQ(file.name(), "x.rows");
      EXPECT_EQ(file.table(), 3u);
      EXPECT_EQ(file.rows(), 1'000u);
      auto back = read(*storage, "x.rows", file);
      ASSERT_TRUE(back.ok()) << back.status().message();
      EXPECT_EQ(back.value(), records);
    }
  }
}

TEST(RowsFile, ManyBlocksAreReadByPartitionRange) {
  auto storage = make_memory_storage();
  const auto records = random_records(9, 150'000, 37, false);
  const manifest::File file = write(*storage, "x.rows", 37, records);
  EXPECT_GT(file.bytes(), 2 * kPieceBytes);  // blocks lie across the ends of pieces
  const std::uint32_t cuts[] = {0, 1, 4'000, 8'192, 16'383, kPartitions};
  std::vector<StoredRecord> joined;
  for (int i = 0; i + 1 < 6; ++i) {
    auto part = read(*storage, "x.rows", file, cuts[i], cuts[i + 1] - 1);
    ASSERT_TRUE(part.ok()) << part.status().message();
    joined.insert(joined.end(), part->begin(), part->end());
  }
  EXPECT_EQ(joined, records);
}

TEST(RowsFile, RecordsOfAnyOrderLieInBlocksOfTheirGroup) {
  auto storage = make_memory_storage();
  auto records = random_records(9, 60'000, 37, false);
  std::erase_if(records, [](const StoredRecord& r) {
    const std::uint32_t partition = partition_of(r.key);
    return partition < 1'000 || partition > 9'000;
  });
  std::ranges::sort(records, {}, &StoredRecord::key);
  for (const std::uint32_t groups : {1u, 7u, 64u}) {
    const manifest::File file = write(*storage, "x.rows", 37, records, {1'000, 9'000, groups});
    const std::vector<StoredRecord> back = read(*storage, "x.rows", file).value();
    EXPECT_EQ(by_key(back), records);
    // No block has records of two groups.
    const auto visit = [&](const Records& block) {
      std::set<std::uint64_t> of;
      for (const std::uint64_t key : block.keys) {
        of.insert(std::uint64_t{partition_of(key) - 1'000} * groups / 8'001);
      }
      EXPECT_EQ(of.size(), 1u);
      return Status();
    };
    ASSERT_TRUE(
        read_rows(*storage, "x.rows", file, 0, kPartitions - 1, RecordsVisitor(visit)).ok());
    // Partitions of one group: other blocks are not unpacked, and none is visited in vain.
    const auto some = read(*storage, "x.rows", file, 3'000, 3'100).value();
    std::vector<StoredRecord> expected;
    std::ranges::copy_if(records, std::back_inserter(expected), [](const StoredRecord& r) {
      return partition_of(r.key) >= 3'000 && partition_of(r.key) <= 3'100;
    });
    EXPECT_EQ(by_key(some), expected);
  }
}

TEST(RowsFile, FilesChecksumIsThatOfItsBytes) {
  auto storage = make_memory_storage();
  for (const bool compressible : {false, true}) {
    const manifest::File file =
        write(*storage, "x.rows", 5, random_records(3, 60'000, 5, compressible), {0, 16'383, 3});
    const Buffer bytes = storage->read("x.rows").value();
    EXPECT_EQ(file.bytes(), bytes.size());
    EXPECT_EQ(file.crc32c(), crc32c(bytes.data(), bytes.size()));
    const auto scanned = scan_rows(*storage, "x.rows", bytes.size(), 0, kPartitions - 1, true,
                                   [](const Records&) { return Status(); });
    EXPECT_EQ(scanned->crc, file.crc32c());
  }
}

TEST(RowsFile, DigestOfManyIsTheSumOfEach) {
  auto storage = make_memory_storage();
  for (const std::uint32_t values : {0u, 1u, 2u, 5u, 37u, 64u}) {
    const manifest::File file =
        write(*storage, "x.rows", values, random_records(values, 1'003, values, false));
    const auto visit = [&](const Records& records) {
      std::uint64_t sum = 0;
      RETURN_IF_ERROR(visit_each(records, [&](const Record& record) {
        sum += record_digest(3, record);
        return Status();
      }));
      EXPECT_EQ(records_digest(3, records), sum);
      return Status();
    };
    ASSERT_TRUE(read_rows(*storage, "x.rows", file, 0, 9'000, RecordsVisitor(visit)).ok());
  }
}

TEST(RowsFile, CompressesOnlyWhatShrinks) {
  auto storage = make_memory_storage();
  const auto noise = write(*storage, "noise.rows", 64, random_records(1, 2'000, 64, false));
  const auto flat = write(*storage, "flat.rows", 64, random_records(1, 2'000, 64, true));
  EXPECT_GT(noise.bytes(), 1'500u * 64 * 4);
  EXPECT_LT(flat.bytes(), noise.bytes() / 4);
}

TEST(RowsFile, EmptyFileIsWhole) {
  auto storage = make_memory_storage();
  const manifest::File file = write(*storage, "x.rows", 4, {});
  auto back = read(*storage, "x.rows", file);
  ASSERT_TRUE(back.ok());
  EXPECT_TRUE(back->empty());
}

TEST(RowsFile, TornTailIsReportedWhereverItIsCut) {
  auto storage = make_memory_storage();
  manifest::File file = write(*storage, "x.rows", 5, random_records(2, 20, 5, false));
  const Buffer bytes = storage->read("x.rows").value();
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    ASSERT_TRUE(storage->write_atomic("torn.rows", bytes.data(), size).ok());
    auto back = read(*storage, "torn.rows", file);
    ASSERT_EQ(back.status().code(), Code::kCorrupt);
    EXPECT_THAT(back.status().message(), HasSubstr("torn.rows: torn"));
    // Also when the size is not known to be wrong.
    const Status scanned = scan({bytes.data(), bytes.data() + size});
    ASSERT_EQ(scanned.code(), Code::kCorrupt) << size;
    EXPECT_THAT(scanned.message(), HasSubstr("torn"));
  }
}

TEST(RowsFile, TornOrLongerFilesOfManyPiecesAreReported) {
  auto storage = make_memory_storage();
  const manifest::File file = write(*storage, "x.rows", 37, random_records(2, 120'000, 37, false));
  const Buffer bytes = storage->read("x.rows").value();
  std::vector<std::byte> longer(bytes.data(), bytes.data() + bytes.size());
  longer.push_back({});
  const std::size_t sizes[] = {0, 23, 24, 1'000, kPieceBytes - 1, kPieceBytes, bytes.size() - 1};
  for (const std::size_t size : sizes) {
    ASSERT_TRUE(storage->write_atomic("torn.rows", bytes.data(), size).ok());
    const Status status = read(*storage, "torn.rows", file).status();
    EXPECT_EQ(status.code(), Code::kCorrupt);
    EXPECT_EQ(status.message(), "torn.rows: torn: " + std::to_string(size) + " of " +
                                    std::to_string(bytes.size()) + " bytes");
  }
  ASSERT_TRUE(storage->write_atomic("x.rows", longer.data(), longer.size()).ok());
  // Also when every block is skipped.
  for (const std::uint32_t last : {kPartitions - 1, 0u}) {
    const Status status = read(*storage, "x.rows", file, 0, last).status();
    EXPECT_EQ(status.code(), Code::kCorrupt);
    EXPECT_THAT(status.message(), HasSubstr("x.rows: longer than"));
  }
}

TEST(RowsFile, VisitorsErrorEndsTheReading) {
  auto storage = make_memory_storage();
  const manifest::File file = write(*storage, "x.rows", 5, random_records(2, 20, 5, false));
  int visited = 0;
  const Status status = read_rows(*storage, "x.rows", file, 0, kPartitions - 1, [&](const Record&) {
    return ++visited == 3 ? failed("enough") : Status();
  });
  EXPECT_EQ(status.message(), "enough");
  EXPECT_EQ(visited, 3);
}

TEST(RowsFile, GarbageIsRefusedNotFollowed) {
  Rng rng(4);
  for (int i = 0; i < 2'000; ++i) {
    auto storage = make_memory_storage();
    const manifest::File file = write(*storage, "x.rows", 2, random_records(i, 8, 2, i % 2 == 0));
    Buffer bytes = storage->read("x.rows").value();
    std::vector<std::byte> damaged(bytes.data(), bytes.data() + bytes.size());
    for (std::uint64_t n = 1 + rng.below(8); n != 0; --n) {
      damaged[rng.below(damaged.size())] = static_cast<std::byte>(rng.next());
    }
    const bool is_same = std::equal(damaged.begin(), damaged.end(), bytes.data());
    ASSERT_EQ(scan(damaged).ok(), is_same);
  }
}

}  // namespace
}  // namespace meander::checkpoint
