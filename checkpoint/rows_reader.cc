// SPDX-License-Identifier: Apache-2.0
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <vector>

#include "checkpoint/block.h"
#include "checkpoint/pieces.h"
#include "checkpoint/selection.h"
#include "common/crc32c.h"
#include "common/partition.h"

namespace meander::checkpoint {
namespace {

constexpr std::size_t kStoredMax = kBlockBytes + kRecordBytes + kValuesMax * sizeof(float);

template <class T>
bool is_sealed(const T& structure) {
  return structure.magic == T::kMagic &&
         structure.crc == crc32c(&structure, sizeof(T) - sizeof(structure.crc));
}

// Walks the bytes of one file. Whatever they are, it stays inside of them.
class Scanner {
 public:
  Scanner(Storage& storage, const std::string& path, std::uint64_t bytes, std::uint32_t first,
          std::uint32_t last, bool is_whole, const RecordsVisitor& visit)
      : path_(path),
        pieces_(storage, path, bytes, is_whole),
        first_(first),
        last_(last),
        visit_(visit) {}

  Result<RowsFile> scan() {
    RETURN_IF_ERROR(read_header());
    while (true) {
      std::uint32_t magic = 0;
      if (pieces_.left() < sizeof(magic)) return torn_in_block();
      RETURN_IF_ERROR(take(magic));
      if (magic == FileEnd::kMagic) break;
      BlockHeader header;
      RETURN_IF_ERROR(read_block_header(magic, header));
      const bool is_wanted = header.last_partition >= first_ && header.first_partition <= last_;
      if (is_wanted) {
        RETURN_IF_ERROR(read_block(header));
      } else {
        pieces_.skip(header.stored_bytes);
      }
      ++file_.blocks;
      file_.rows += header.records;
    }
    RETURN_IF_ERROR(read_end());
    return file_;
  }

 private:
  // The next bytes as they lie in the file, which are there.
  template <class T>
  Status take(T& out) {
    RETURN_IF_ERROR(pieces_.read(&out, sizeof(T)));
    file_.crc = crc32c(&out, sizeof(T), file_.crc);
    return {};
  }
  // A structure whose first field, the magic, has been taken.
  template <class T>
  Status take_rest(std::uint32_t magic, T& out) {
    constexpr std::size_t kMagicBytes = sizeof(magic);
    static_assert(std::is_same_v<decltype(T::magic), std::uint32_t>);
    auto* bytes = reinterpret_cast<std::byte*>(&out);
    std::memcpy(bytes, &magic, kMagicBytes);
    RETURN_IF_ERROR(pieces_.read(bytes + kMagicBytes, sizeof(T) - kMagicBytes));
    file_.crc = crc32c(bytes + kMagicBytes, sizeof(T) - kMagicBytes, file_.crc);
    return {};
  }
  template <class T>
  bool has_rest_of() const {
    return pieces_.left() >= sizeof(T) - sizeof(T::magic);
  }
  std::string block() const { return path_ + ": block " + std::to_string(file_.blocks) + ": "; }
  Status torn_in_block() const {
    return corrupt(block() + "torn: the file ends here without an end mark");
  }

  Status read_header() {
    FileHeader header;
    if (pieces_.left() < sizeof(header)) return corrupt(path_ + ": torn: shorter than its header");
    RETURN_IF_ERROR(take(header));
    if (!is_sealed(header)) return corrupt(path_ + ": not a rows file, or its header is damaged");
    if (header.format < FileHeader::kOldestFormat || header.format > FileHeader::kFormat) {
      return invalid(path_ + ": format " + std::to_string(header.format) +
                     " is not known to this version");
    }
    if (header.values > kValuesMax) return corrupt(path_ + ": impossible row width");
    file_.table = header.table;
    file_.values = header.values;
    return {};
  }

  Status read_end() {
    FileEnd end;
    if (!has_rest_of<FileEnd>()) return corrupt(path_ + ": torn: the end mark is cut off");
    RETURN_IF_ERROR(take_rest(FileEnd::kMagic, end));
    if (!is_sealed(end)) return corrupt(path_ + ": the end mark is damaged");
    if (end.rows != file_.rows || end.blocks != file_.blocks) {
      return corrupt(path_ + ": the end mark counts other blocks or rows");
    }
    if (pieces_.left() != 0) return corrupt(path_ + ": bytes follow the end mark");
    return pieces_.check_end();
  }

