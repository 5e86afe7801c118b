// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/pieces.h"

#include <algorithm>
#include <cstring>

#include "checkpoint/block.h"

namespace meander::checkpoint {

Status Pieces::read(void* out, std::uint64_t size) {
  CHECK_LE(size, left());
  for (auto* to = static_cast<std::byte*>(out); size > 0;) {
    if (offset_ - begin_ >= piece_.size()) RETURN_IF_ERROR(load());
    const std::uint64_t at = offset_ - begin_;
    const std::uint64_t part = std::min<std::uint64_t>(size, piece_.size() - at);
    std::memcpy(to, piece_.data() + at, part);
    to += part;
    offset_ += part;
    size -= part;
  }
  return {};
}

void Pieces::skip(std::uint64_t size) {
  CHECK_LE(size, left());
  offset_ += size;
}

Result<Buffer> Pieces::read_range(std::uint64_t size) {
  if (!is_cold_) return storage_.read_range(path_, begin_, size);
  if (file_ == nullptr) {
    ASSIGN_OR_RETURN(file_, storage_.open_cold(path_));
  }
  return file_->read(begin_, size);
}

Status Pieces::load() {
  piece_ = {};
  begin_ = offset_;
  const std::uint64_t wanted = std::min<std::uint64_t>(kPieceBytes, left());
  // A byte beyond the end: there must be none.
  saw_end_ = wanted == left();
  ASSIGN_OR_RETURN(piece_, read_range(wanted + (saw_end_ ? 1 : 0)));
  if (piece_.size() < wanted) {
    return corrupt(path_ + ": torn: " + std::to_string(begin_ + piece_.size()) + " of " +
                   std::to_string(size_) + " bytes");
  }
  if (piece_.size() > wanted) {
    return corrupt(path_ + ": longer than the " + std::to_string(size_) +
                   " bytes that the manifest says");
  }
  return {};
}

Status Pieces::check_end() { return saw_end_ ? Status() : load(); }

}  // namespace meander::checkpoint
