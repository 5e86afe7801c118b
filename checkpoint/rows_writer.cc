// SPDX-License-Identifier: Apache-2.0
#include <zstd.h>

#include <algorithm>
#include <vector>

#include "checkpoint/block.h"
#include "common/crc32c.h"
#include "common/partition.h"

namespace meander::checkpoint {
namespace {

constexpr int kZstdLevel = 1;

template <class T>
void append(std::vector<std::byte>& out, const std::vector<T>& column) {
  const auto* bytes = reinterpret_cast<const std::byte*>(column.data());
  out.insert(out.end(), bytes, bytes + column.size() * sizeof(T));
}

// Fills in the last field.
template <class T>
void seal(T& structure) {
  structure.crc = crc32c(&structure, sizeof(T) - sizeof(structure.crc));
}

// Records of one group of partitions, by column, until they are a block.
struct Open {
  std::uint32_t first_partition = kPartitions, last_partition = 0;
  std::uint32_t admitted_count = 0;
  std::vector<std::uint64_t> keys, steps;
  std::vector<std::uint32_t> counts;
  std::vector<std::uint8_t> admitted;
  std::vector<float> floats;

  void add(const Record& record, std::uint32_t partition) {
    first_partition = std::min(first_partition, partition);
    last_partition = std::max(last_partition, partition);
    keys.push_back(record.key);
    steps.push_back(record.step);
    counts.push_back(record.count);
    admitted.push_back(record.admitted ? 1 : 0);
    admitted_count += record.admitted ? 1 : 0;
    floats.insert(floats.end(), record.values.begin(), record.values.end());
  }
  void clear() {
    first_partition = kPartitions;
    last_partition = admitted_count = 0;
    keys.clear();
    steps.clear();
    counts.clear();
    admitted.clear();
    floats.clear();
  }
};

}  // namespace

struct RowsWriter::Impl {
  std::unique_ptr<WritableFile> file;
  manifest::File description;
  Cutting cutting;
  std::uint32_t values = 0;
  std::uint32_t blocks = 0;
  std::uint32_t crc = 0;
  std::vector<Open> open;  // by group
  std::vector<std::byte> raw, packed;

  Open& group_of(std::uint32_t partition) {
    const std::uint64_t span = cutting.last_partition - cutting.first_partition + 1;
    return open[std::uint64_t{partition - cutting.first_partition} * cutting.groups / span];
  }

  Status write(const void* bytes, std::size_t size) {
    crc = crc32c(bytes, size, crc);
    description.set_bytes(description.bytes() + size);
    return file->append(bytes, size);
  }

  Status write_block(Open& group) {
    if (group.keys.empty()) return {};
    raw.clear();
    append(raw, group.keys);
    append(raw, group.steps);
    append(raw, group.counts);
    append(raw, group.floats);
    append(raw, group.admitted);
    packed.resize(ZSTD_compressBound(raw.size()));
    const std::size_t size =
        ZSTD_compress(packed.data(), packed.size(), raw.data(), raw.size(), kZstdLevel);
    // Trained floats hardly shrink: below a tenth saved, reading fast is worth more.
    const bool compressed = !ZSTD_isError(size) && size <= raw.size() - raw.size() / 10;
    const std::vector<std::byte>& stored = compressed ? packed : raw;

    BlockHeader header;
    header.codec = compressed ? kZstd : kNone;
    header.records = static_cast<std::uint32_t>(group.keys.size());
    header.admitted = group.admitted_count;
    header.first_partition = group.first_partition;
    header.last_partition = group.last_partition;
    header.raw_bytes = static_cast<std::uint32_t>(raw.size());
    header.stored_bytes = static_cast<std::uint32_t>(compressed ? size : raw.size());
    header.payload_crc = crc32c(stored.data(), header.stored_bytes);
    seal(header);
    RETURN_IF_ERROR(write(&header, sizeof(header)));
    RETURN_IF_ERROR(write(stored.data(), header.stored_bytes));
    ++blocks;
    group.clear();
    return {};
  }
};

RowsWriter::RowsWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RowsWriter::~RowsWriter() = default;

Result<std::unique_ptr<RowsWriter>> RowsWriter::create(Storage& storage, const std::string& path,
                                                       std::uint32_t table, std::uint32_t values,
                                                       const Cutting& cutting) {
  CHECK_LE(values, kValuesMax);
  CHECK_GT(cutting.groups, 0u);
  auto impl = std::make_unique<Impl>();
  ASSIGN_OR_RETURN(impl->file, storage.create(path));
  impl->cutting = cutting;
  impl->values = values;
  impl->open.resize(cutting.groups);
  impl->description.set_name(path.substr(path.rfind('/') + 1));
  impl->description.set_table(table);
  FileHeader header;
  header.table = table;
  header.values = values;
  seal(header);
  RETURN_IF_ERROR(impl->write(&header, sizeof(header)));
  return std::unique_ptr<RowsWriter>(new RowsWriter(std::move(impl)));
}

Status RowsWriter::add(const Record& record) {
  Impl& w = *impl_;
  CHECK_EQ(record.values.size(), record.admitted ? w.values : 0u);
  const std::uint32_t partition = partition_of(record.key);
  CHECK(partition >= w.cutting.first_partition && partition <= w.cutting.last_partition);
  const bool is_first = w.description.rows() == 0;
  w.description.set_first_partition(
      is_first ? partition : std::min(w.description.first_partition(), partition));
  w.description.set_last_partition(std::max(w.description.last_partition(), partition));
  w.description.set_rows(w.description.rows() + 1);
  Open& group = w.group_of(partition);
  group.add(record, partition);
  const std::uint64_t size = raw_size(group.keys.size(), group.admitted_count, w.values);
  return size >= kBlockBytes ? w.write_block(group) : Status();
}

Result<manifest::File> RowsWriter::finish() {
  Impl& w = *impl_;
  for (Open& group : w.open) RETURN_IF_ERROR(w.write_block(group));
  FileEnd end;
  end.blocks = w.blocks;
  end.rows = w.description.rows();
  seal(end);
  RETURN_IF_ERROR(w.write(&end, sizeof(end)));
  RETURN_IF_ERROR(w.file->close());
  w.description.set_crc32c(w.crc);
  return w.description;
}

}  // namespace meander::checkpoint
