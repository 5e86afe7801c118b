// SPDX-License-Identifier: Apache-2.0
#include "data/prepared_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/data/support.h"

namespace meander::data {
namespace {

// Every file of the prepared log "shop".
std::vector<std::string> files_of(Storage& storage) {
  std::vector<std::string> files;
  const std::vector<std::string> names = storage.list("shop").value();
  for (const std::string& name : names) {
    const std::string path = "shop/" + name;
    if (!name.starts_with("shard-")) {
      files.push_back(path);
      continue;
    }
    const std::vector<std::string> columns = storage.list(path).value();
    for (const std::string& column : columns) files.push_back(path + "/" + column);
  }
  return files;
}

TEST(PreparedLog, HoldsNothingButWhatIsDocumented) {
  auto storage = make_memory_storage();
  ASSERT_TRUE(shop_log(*storage));
  EXPECT_THAT(storage->list("shop").value(),
              testing::ElementsAre("items.col", "log.json", "pool.col", "pool_time.col",
                                   "shard-00000", "shard-00001", "shard-00002"));
  EXPECT_THAT(
      storage->list("shop/shard-00001").value(),
      testing::ElementsAre("category.col", "context-0.col", "item.col", "numeric-0.col", "row.col",
                           "test.col", "test_negatives.col", "time.col", "train.col", "users.col"));
}

TEST(PreparedLog, TruncatedOrMissingFilesAreRefusedByName) {
  auto storage = make_memory_storage();
  ASSERT_TRUE(shop_log(*storage));
  const std::vector<std::string> files = files_of(*storage);
  for (const std::string& file : files) {
    const std::string whole = read_file(*storage, file);
    write_file(*storage, file, whole.substr(0, whole.size() / 2));
    const auto log = PreparedLog::open(*storage, "shop");
    ASSERT_FALSE(log.ok()) << file;
    EXPECT_EQ(log.status().code(), Code::kInvalid) << log.status().message();
    EXPECT_THAT(log.status().message(), testing::StartsWith(file));
    ASSERT_TRUE(storage->remove(file).ok());
    EXPECT_FALSE(PreparedLog::open(*storage, "shop").ok()) << file;
    write_file(*storage, file, whole);
  }
  EXPECT_TRUE(PreparedLog::open(*storage, "shop").ok());
}

TEST(PreparedLog, FlippedValuesAreFoundByOpenOrVerify) {
  auto storage = make_memory_storage();
  ASSERT_TRUE(shop_log(*storage));
  const std::vector<std::string> files = files_of(*storage);
  for (const std::string& file : files) {
    if (!file.ends_with(".col")) continue;
    const std::string whole = read_file(*storage, file);
    std::string bytes = whole;
    bytes[bytes.size() / 3] ^= 1;
    write_file(*storage, file, bytes);
    const auto log = PreparedLog::open(*storage, "shop");
    EXPECT_FALSE(log.ok() && (*log.value()).verify().ok()) << file;
    write_file(*storage, file, whole);
  }
  EXPECT_TRUE(open_log(*storage, "shop")->verify().ok());
}

TEST(PreparedLog, WhatIsNotOneIsRefused) {
  auto storage = make_memory_storage();
  EXPECT_EQ(PreparedLog::open(*storage, "absent").status().code(), Code::kNotFound);
  write_file(*storage, "d/notes.txt", "x");
  EXPECT_EQ(PreparedLog::open(*storage, "d").status().code(), Code::kInvalid);
  write_file(*storage, "d/log.json", "{\"format\": \"parquet\"}");
  EXPECT_EQ(PreparedLog::open(*storage, "d").status().code(), Code::kInvalid);
  write_file(*storage, "d/log.json", "{\"format\": \"meander-prepared-log\", \"version\": 9}");
  EXPECT_THAT(PreparedLog::open(*storage, "d").status().message(),
              testing::HasSubstr("prepare the log again"));
  write_file(*storage, "d/log.json", "{\"format\": \"meander-prepared-log\", \"version\": 1}");
  EXPECT_EQ(PreparedLog::open(*storage, "d").status().code(), Code::kInvalid);
}

TEST(PreparedLog, UsersAndItemsAreFound) {
  auto storage = make_memory_storage();
  const auto log = shop_log(*storage);
  ASSERT_TRUE(log);
  for (std::uint64_t user = 1; user <= 60; ++user) {
    const auto found = log->find_user(user);
    ASSERT_TRUE(found) << user;
    EXPECT_EQ(found->user->id, user);
  }
  EXPECT_FALSE(log->find_user(61));
  EXPECT_EQ(log->items().size(), 40u);
  EXPECT_EQ(log->find_item(100)->category, hash_id("c0"));
  EXPECT_EQ(log->context_column("device"), 0u);
  EXPECT_FALSE(log->context_column("note"));
}

}  // namespace
}  // namespace meander::data
