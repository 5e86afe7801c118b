// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "checkpoint/generation.h"

namespace meander::checkpoint {

// The bytes of a rows file (docs/checkpoint-format.md): one FileHeader, blocks of a BlockHeader and
// its payload, and a FileEnd. All little-endian. Each crc is CRC-32C of the structure's bytes
// before it.
struct FileHeader {
  static constexpr std::uint64_t kMagic = 0x53574f52444e4d0aull;  // "\nMNDROWS"
  static constexpr std::uint32_t kFormat = 2;
  static constexpr std::uint32_t kOldestFormat = 1;  // records in rising order of mix64(key)
  std::uint64_t magic = kMagic;
  std::uint32_t format = kFormat;
  std::uint32_t table = 0;
  std::uint32_t values = 0;  // floats of an admitted record
  std::uint32_t crc = 0;
};
static_assert(sizeof(FileHeader) == 24);

enum Codec : std::uint32_t { kNone = 0, kZstd = 1 };

struct BlockHeader {
  static constexpr std::uint32_t kMagic = 0x4b4c424du;  // "MBLK"
  std::uint32_t magic = kMagic;
  std::uint32_t codec = kNone;
  std::uint32_t records = 0;
  std::uint32_t admitted = 0;         // of them, with values
  std::uint32_t first_partition = 0;  // the lowest of the records'
  std::uint32_t last_partition = 0;   // the highest
  std::uint32_t raw_bytes = 0;
  std::uint32_t stored_bytes = 0;
  std::uint32_t payload_crc = 0;  // of the stored payload
  std::uint32_t crc = 0;
};
static_assert(sizeof(BlockHeader) == 40);

struct FileEnd {
  static constexpr std::uint32_t kMagic = 0x444e454du;  // "MEND"
  std::uint32_t magic = kMagic;
  std::uint32_t blocks = 0;
  std::uint64_t rows = 0;
  std::uint32_t reserved = 0;
  std::uint32_t crc = 0;
};
static_assert(sizeof(FileEnd) == 24);

// A block has as many records as fill this when all are admitted; fewer at the end of a file.
constexpr std::size_t kBlockBytes = std::size_t{1} << 20;
// A record's columns: key u64, step u64, count u32, admitted u8; and its values.
constexpr std::size_t kRecordBytes = 8 + 8 + 4 + 1;
// Floats of a record: with it, no block is larger than 4 MiB.
constexpr std::uint32_t kValuesMax = 3u << 18;
// A file is read in pieces of so many bytes.
constexpr std::size_t kPieceBytes = std::size_t{8} << 20;

std::uint64_t raw_size(std::uint64_t records, std::uint64_t admitted, std::uint64_t values);

// What a rows file holds, checked on the way.
struct RowsFile {
  std::uint32_t table = 0;
  std::uint32_t values = 0;
  std::uint64_t rows = 0;
  std::uint64_t blocks = 0;
  std::uint32_t crc = 0;  // of the file; meaningless when blocks were skipped
};
// Reads a file of `bytes` bytes: calls `visit` for the records of partitions first ... last of the
// blocks that touch them (other blocks' payloads are not looked at). `is_whole`: they are all there
// are, as far as is known, so nobody else needs the file. kCorrupt: names file and block.
Result<RowsFile> scan_rows(Storage& storage, const std::string& path, std::uint64_t bytes,
                           std::uint32_t first_partition, std::uint32_t last_partition,
                           bool is_whole, const RecordsVisitor& visit);

}  // namespace meander::checkpoint
