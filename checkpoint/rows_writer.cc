// SPDX-License-Identifier: Apache-2.0
#include <zstd.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "checkpoint/block.h"
#include "common/buffer.h"
#include "common/crc32c.h"
#include "common/partition.h"
#include "common/planted_bug.h"

namespace meander::checkpoint {
namespace {

constexpr int kZstdLevel = 1;
// What a block's compression is judged by: so many slices of so many bytes, evenly spread.
constexpr std::size_t kSlices = 32, kSliceBytes = 1024;

// Fills in the last field.
template <class T>
void seal(T& structure) {
  structure.crc = crc32c(&structure, sizeof(T) - sizeof(structure.crc));
}

// Trained floats hardly shrink, and the processor is scarcer than the disk: below half saved, time
// is worth more.
bool is_worth_it(std::size_t packed, std::size_t raw) {
  return !ZSTD_isError(packed) && packed <= raw / 2;
}

// Records of one group of partitions until they are a block: a header, then columns with room for
// `capacity` records. All but the last column lie as they do in the file once it is full.
class Open {
 public:
  Open(std::size_t capacity, std::uint32_t values)
      : capacity_(capacity),
        values_(values),
        bytes_(Buffer::allocate(sizeof(BlockHeader) + raw_size(capacity, capacity, values))) {}

  std::uint32_t records() const { return records_; }
  bool is_full() const { return records_ == capacity_; }

  void add(const Record& record, std::uint32_t partition) {
    first_partition_ = std::min(first_partition_, partition);
    last_partition_ = std::max(last_partition_, partition);
    keys()[records_] = record.key;
    steps()[records_] = record.step;
    counts()[records_] = record.count;
    admitted()[records_] = record.admitted ? 1 : 0;
    if (record.admitted) {
      std::ranges::copy(record.values, floats() + std::size_t{admitted_} * values_);
      ++admitted_;
    }
    ++records_;
    // The next record of this group comes after one of most others: fetch the lines it will fill.
    __builtin_prefetch(keys() + records_ + 8, 1);
    __builtin_prefetch(steps() + records_ + 8, 1);
    __builtin_prefetch(counts() + records_ + 16, 1);
    const auto* next = reinterpret_cast<const char*>(floats() + std::size_t{admitted_} * values_);
    for (std::size_t i = 0; i < std::min<std::size_t>(values_, 64); i += 16) {
      __builtin_prefetch(next + 64 + i * sizeof(float), 1);
    }
  }

  // Closes the gaps between the columns; all but codec, stored_bytes and crcs of the header.
  BlockHeader join() {
    const std::byte* const columns[] = {
        reinterpret_cast<std::byte*>(keys()), reinterpret_cast<std::byte*>(steps()),
        reinterpret_cast<std::byte*>(counts()), reinterpret_cast<std::byte*>(floats()),
        reinterpret_cast<std::byte*>(admitted())};
    const std::size_t sizes[] = {records_ * sizeof(std::uint64_t), records_ * sizeof(std::uint64_t),
                                 records_ * sizeof(std::uint32_t),
                                 std::size_t{admitted_} * values_ * sizeof(float), records_};
    std::byte* to = payload();
    for (std::size_t i = 0; i < std::size(columns); to += sizes[i++]) {
      if (to != columns[i]) std::memmove(to, columns[i], sizes[i]);
    }
    BlockHeader header;
    header.records = records_;
    header.admitted = admitted_;
    header.first_partition = first_partition_;
    header.last_partition = last_partition_;
    header.raw_bytes = static_cast<std::uint32_t>(to - payload());
    return header;
  }
  void clear() {
    first_partition_ = kPartitions;
    last_partition_ = records_ = admitted_ = 0;
  }

  std::byte* header() { return bytes_.data(); }  // room for one, with the payload behind it
  std::byte* payload() { return bytes_.data() + sizeof(BlockHeader); }

 private:
  std::uint64_t* keys() { return reinterpret_cast<std::uint64_t*>(payload()); }
  std::uint64_t* steps() { return keys() + capacity_; }
  std::uint32_t* counts() { return reinterpret_cast<std::uint32_t*>(steps() + capacity_); }
  float* floats() { return reinterpret_cast<float*>(counts() + capacity_); }
  std::uint8_t* admitted() {
    return reinterpret_cast<std::uint8_t*>(floats() + capacity_ * values_);
  }

  std::size_t capacity_;
  std::uint32_t values_;
  std::uint32_t first_partition_ = kPartitions, last_partition_ = 0;
  std::uint32_t records_ = 0, admitted_ = 0;
  Buffer bytes_;
};
static_assert(sizeof(BlockHeader) % alignof(std::uint64_t) == 0);

struct FreeContext {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
};

}  // namespace

struct RowsWriter::Impl {
  std::unique_ptr<WritableFile> file;
  manifest::File description;
  Cutting cutting;
  std::uint32_t values = 0;
  std::size_t capacity = 0;  // records of a block
  std::uint32_t blocks = 0;
  std::uint32_t crc = 0;
  std::uint64_t rows = 0;  // of the blocks written
  std::uint32_t first_partition = kPartitions, last_partition = 0;
  std::vector<std::uint16_t> group_of;      // by partition, from the first on
  std::vector<std::unique_ptr<Open>> open;  // by group, once it has a record
  std::vector<std::byte> packed, sample;
  std::unique_ptr<ZSTD_CCtx, FreeContext> zstd{ZSTD_createCCtx()};

