// SPDX-License-Identifier: Apache-2.0
#include "data/spill.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/rng.h"

namespace meander::data {
namespace {

constexpr std::uint64_t kUserSalt = 0x5b1ce5eed0a71a5eull;
constexpr std::size_t kBuffersBytes = std::size_t{8} << 20;  // of all files of a spill
constexpr std::size_t kBufferBytesMax = std::size_t{256} << 10;
constexpr std::size_t kChunkBytes = std::size_t{4} << 20;
constexpr std::uint32_t kDepthMax = 4;    // after so many deals a file is one user's
constexpr std::uint64_t kFilesMax = 256;  // of one deal

}  // namespace

Result<Spill> Spill::create(Storage& storage, const std::string& path_prefix,
                            const SpillLayout& layout, std::uint32_t files, std::uint32_t depth) {
  Spill spill;
  spill.layout_ = layout;
  spill.depth_ = depth;
  const std::size_t buffer = std::min(kBufferBytesMax, kBuffersBytes / files);
  for (std::uint32_t i = 0; i < files; ++i) {
    spill.paths_.push_back(path_prefix + "-" + std::to_string(i));
    ASSIGN_OR_RETURN(
        ColumnWriter writer,
        ColumnWriter::create(storage, spill.paths_.back(),
                             static_cast<std::uint32_t>(layout.bytes()), buffer, true));
    spill.writers_.push_back(std::move(writer));
  }
  return spill;
}

std::size_t Spill::file_of(std::uint64_t user) const {
  return bounded(hash64(kUserSalt + depth_, user), writers_.size());
}

void Spill::add(const Record& record, std::uint64_t row) {
  CHECK_EQ(record.numeric.size(), layout_.numerics);
  CHECK_EQ(record.context.size(), layout_.contexts);
  const SpillHead head{record.user, record.item, record.category, record.time_ms,
                       row * 4 + static_cast<std::uint64_t>(record.kind)};
  std::byte* to = writers_[file_of(record.user)].room(layout_.bytes());
  std::memcpy(to, &head, sizeof(head));
  to += sizeof(head);
  const auto append = [&to](const void* from, std::size_t bytes) {
    if (bytes != 0) std::memcpy(to, from, bytes);
    to += bytes;
  };
  append(record.context.data(), record.context.size_bytes());
  if (layout_.has_session) append(&record.session, sizeof record.session);
  append(record.numeric.data(), record.numeric.size_bytes());
  if (layout_.has_label) append(&record.label, sizeof record.label);
  if ((layout_.numerics + layout_.has_label) % 2 != 0) std::memset(to, 0, 4);
}

void Spill::add(SpillRecord record) {
  writers_[file_of(record.head().user)].append_bytes(record.bytes, layout_.bytes(), 1);
}

Status Spill::status() const {
  for (const ColumnWriter& writer : writers_) RETURN_IF_ERROR(writer.status());
  return {};
}

Result<std::vector<SpillFile>> Spill::finish() {
  std::vector<SpillFile> files;
  for (std::size_t i = 0; i < writers_.size(); ++i) {
    RETURN_IF_ERROR(writers_[i].finish());
    files.push_back({paths_[i], writers_[i].count()});
  }
  return files;
}

namespace {

Result<std::vector<SpillFile>> deal_again(Storage& storage, const SpillFile& file,
                                          const SpillLayout& layout, std::uint64_t bytes_max,
                                          std::uint32_t depth) {
  const std::uint64_t bytes = file.records * layout.bytes();
  // Half as many records again as would just fit: hashing does not deal evenly.
  const std::uint64_t parts =
      std::clamp<std::uint64_t>(bytes * 3 / 2 / bytes_max + 1, 2, kFilesMax);
  ASSIGN_OR_RETURN(Spill spill, Spill::create(storage, file.path, layout,
                                              static_cast<std::uint32_t>(parts), depth));
  const std::uint64_t chunk = std::max<std::uint64_t>(1, kChunkBytes / layout.bytes());
  for (std::uint64_t at = 0; at < file.records; at += chunk) {
    const std::uint64_t count = std::min(chunk, file.records - at);
    ASSIGN_OR_RETURN(const Buffer piece,
                     storage.read_range(file.path, at * layout.bytes(), count * layout.bytes()));
    if (piece.size() != count * layout.bytes()) return corrupt(file.path + ": truncated");
    for (std::uint64_t i = 0; i < count; ++i) spill.add({piece.data() + i * layout.bytes()});
    RETURN_IF_ERROR(spill.status());
  }
  RETURN_IF_ERROR(storage.remove(file.path));
  return spill.finish();
}

}  // namespace

Result<std::vector<SpillFile>> split_large(Storage& storage, std::vector<SpillFile> files,
                                           const SpillLayout& layout, std::uint64_t bytes_max) {
  for (std::uint32_t depth = 1; depth <= kDepthMax; ++depth) {
    std::vector<SpillFile> smaller;
    for (SpillFile& file : files) {
      if (file.records * layout.bytes() <= bytes_max) {
        smaller.push_back(std::move(file));
        continue;
      }
      ASSIGN_OR_RETURN(auto parts, deal_again(storage, file, layout, bytes_max, depth));
      smaller.insert(smaller.end(), parts.begin(), parts.end());
    }
    files = std::move(smaller);
  }
  return files;
}

}  // namespace meander::data
