// SPDX-License-Identifier: Apache-2.0
#include "data/column_file.h"

#include <gtest/gtest.h>

#include <numeric>

#include "tests/unit/data/support.h"

namespace meander::data {
namespace {

std::vector<std::uint64_t> some_values(std::size_t count) {
  std::vector<std::uint64_t> values(count);
  std::iota(values.begin(), values.end(), 5);
  return values;
}
void write_values(Storage& storage, const std::vector<std::uint64_t>& values) {
  ASSERT_TRUE(write_column(storage, "c", std::span<const std::uint64_t>(values)).ok());
}

TEST(ColumnFile, WhatIsWrittenIsRead) {
  for (const std::size_t count : {0, 1, 8, 9, 100'000}) {
    auto storage = make_memory_storage();
    const auto values = some_values(count);
    write_values(*storage, values);
    const auto file = open_column(*storage, "c", 8);
    ASSERT_TRUE(file.ok()) << file.status().message();
    const auto read = file->values<std::uint64_t>();
    EXPECT_TRUE(std::equal(read.begin(), read.end(), values.begin(), values.end()));
    EXPECT_TRUE(file->verify().ok());
  }
}

TEST(ColumnFile, EveryTruncationIsRefused) {
  auto storage = make_memory_storage();
  write_values(*storage, some_values(20));
  const std::string whole = read_file(*storage, "c");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    write_file(*storage, "c", whole.substr(0, size));
    const auto file = open_column(*storage, "c", 8);
    ASSERT_FALSE(file.ok()) << size;
    EXPECT_EQ(file.status().code(), Code::kInvalid);
  }
}

TEST(ColumnFile, EveryFlippedByteIsFound) {
  auto storage = make_memory_storage();
  write_values(*storage, some_values(16));
  const std::string whole = read_file(*storage, "c");
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string bytes = whole;
    bytes[at] ^= 0x10;
    write_file(*storage, "c", bytes);
    const auto file = open_column(*storage, "c", 8);
    EXPECT_FALSE(file.ok() && file->verify().ok()) << at;
  }
}

TEST(ColumnFile, AnotherWidthIsRefused) {
  auto storage = make_memory_storage();
  write_values(*storage, some_values(16));
  EXPECT_EQ(open_column(*storage, "c", 4).status().code(), Code::kInvalid);
  EXPECT_EQ(open_column(*storage, "absent", 8).status().code(), Code::kNotFound);
}

TEST(ColumnReader, ReadsInPiecesAndStopsAtAShortFile) {
  auto storage = make_memory_storage();
  write_values(*storage, some_values(10));
  ColumnReader<std::uint64_t> reader(*storage, "c", 10, 3);
  std::uint64_t next = 5;
  while (const std::uint64_t* value = reader.next()) EXPECT_EQ(*value, next++);
  EXPECT_EQ(next, 15u);
  EXPECT_TRUE(reader.status().ok());
  ColumnReader<std::uint64_t> beyond(*storage, "c", 1000, 300);
  while (beyond.next() != nullptr) continue;
  EXPECT_EQ(beyond.status().code(), Code::kCorrupt);
}

}  // namespace
}  // namespace meander::data
