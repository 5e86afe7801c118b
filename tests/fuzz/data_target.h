// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "common/storage.h"
#include "data/batch.h"
#include "data/column_file.h"
#include "data/prepare.h"
#include "data/prepared_log.h"
#include "data/stream.h"

namespace meander::data {

inline void put_file(Storage& storage, const std::string& path, std::string_view bytes) {
  CHECK(storage.write_atomic(path, bytes.data(), bytes.size()).ok());
}

inline Schema fuzz_schema() {
  Schema schema;
  schema.columns = {{"time", ColumnRole::kTime, ColumnType::kFloat},
                    {"user", ColumnRole::kUser, ColumnType::kInt},
                    {"item", ColumnRole::kItem, ColumnType::kString},
                    {"category", ColumnRole::kCategory, ColumnType::kString},
                    {"price", ColumnRole::kNumeric, ColumnType::kFloat}};
  return schema;
}

// Reads `bytes` as an event log. The first byte picks the format and whether it is compressed.
inline void fuzz_log(std::string_view bytes) {
  if (bytes.empty()) return;
  const auto pick = static_cast<unsigned char>(bytes.front());
  bytes.remove_prefix(1);
  auto storage = make_memory_storage();
  const std::string path = pick & 0x80 ? "log.zst" : "log.txt";
  put_file(*storage, path, bytes);
  PrepareOptions options;
  options.format = static_cast<Format>(pick % 9);
  options.in = {path};
  if (pick & 0x40) {
    options.test_in = {path};
    options.test_negatives = path;
  }
  options.out = "prepared";
  options.schema = fuzz_schema();
  options.streams = 2;
  options.refused_share_max = 1;
  if (!prepare(*storage, options).ok()) return;
  const auto log = PreparedLog::open(*storage, "prepared");
  CHECK(log.ok()) << log.status().message();  // what we write we can read
  CHECK(log.value()->verify().ok());
}

// A small valid prepared log, in memory.
inline std::unique_ptr<Storage> fuzz_prepared() {
  auto storage = make_memory_storage();
  std::string text = "time,user,item,category,price\n";
  for (int i = 0; i < 60; ++i) {
    text += std::to_string(i * 7 % 50) + "," + std::to_string(i % 4) + ",i" +
            std::to_string(i * 5 % 11) + ",c" + std::to_string(i % 3) + ",1.5\n";
  }
  put_file(*storage, "log.csv", text);
  PrepareOptions options;
  options.format = Format::kCsv;
  options.in = {"log.csv"};
  options.out = "prepared";
  options.schema = fuzz_schema();
  options.streams = 1;
  CHECK(prepare(*storage, options).ok());
  return storage;
}

// Puts `bytes` in place of one file of a prepared log (the first byte says which) and trains from
// it if it still opens. With `reseal`, the values of a column get a valid trailer first, so that
// what is behind the checksums is tested too.
inline void fuzz_prepared_log(std::string_view bytes, bool reseal) {
  constexpr const char* kFiles[] = {"log.json",
                                    "items.col",
                                    "pool.col",
                                    "pool_time.col",
                                    "s/users.col",
                                    "s/item.col",
                                    "s/category.col",
                                    "s/time.col",
                                    "s/row.col",
                                    "s/numeric-0.col",
                                    "s/train.col",
                                    "s/test.col",
                                    "s/test_negatives.col"};
  constexpr std::uint32_t kWidths[] = {1, 24, 16, 8, 24, 8, 8, 8, 8, 4, 16, 16, 16};
  if (bytes.empty()) return;
  const std::size_t pick = static_cast<unsigned char>(bytes.front()) % std::size(kFiles);
  bytes.remove_prefix(1);
  auto storage = fuzz_prepared();
  std::string path = std::string("prepared/") + kFiles[pick];
  if (const auto at = path.find("/s/"); at != std::string::npos)
    path.replace(at, 2, "/shard-00000");
  if (reseal && pick > 0) {
    auto writer = ColumnWriter::create(*storage, path, kWidths[pick]).value();
    const std::size_t count = bytes.size() / kWidths[pick];
    writer.append_bytes(bytes.data(), kWidths[pick], count);
    CHECK(writer.finish().ok());
  } else {
    put_file(*storage, path, bytes);
  }
  const auto log = PreparedLog::open(*storage, "prepared");
  if (!log.ok()) return;
  for (const LogPart part : {LogPart::kTrain, LogPart::kTest}) {
    StreamSpec spec;
    spec.part = part;
    spec.slots = {{"item", SlotSource::kItem, 0, ""}, {"user", SlotSource::kUser, 0, ""}};
    spec.negatives.kind = NegativeKind::kRecent;
    spec.auxiliary = true;
    const auto stream = Stream::open(log.value(), spec);
    if (!stream.ok()) continue;
    Batch batch;
    for (std::uint64_t seq = 0; seq < stream.value()->batches(); ++seq) {
      stream.value()->build(seq, PartitionMap::even(2), batch);
    }
  }
}

}  // namespace meander::data
