// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/metrics.h"
#include "common/storage.h"
#include "proto/journal.pb.h"

namespace meander::scheduler {

// What a journal says: its records one after the other.
struct JournalContents {
  journal::State state;
  Accumulator training;
  bool is_empty = true;  // no whole record
  std::size_t torn = 0;  // bytes at the end that are no whole record: never promised to anyone
};
// kCorrupt: something is damaged that whole records follow. `name` is for messages.
Result<JournalContents> read_journal(const Buffer& bytes, const std::string& name);

// Records for the scheduler's successor, on storage in a directory of its own (docs/journal.md).
// Whoever opens it takes it over from whoever had it, under a term higher than all before.
class Journal {
 public:
  static bool exists(Storage& storage, const std::string& dir);

  // `nonce`: another for every process.
  Journal(Storage& storage, std::string dir, std::uint64_t nonce)
      : storage_(storage), dir_(std::move(dir)), nonce_(nonce) {}

  // Claims the next term, then reads what its predecessor had made durable. kCorrupt; kInvalid:
  // nothing can be made durable here piece by piece; what storage says.
  Result<JournalContents> take_over();
  std::uint64_t term() const { return term_; }

  // Starts a new file with this one record, which says everything, and removes the others.
  Status rewrite(const journal::Record& all);
  void append(const journal::Record& record);
  // Makes durable what was appended. kUnavailable: another process has taken over, and nothing of
  // this counts any more.
  Status sync();
  bool is_durable() const { return pending_.empty(); }
  // kUnavailable: as sync().
  Status check_still_mine();
  // Has grown so much since it was rewritten that it should be again.
  bool is_long() const { return bytes_ > kLongAt && bytes_ > kGrowth * first_bytes_; }
  Status remove();

 private:
  static constexpr std::size_t kLongAt = std::size_t{1} << 20;
  static constexpr std::size_t kGrowth = 8;

  std::string part_name(std::uint64_t term, std::uint64_t part) const;
  Result<std::vector<std::string>> names() const;
  Status claim();
  Result<JournalContents> read_predecessor();

  Storage& storage_;
  const std::string dir_;
  const std::uint64_t nonce_;
  std::uint64_t term_ = 0, part_ = 0;
  std::string name_;  // of the file that is written
  std::unique_ptr<WritableFile> file_;
  std::string pending_;
  std::size_t bytes_ = 0, first_bytes_ = 0;
};

}  // namespace meander::scheduler
