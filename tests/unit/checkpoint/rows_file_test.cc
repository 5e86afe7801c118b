// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "checkpoint/block.h"
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
                     const std::vector<StoredRecord>& records) {
  auto writer = RowsWriter::create(storage, path, 3, values, {});
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
  const auto records = random_records(9, 30'000, 37, false);
  const manifest::File file = write(*storage, "x.rows", 37, records);
  EXPECT_GT(file.bytes(), 3 * kBlockBytes);
  const std::uint32_t cuts[] = {0, 1, 4'000, 8'192, 16'383, kPartitions};
  std::vector<StoredRecord> joined;
  for (int i = 0; i + 1 < 6; ++i) {
    auto part = read(*storage, "x.rows", file, cuts[i], cuts[i + 1] - 1);
    ASSERT_TRUE(part.ok()) << part.status().message();
    joined.insert(joined.end(), part->begin(), part->end());
  }
  EXPECT_EQ(joined, records);
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
    const std::span<const std::byte> head(bytes.data(), size);
    const auto scanned =
        scan_rows("x", head, 0, kPartitions - 1, [](const Record&) { return Status(); });
    ASSERT_EQ(scanned.status().code(), Code::kCorrupt) << size;
    EXPECT_THAT(scanned.status().message(), HasSubstr("torn"));
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
    const auto scanned =
        scan_rows("x", damaged, 0, kPartitions - 1, [](const Record&) { return Status(); });
    const bool is_same = std::equal(damaged.begin(), damaged.end(), bytes.data());
    ASSERT_EQ(scanned.ok(), is_same);
  }
}

}  // namespace
}  // namespace meander::checkpoint