  Open& group(std::uint32_t partition) {
    std::unique_ptr<Open>& found = open[group_of[partition - cutting.first_partition]];
    if (found == nullptr) found = std::make_unique<Open>(capacity, values);
    return *found;
  }

  // Small structures; a block brings its crc with it.
  template <class T>
  Status write(const T& structure) {
    crc = crc32c(&structure, sizeof(T), crc);
    description.set_bytes(description.bytes() + sizeof(T));
    return file->append(&structure, sizeof(T));
  }

  std::size_t compress(std::byte* out, std::size_t room, const std::byte* bytes, std::size_t size) {
    return ZSTD_compressCCtx(zstd.get(), out, room, bytes, size, kZstdLevel);
  }

  // Whether slices of the payload shrink as it should: most blocks are not worth a try, which takes
  // as long as all the rest.
  bool may_shrink(const std::byte* payload, std::size_t size) {
    if (size <= 2 * kSlices * kSliceBytes) return true;
    sample.resize(kSlices * kSliceBytes);
    for (std::size_t i = 0; i < kSlices; ++i) {
      const std::size_t at = (size - kSliceBytes) * (2 * i + 1) / (2 * kSlices);
      std::memcpy(sample.data() + i * kSliceBytes, payload + at, kSliceBytes);
    }
    packed.resize(std::max(packed.size(), ZSTD_compressBound(sample.size())));
    return is_worth_it(compress(packed.data(), packed.size(), sample.data(), sample.size()),
                       sample.size());
  }

  Status write_block(Open& block) {
    BlockHeader header = block.join();
    std::byte* out = block.header();
    header.stored_bytes = header.raw_bytes;
    if (may_shrink(block.payload(), header.raw_bytes)) {
      packed.resize(sizeof(header) + ZSTD_compressBound(header.raw_bytes));
      const std::size_t size =
          compress(packed.data() + sizeof(header), packed.size() - sizeof(header), block.payload(),
                   header.raw_bytes);
      if (is_worth_it(size, header.raw_bytes)) {
        header.codec = kZstd;
        header.stored_bytes = static_cast<std::uint32_t>(size);
        out = packed.data();
      }
    }
    header.payload_crc = crc32c(out + sizeof(header), header.stored_bytes);
    seal(header);
    std::memcpy(out, &header, sizeof(header));
    crc = crc32c_joined(crc32c(&header, sizeof(header), crc), header.payload_crc,
                        header.stored_bytes);
    const std::size_t size = sizeof(header) + header.stored_bytes;
    description.set_bytes(description.bytes() + size);
    ++blocks;
    rows += header.records;
    first_partition = std::min(first_partition, header.first_partition);
    last_partition = std::max(last_partition, header.last_partition);
    block.clear();
    return file->append(out, size);
  }
};

RowsWriter::RowsWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
RowsWriter::~RowsWriter() = default;

Result<std::unique_ptr<RowsWriter>> RowsWriter::create(Storage& storage, const std::string& path,
                                                       std::uint32_t table, std::uint32_t values,
                                                       const Cutting& cutting) {
  CHECK_LE(values, kValuesMax);
  CHECK_GT(cutting.groups, 0u);
  CHECK_LE(cutting.first_partition, cutting.last_partition);
  CHECK_LT(cutting.last_partition, kPartitions);
  auto impl = std::make_unique<Impl>();
  ASSIGN_OR_RETURN(impl->file, storage.create_cold(path));
  impl->cutting = cutting;
  impl->values = values;
  const std::size_t record = raw_size(1, 1, values);
  impl->capacity = (kBlockBytes + record - 1) / record;
  impl->open.resize(cutting.groups);
  const std::uint32_t span = cutting.last_partition - cutting.first_partition + 1;
  for (std::uint32_t p = 0; p < span; ++p) {
    impl->group_of.push_back(static_cast<std::uint16_t>(std::uint64_t{p} * cutting.groups / span));
  }
  impl->description.set_name(path.substr(path.rfind('/') + 1));
  impl->description.set_table(table);
  FileHeader header;
  header.table = table;
  header.values = values;
  seal(header);
  RETURN_IF_ERROR(impl->write(header));
  return std::unique_ptr<RowsWriter>(new RowsWriter(std::move(impl)));
}

Status RowsWriter::add(const Record& record) {
  Impl& w = *impl_;
  CHECK_EQ(record.values.size(), record.admitted ? w.values : 0u);
  const std::uint32_t partition = partition_of(record.key);
  CHECK(partition >= w.cutting.first_partition && partition <= w.cutting.last_partition);
  Open& block = w.group(partition);
  block.add(record, partition);
  return block.is_full() ? w.write_block(block) : Status();
}

Result<manifest::File> RowsWriter::finish() {
  Impl& w = *impl_;
  for (const auto& block : w.open) {
    if (block != nullptr && block->records() > 0) RETURN_IF_ERROR(w.write_block(*block));
  }
  FileEnd end;
  end.blocks = w.blocks;
  end.rows = w.rows;
  seal(end);
  RETURN_IF_ERROR(w.write(end));
  if (!is_planted(PlantedBug::kRowsNotSynced)) RETURN_IF_ERROR(w.file->close());
  w.description.set_rows(w.rows);
  if (w.rows > 0) w.description.set_first_partition(w.first_partition);
  w.description.set_last_partition(w.last_partition);
  w.description.set_crc32c(w.crc);
  return w.description;
}

}  // namespace meander::checkpoint
