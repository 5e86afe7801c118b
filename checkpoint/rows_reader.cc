// SPDX-License-Identifier: Apache-2.0
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "checkpoint/block.h"
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
  Scanner(const std::string& path, std::span<const std::byte> bytes) : path_(path), bytes_(bytes) {}

  Result<RowsFile> scan(std::uint32_t first, std::uint32_t last,
                        const std::function<Status(const Record&)>& visit) {
    RETURN_IF_ERROR(read_header());
    while (!at_end()) {
      BlockHeader header;
      RETURN_IF_ERROR(read_block_header(header));
      const std::span<const std::byte> stored = bytes_.subspan(offset_, header.stored_bytes);
      offset_ += header.stored_bytes;
      ++file_.blocks;
      file_.rows += header.records;
      if (header.last_partition < first || header.first_partition > last) continue;
      RETURN_IF_ERROR(read_block(header, stored, first, last, visit));
    }
    RETURN_IF_ERROR(read_end());
    return file_;
  }

 private:
  template <class T>
  bool take(T& out) {
    if (bytes_.size() - offset_ < sizeof(T)) return false;
    std::memcpy(&out, bytes_.data() + offset_, sizeof(T));
    offset_ += sizeof(T);
    return true;
  }
  std::string block() const { return path_ + ": block " + std::to_string(file_.blocks) + ": "; }

  Status read_header() {
    FileHeader header;
    if (!take(header)) return corrupt(path_ + ": torn: shorter than its header");
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

  bool at_end() const {
    std::uint32_t magic = 0;
    if (bytes_.size() - offset_ < sizeof(magic)) return false;
    std::memcpy(&magic, bytes_.data() + offset_, sizeof(magic));
    return magic == FileEnd::kMagic;
  }

  Status read_end() {
    FileEnd end;
    if (!take(end)) return corrupt(path_ + ": torn: the end mark is cut off");
    if (!is_sealed(end)) return corrupt(path_ + ": the end mark is damaged");
    if (end.rows != file_.rows || end.blocks != file_.blocks) {
      return corrupt(path_ + ": the end mark counts other blocks or rows");
    }
    if (offset_ != bytes_.size()) return corrupt(path_ + ": bytes follow the end mark");
    return {};
  }

  Status read_block_header(BlockHeader& header) {
    if (!take(header)) return corrupt(block() + "torn: the file ends here without an end mark");
    if (!is_sealed(header)) return corrupt(block() + "header is damaged");
    if (header.stored_bytes > bytes_.size() - offset_) {
      return corrupt(block() + "torn: " + std::to_string(bytes_.size() - offset_) + " of " +
                     std::to_string(header.stored_bytes) + " bytes");
    }
    const bool sizes_ok =
        header.records != 0 && header.admitted <= header.records &&
        header.raw_bytes == raw_size(header.records, header.admitted, file_.values) &&
        header.raw_bytes <= kStoredMax && header.codec <= kZstd &&
        (header.codec != kNone || header.stored_bytes == header.raw_bytes);
    const bool partitions_ok =
        header.first_partition <= header.last_partition && header.last_partition < kPartitions;
    if (!sizes_ok || !partitions_ok) return corrupt(block() + "header contradicts itself");
    return {};
  }

  // The payload as it was before compression, aligned.
  Status unpack(const BlockHeader& header, std::span<const std::byte> stored) {
    if (crc32c(stored.data(), stored.size()) != header.payload_crc) {
      return corrupt(block_before() + "payload is damaged");
    }
    raw_.resize((header.raw_bytes + 7) / 8);
    if (header.codec == kNone) {
      std::memcpy(raw_.data(), stored.data(), stored.size());
      return {};
    }
    const std::size_t size =
        ZSTD_decompress(raw_.data(), header.raw_bytes, stored.data(), stored.size());
    if (ZSTD_isError(size) || size != header.raw_bytes) {
      return corrupt(block_before() + "payload does not unpack");
    }
    return {};
  }
  std::string block_before() const {
    return path_ + ": block " + std::to_string(file_.blocks - 1) + ": ";
  }

  Status read_block(const BlockHeader& header, std::span<const std::byte> stored,
                    std::uint32_t first, std::uint32_t last,
                    const std::function<Status(const Record&)>& visit) {
    RETURN_IF_ERROR(unpack(header, stored));
    const std::size_t n = header.records;
    const std::uint64_t* keys = raw_.data();
    const std::uint64_t* steps = keys + n;
    const auto* counts = reinterpret_cast<const std::uint32_t*>(steps + n);
    const auto* values = reinterpret_cast<const float*>(counts + n);
    const auto* admitted =
        reinterpret_cast<const std::uint8_t*>(values + std::size_t{header.admitted} * file_.values);
    if (std::count(admitted, admitted + n, 1) != header.admitted) {
      return corrupt(block_before() + "marks other records as admitted than it counts");
    }
    for (std::size_t i = 0; i < n; ++i) {
      Record record;
      record.key = keys[i];
      record.step = steps[i];
      record.count = counts[i];
      record.admitted = admitted[i] == 1;
      if (record.admitted) {
        record.values = {values, file_.values};
        values += file_.values;
      }
      const std::uint32_t partition = partition_of(record.key);
      if (partition < header.first_partition || partition > header.last_partition) {
        return corrupt(block_before() + "a key lies outside of its partitions");
      }
      if (partition < first || partition > last) continue;
      RETURN_IF_ERROR(visit(record));
    }
    return {};
  }

  const std::string& path_;
  std::span<const std::byte> bytes_;
  std::size_t offset_ = 0;
  RowsFile file_;
  std::vector<std::uint64_t> raw_;
};

}  // namespace

std::uint64_t raw_size(std::uint64_t records, std::uint64_t admitted, std::uint64_t values) {
  return records * kRecordBytes + admitted * values * sizeof(float);
}

Result<RowsFile> scan_rows(const std::string& path, std::span<const std::byte> bytes,
                           std::uint32_t first_partition, std::uint32_t last_partition,
                           const std::function<Status(const Record&)>& visit) {
  return Scanner(path, bytes).scan(first_partition, last_partition, visit);
}

Status read_rows(Storage& storage, const std::string& path, const manifest::File& file,
                 std::uint32_t first_partition, std::uint32_t last_partition,
                 const std::function<Status(const Record&)>& visit) {
  ASSIGN_OR_RETURN(const Buffer bytes, storage.read(path));
  if (bytes.size() != file.bytes()) {
    return corrupt(path + ": torn: " + std::to_string(bytes.size()) + " of " +
                   std::to_string(file.bytes()) + " bytes");
  }
  ASSIGN_OR_RETURN(const RowsFile rows, scan_rows(path, {bytes.data(), bytes.size()},
                                                  first_partition, last_partition, visit));
  if (rows.rows != file.rows() || rows.table != file.table()) {
    return corrupt(path + ": holds other rows than the manifest says");
  }
  return {};
}

}  // namespace meander::checkpoint
