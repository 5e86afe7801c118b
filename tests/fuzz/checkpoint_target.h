// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "checkpoint/block.h"
#include "checkpoint/generation.h"
#include "common/crc32c.h"
#include "common/partition.h"

namespace meander::checkpoint {

inline void put_file(Storage& storage, const std::string& path, std::string_view bytes) {
  CHECK(storage.write_atomic(path, bytes.data(), bytes.size()).ok());
}

// Gives every structure that lies where one should a valid checksum, so that what is behind the
// checksums is tested too.
inline std::string resealed(std::string file) {
  const auto seal = [&](std::size_t at, std::size_t size) {
    const std::uint32_t crc = crc32c(file.data() + at, size - sizeof(std::uint32_t));
    std::memcpy(file.data() + at + size - sizeof(crc), &crc, sizeof(crc));
  };
  if (file.size() < sizeof(FileHeader)) return file;
  seal(0, sizeof(FileHeader));
  std::size_t at = sizeof(FileHeader);
  while (file.size() - at >= sizeof(BlockHeader)) {
    BlockHeader header;
    std::memcpy(&header, file.data() + at, sizeof(header));
    if (header.magic != BlockHeader::kMagic) break;
    const std::size_t left = file.size() - at - sizeof(header);
    if (header.stored_bytes > left) break;
    header.payload_crc = crc32c(file.data() + at + sizeof(header), header.stored_bytes);
    std::memcpy(file.data() + at, &header, sizeof(header));
    seal(at, sizeof(header));
    at += sizeof(header) + header.stored_bytes;
  }
  if (file.size() - at >= sizeof(FileEnd)) seal(at, sizeof(FileEnd));
  return file;
}

// Reads `bytes` as a rows file, all partitions and some.
inline void fuzz_rows(std::string_view bytes, bool reseal) {
  auto storage = make_memory_storage();
  put_file(*storage, "x.rows", reseal ? resealed(std::string(bytes)) : bytes);
  for (const std::uint32_t last : {kPartitions - 1, kPartitions / 3}) {
    std::uint64_t rows = 0, floats = 0;
    const auto visit = [&](const Records& records) -> Status {
      CHECK_EQ(records.keys.size(), records.admitted.size());
      rows += records.size();
      return visit_each(records, [&](const Record& record) {
        CHECK_LE(partition_of(record.key), last);
        CHECK_EQ(record.values.size(), record.admitted ? records.width : 0);
        for (const float v : record.values) floats += v > 0 ? 1 : 0;
        return Status();
      });
    };
    const auto file = scan_rows(*storage, "x.rows", bytes.size(), 0, last, false, visit);
    if (file.ok() && last == kPartitions - 1) CHECK_EQ(rows, file->rows);
  }
}

// Puts `bytes` in place of the manifest of a generation that a delta stands on. With `reseal`, the
// last line becomes the checksum of the others.
inline void fuzz_manifest(Storage& storage, const std::string& base_dir,
                          const std::string& delta_dir, std::string_view bytes, bool reseal) {
  std::string text(bytes);
  if (reseal) {
    char line[32];
    std::snprintf(line, sizeof(line), "crc32c %08x\n", crc32c(text.data(), text.size()));
    text += line;
  }
  put_file(storage, base_dir + "/MANIFEST", text);
  for (const std::string& dir : {base_dir, delta_dir}) {
    (void)verify(storage, dir);
    const auto chain = open_chain(storage, dir);
    if (!chain.ok()) continue;
    (void)read_digest(storage, chain.value());
    const int tables = chain->back().manifest.tables_size();
    for (std::uint32_t t = 0; t < static_cast<std::uint32_t>(tables); ++t) {
      (void)read_table(storage, chain.value(), t, 0, kPartitions - 1,
                       [](const Records&) { return Status(); });
    }
  }
}

// A full generation in c/gen-000001 and a delta on it, in memory; returns the storage.
inline std::unique_ptr<Storage> fuzz_chain() {
  auto storage = make_memory_storage();
  for (std::uint64_t number = 1; number <= 2; ++number) {
    const std::string dir = "c/" + generation_name(number);
    CHECK(storage->make_directories(dir).ok());
    auto writer = RowsWriter::create(*storage, dir + "/t0", 0, 3, {}).value();
    std::uint64_t digest = 0;
    for (std::uint64_t key = number; key < 30; key += number) {
      const float values[] = {1, 2, static_cast<float>(key)};
      Record record{key, number, 3, key % 3 != 0, values};
      if (!record.admitted) record.values = {};
      digest += record_digest(0, record);
      CHECK(writer->add(record).ok());
    }
    manifest::Manifest manifest;
    manifest.set_generation(number);
    manifest.set_base(number - 1);
    *manifest.add_files() = writer->finish().value();
    manifest::Table& table = *manifest.add_tables();
    table.set_name("item");
    table.set_width(2);
    table.set_state_width(1);
    table.set_expire_steps(9);
    table.set_rows(manifest.files(0).rows());
    if (number == 1) manifest.set_digest(final_digest(digest, manifest));
    CHECK(write_manifest(*storage, dir, manifest).ok());
  }
  return storage;
}

}  // namespace meander::checkpoint