  Status read_block_header(std::uint32_t magic, BlockHeader& header) {
    if (!has_rest_of<BlockHeader>()) return torn_in_block();
    RETURN_IF_ERROR(take_rest(magic, header));
    if (!is_sealed(header)) return corrupt(block() + "header is damaged");
    if (header.stored_bytes > pieces_.left()) {
      return corrupt(block() + "torn: " + std::to_string(pieces_.left()) + " of " +
                     std::to_string(header.stored_bytes) + " bytes");
    }
    const bool sizes_ok =
        header.records != 0 && header.admitted <= header.records &&
        header.raw_bytes == raw_size(header.records, header.admitted, file_.values) &&
        header.raw_bytes <= kStoredMax && header.codec <= kZstd &&
        header.stored_bytes <= header.raw_bytes &&
        (header.codec != kNone || header.stored_bytes == header.raw_bytes);
    const bool partitions_ok =
        header.first_partition <= header.last_partition && header.last_partition < kPartitions;
    if (!sizes_ok || !partitions_ok) return corrupt(block() + "header contradicts itself");
    return {};
  }

  // The payload as it was before compression, aligned.
  Status unpack(const BlockHeader& header) {
    raw_.resize((header.raw_bytes + 7) / 8);
    std::byte* stored = reinterpret_cast<std::byte*>(raw_.data());
    if (header.codec != kNone) {
      packed_.resize(header.stored_bytes);
      stored = packed_.data();
    }
    RETURN_IF_ERROR(pieces_.read(stored, header.stored_bytes));
    if (crc32c(stored, header.stored_bytes) != header.payload_crc) {
      return corrupt(block() + "payload is damaged");
    }
    file_.crc = crc32c_joined(file_.crc, header.payload_crc, header.stored_bytes);
    if (header.codec == kNone) return {};
    const std::size_t size =
        ZSTD_decompress(raw_.data(), header.raw_bytes, stored, header.stored_bytes);
    if (ZSTD_isError(size) || size != header.raw_bytes) {
      return corrupt(block() + "payload does not unpack");
    }
    return {};
  }

  Status read_block(const BlockHeader& header) {
    RETURN_IF_ERROR(unpack(header));
    const std::size_t n = header.records;
    Records records;
    records.width = file_.values;
    records.keys = {raw_.data(), n};
    records.steps = {raw_.data() + n, n};
    records.counts = {reinterpret_cast<const std::uint32_t*>(raw_.data() + 2 * n), n};
    records.values = {reinterpret_cast<const float*>(records.counts.data() + n),
                      std::size_t{header.admitted} * file_.values};
    records.admitted = {
        reinterpret_cast<const std::uint8_t*>(records.values.data() + records.values.size()), n};
    if (std::ranges::count(records.admitted, 1) != header.admitted) {
      return corrupt(block() + "marks other records as admitted than it counts");
    }
    bool are_inside = true;
    for (const std::uint64_t key : records.keys) {
      const std::uint32_t partition = partition_of(key);
      are_inside &= partition >= header.first_partition && partition <= header.last_partition;
    }
    if (!are_inside) return corrupt(block() + "a key lies outside of its partitions");
    if (first_ <= header.first_partition && header.last_partition <= last_) return visit_(records);
    const Records wanted = selection_.select(records, [&](std::size_t i) {
      const std::uint32_t partition = partition_of(records.keys[i]);
      return partition >= first_ && partition <= last_;
    });
    return wanted.size() == 0 ? Status() : visit_(wanted);
  }

  const std::string& path_;
  Pieces pieces_;
  const std::uint32_t first_, last_;
  const RecordsVisitor& visit_;
  RowsFile file_;
  std::vector<std::uint64_t> raw_;
  std::vector<std::byte> packed_;
  Selection selection_;
};

}  // namespace

std::uint64_t raw_size(std::uint64_t records, std::uint64_t admitted, std::uint64_t values) {
  return records * kRecordBytes + admitted * values * sizeof(float);
}

Result<RowsFile> scan_rows(Storage& storage, const std::string& path, std::uint64_t bytes,
                           std::uint32_t first_partition, std::uint32_t last_partition,
                           bool is_whole, const RecordsVisitor& visit) {
  return Scanner(storage, path, bytes, first_partition, last_partition, is_whole, visit).scan();
}

Status read_rows(Storage& storage, const std::string& path, const manifest::File& file,
                 std::uint32_t first_partition, std::uint32_t last_partition,
                 const RecordsVisitor& visit) {
  // Else other lanes of this machine are going to read the rest.
  const bool is_whole =
      first_partition <= file.first_partition() && file.last_partition() <= last_partition;
  ASSIGN_OR_RETURN(const RowsFile rows, scan_rows(storage, path, file.bytes(), first_partition,
                                                  last_partition, is_whole, visit));
  if (rows.rows != file.rows() || rows.table != file.table()) {
    return corrupt(path + ": holds other rows than the manifest says");
  }
  return {};
}

Status read_rows(Storage& storage, const std::string& path, const manifest::File& file,
                 std::uint32_t first_partition, std::uint32_t last_partition,
                 const RecordVisitor& visit) {
  return read_rows(storage, path, file, first_partition, last_partition,
                   [&](const Records& records) { return visit_each(records, visit); });
}

}  // namespace meander::checkpoint
