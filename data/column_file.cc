// SPDX-License-Identifier: Apache-2.0
#include "data/column_file.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "common/crc32c.h"

namespace meander::data {
namespace {

constexpr std::size_t kAlign = 64;

std::uint64_t padded(std::uint64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

std::uint32_t crc_of(const ColumnTrailer& trailer) {
  return crc32c(&trailer, offsetof(ColumnTrailer, trailer_crc));
}

}  // namespace

Result<ColumnWriter> ColumnWriter::create(Storage& storage, const std::string& path,
                                          std::uint32_t width, std::size_t buffer_bytes,
                                          bool is_scratch) {
  ColumnWriter writer;
  ASSIGN_OR_RETURN(writer.file_, is_scratch ? storage.create_scratch(path) : storage.create(path));
  writer.trailer_.width = width;
  writer.pending_.resize(std::max<std::size_t>(buffer_bytes / width, 1) * width);
  return writer;
}

void ColumnWriter::append_bytes(const void* bytes, std::size_t width, std::size_t count) {
  CHECK_EQ(width, trailer_.width);
  trailer_.count += count;
  const auto* from = static_cast<const std::byte*>(bytes);
  for (std::size_t left = width * count; left > 0;) {
    if (used_ == pending_.size()) flush();
    const std::size_t size = std::min(left, pending_.size() - used_);
    std::memcpy(pending_.data() + used_, from, size);
    used_ += size;
    from += size;
    left -= size;
  }
}

void ColumnWriter::flush() {
  if (status_.ok()) {
    trailer_.payload_crc = crc32c(pending_.data(), used_, trailer_.payload_crc);
    status_ = file_->append(pending_.data(), used_);
  }
  used_ = 0;
}

Status ColumnWriter::finish() {
  flush();
  RETURN_IF_ERROR(status_);
  const std::uint64_t bytes = trailer_.count * trailer_.width;
  pending_.assign(padded(bytes) - bytes + sizeof(trailer_), std::byte{0});
  trailer_.trailer_crc = crc_of(trailer_);
  std::memcpy(pending_.data() + pending_.size() - sizeof(trailer_), &trailer_, sizeof(trailer_));
  RETURN_IF_ERROR(file_->append(pending_.data(), pending_.size()));
  pending_ = {};
  return file_->close();
}

Status ColumnFile::verify() const {
  if (crc32c(bytes.data(), trailer.count * trailer.width) == trailer.payload_crc) return {};
  return invalid(path + ": values do not match their checksum; prepare the log again");
}

ColumnTrailer trailer_of(const Buffer& bytes) {
  ColumnTrailer trailer;
  CHECK_GE(bytes.size(), sizeof(trailer));
  std::memcpy(&trailer, bytes.data() + bytes.size() - sizeof(trailer), sizeof(trailer));
  return trailer;
}

Result<ColumnFile> open_column(Storage& storage, const std::string& path, std::uint32_t width) {
  ASSIGN_OR_RETURN(Buffer bytes, storage.read(path));
  const ColumnTrailer expected;
  if (bytes.size() < sizeof(expected)) return invalid(path + ": truncated");
  const ColumnTrailer trailer = trailer_of(bytes);
  if (std::memcmp(trailer.magic, expected.magic, sizeof(trailer.magic)) != 0) {
    return invalid(path + ": truncated, or not a column file");
  }
  if (trailer.version != expected.version) {
    return invalid(path + ": column format " + std::to_string(trailer.version) + ", this program " +
                   "reads " + std::to_string(expected.version) + "; prepare the log again");
  }
  if (trailer.trailer_crc != crc_of(trailer)) return invalid(path + ": damaged trailer");
  if (trailer.width != width ||
      trailer.count > std::numeric_limits<std::uint64_t>::max() / 2 / width ||
      padded(trailer.count * width) + sizeof(trailer) != bytes.size()) {
    return invalid(path + ": length does not match its trailer");
  }
  return ColumnFile{path, std::move(bytes), trailer};
}

}  // namespace meander::data
