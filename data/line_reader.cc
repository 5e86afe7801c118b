// SPDX-License-Identifier: Apache-2.0
#include "data/line_reader.h"

#include <zstd.h>

#include <algorithm>
#include <cstring>

namespace meander::data {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{256} << 10;  // fits a second-level cache

}  // namespace

struct LineReader::Zstd {
  ZSTD_DStream* stream = ZSTD_createDStream();
  bool frame_open = false;  // bytes of a frame were read, and its end was not
  ~Zstd() { ZSTD_freeDStream(stream); }
};

LineReader::LineReader(Storage& storage, const std::string& path)
    : storage_(&storage), path_(path) {
  if (path.ends_with(".zst")) zstd_ = std::make_unique<Zstd>();
}
LineReader::LineReader(LineReader&&) noexcept = default;
LineReader::~LineReader() = default;

Result<LineReader> LineReader::open(Storage& storage, const std::string& path) {
  LineReader reader(storage, path);
  RETURN_IF_ERROR(reader.next_piece());
  return reader;
}

std::string LineReader::place() const { return path_ + ":" + std::to_string(line_number_); }

Status LineReader::next_piece() {
  ASSIGN_OR_RETURN(piece_, storage_->read_range(path_, offset_, kPieceBytes));
  offset_ += piece_.size();
  piece_used_ = 0;
  pieces_done_ = piece_.empty();
  return {};
}

Status LineReader::refill() {
  if (piece_used_ == piece_.size() && !pieces_done_) RETURN_IF_ERROR(next_piece());
  if (begin_ > kLinePadding) {  // the unfinished line moves to the front
    std::memmove(text_.data() + kLinePadding, text_.data() + begin_, end_ - begin_);
    end_ -= begin_ - kLinePadding;
    begin_ = kLinePadding;
  }
  if (end_ - begin_ > kLineBytesMax) {
    return invalid(path_ + ":" + std::to_string(line_number_ + 1) + ": a line of more than " +
                   std::to_string(kLineBytesMax >> 20) + " MiB; not a text log?");
  }
  text_.resize(std::max(text_.size(), end_ + kPieceBytes + kLinePadding));
  return zstd_ ? refill_zstd() : refill_plain();
}

Status LineReader::refill_plain() {
  const std::size_t size = piece_.size() - piece_used_;
  if (size != 0) std::memcpy(text_.data() + end_, piece_.data() + piece_used_, size);
  piece_used_ += size;
  end_ += size;
  done_ = size == 0;
  return {};
}

Status LineReader::refill_zstd() {
  ZSTD_inBuffer in{piece_.data(), piece_.size(), piece_used_};
  ZSTD_outBuffer out{text_.data(), text_.size() - kLinePadding, end_};
  const std::size_t left = ZSTD_decompressStream(zstd_->stream, &out, &in);
  if (ZSTD_isError(left)) {
    return invalid(path_ + ": damaged zstd data: " + ZSTD_getErrorName(left));
  }
  const bool moved = out.pos != end_ || in.pos != piece_used_;
  if (moved) zstd_->frame_open = left != 0;
  piece_used_ = in.pos;
  end_ = out.pos;
  if (!moved && pieces_done_) {
    done_ = true;
    if (zstd_->frame_open) return invalid(path_ + ": truncated zstd data");
  }
  return {};
}

bool LineReader::next(std::string_view& line) {
  std::size_t searched = 0;
  for (;;) {
    const char* from = text_.data() + begin_;
    const std::size_t size = end_ - begin_;
    const void* found =
        size > searched ? std::memchr(from + searched, '\n', size - searched) : nullptr;
    if (found == nullptr && !done_) {
      searched = size;
      status_ = refill();
      if (!status_.ok()) return false;
      continue;
    }
    if (found == nullptr && size == 0) return false;
    const std::size_t length = found ? static_cast<const char*>(found) - from : size;
    const std::size_t used = length + (found != nullptr);
    line = {from, length};
    if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
    begin_ += used;
    bytes_ += used;
    ++line_number_;
    return true;
  }
}

bool LineReader::next_lines(std::string_view& lines) {
  for (;;) {
    const char* from = text_.data() + begin_;
    const std::size_t size = end_ - begin_;
    const void* last = size > 0 ? memrchr(from, '\n', size) : nullptr;
    if (last == nullptr && !done_) {
      status_ = refill();
      if (!status_.ok()) return false;
      continue;
    }
    if (size == 0) return false;
    if (last == nullptr) text_[end_] = '\n';
    const std::size_t used = last ? static_cast<const char*>(last) - from + 1 : size;
    lines = {from, used + (last == nullptr)};
    begin_ += used;
    bytes_ += used;
    return true;
  }
}

}  // namespace meander::data
