// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/buffer.h"
#include "common/status.h"
#include "common/storage.h"

namespace meander::data {

// A longer line is an error: it bounds what a reader holds.
constexpr std::size_t kLineBytesMax = std::size_t{16} << 20;
// So many bytes before and after a line may be read, whatever they are.
constexpr std::size_t kLinePadding = 64;

// The lines of a text file, plain or (by its name) *.zst, read in pieces: memory is some MiB
// whatever the length of the file.
class LineReader {
 public:
  static Result<LineReader> open(Storage& storage, const std::string& path);
  LineReader(LineReader&&) noexcept;
  ~LineReader();

  // The next line without its end (\n or \r\n), valid until the next call; false at the end, or
  // when status() is an error: kInvalid (a line over kLineBytesMax, a damaged or
  // truncated .zst), or the storage's.
  bool next(std::string_view& line);
  // The lines that are at hand, one at least, each with its end (the last of a file is given one).
  // Otherwise as next(); but the caller counts: count_line() at each line, for place().
  bool next_lines(std::string_view& lines);
  void count_line() { ++line_number_; }
  const Status& status() const { return status_; }

  const std::string& path() const { return path_; }
  std::uint64_t line_number() const { return line_number_; }  // of the last line, from 1
  std::uint64_t bytes() const { return bytes_; }              // of text read so far
  // "clicks.csv:17", for messages.
  std::string place() const;

 private:
  struct Zstd;
  LineReader(Storage& storage, const std::string& path);
  Status refill();
  Status refill_plain();
  Status refill_zstd();
  Status next_piece();

  Storage* storage_;
  std::string path_;
  std::uint64_t offset_ = 0;  // of the piece after this one
  Buffer piece_;
  std::size_t piece_used_ = 0;
  bool pieces_done_ = false, done_ = false;
  std::unique_ptr<Zstd> zstd_;

  std::vector<char> text_;                                 // kLinePadding, text, kLinePadding
  std::size_t begin_ = kLinePadding, end_ = kLinePadding;  // of the text not yet handed out
  std::uint64_t line_number_ = 0, bytes_ = 0;
  Status status_;
};

}  // namespace meander::data
