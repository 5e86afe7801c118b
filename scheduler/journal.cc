// SPDX-License-Identifier: Apache-2.0
#include "scheduler/journal.h"

#include <charconv>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include "common/crc32c.h"

namespace meander::scheduler {
namespace {

constexpr std::string_view kMagic = "meanderJ";
constexpr std::size_t kRecordHead = 12;  // length, crc of the length, crc of the payload
constexpr std::size_t kRecordMax = std::size_t{256} << 20;
constexpr int kClaimsMax = 16;

std::uint32_t read_u32(const char* at) {
  std::uint32_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

void add_u32(std::string& to, std::uint32_t value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void encode(const journal::Record& record, std::string& to) {
  const std::string payload = record.SerializeAsString();
  const auto length = static_cast<std::uint32_t>(payload.size());
  add_u32(to, length);
  add_u32(to, crc32c(&length, sizeof length));
  add_u32(to, crc32c(payload.data(), payload.size()));
  to += payload;
}

// The payload of the record at the start of `bytes`, if a whole one is there.
std::optional<std::string_view> payload_at(std::string_view bytes) {
  if (bytes.size() < kRecordHead) return std::nullopt;
  const std::uint32_t length = read_u32(bytes.data());
  if (read_u32(bytes.data() + 4) != crc32c(&length, sizeof length)) return std::nullopt;
  if (length > bytes.size() - kRecordHead) return std::nullopt;
  const std::string_view payload = bytes.substr(kRecordHead, length);
  if (read_u32(bytes.data() + 8) != crc32c(payload.data(), payload.size())) return std::nullopt;
  return payload;
}

bool holds_a_record(std::string_view bytes) {
  for (std::size_t at = 0; at + kRecordHead <= bytes.size(); ++at) {
    if (payload_at(bytes.substr(at))) return true;
  }
  return false;
}

Result<Accumulator> decode_sums(const std::string& bytes) {
  return Accumulator::decode(Buffer::copy_of(bytes.data(), bytes.size()));
}

void note_counted(const journal::Counted& counted, journal::State& state) {
  for (journal::Counted& known : *state.mutable_counted()) {
    if (known.worker() != counted.worker() || known.incarnation() != counted.incarnation()) {
      continue;
    }
    return known.set_number(std::max(known.number(), counted.number()));
  }
  *state.add_counted() = counted;
}

Status apply(std::string_view payload, JournalContents& contents) {
  journal::Record record;
  if (!record.ParseFromArray(payload.data(), static_cast<int>(payload.size()))) {
    return corrupt("a record is none of ours");
  }
  if (contents.is_empty && !record.has_state()) return corrupt("it begins in the middle");
  contents.is_empty = false;
  if (record.has_state()) contents.state = record.state();
  if (!record.training().empty()) {
    ASSIGN_OR_RETURN(contents.training, decode_sums(record.training()));
  }
  if (record.has_metrics()) {
    note_counted(record.metrics().counted(), contents.state);
    ASSIGN_OR_RETURN(const Accumulator sums, decode_sums(record.metrics().sums()));
    contents.training.merge(sums);
  }
  return {};
}

// "term-0000000003-part-..." -> 3; 0: none of ours.
std::uint64_t term_of(std::string_view name) {
  constexpr std::string_view kTerm = "term-";
  std::uint64_t term = 0;
  if (!name.starts_with(kTerm)) return 0;
  std::from_chars(name.data() + kTerm.size(), name.data() + name.size(), term);
  return term;
}

}  // namespace

Result<JournalContents> read_journal(const Buffer& bytes, const std::string& name) {
  const std::string_view all(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  JournalContents contents;
  std::size_t at = all.starts_with(kMagic) ? kMagic.size() : 0;
  const bool has_magic = at > 0;
  while (has_magic && at < all.size()) {
    const std::optional<std::string_view> payload = payload_at(all.substr(at));
    if (!payload) break;
    if (Status applied = apply(*payload, contents); !applied.ok()) {
      return std::move(applied).context(name);
    }
    at += kRecordHead + payload->size();
  }
  contents.torn = all.size() - at;
  // One byte further on, for that what is at `at` itself is damaged is known.
  if (contents.torn > 0 && holds_a_record(all.substr(has_magic ? at + 1 : at))) {
    return corrupt(name + " is damaged at byte " + std::to_string(at) +
                   ": remove its folder to go on from the newest checkpoint");
  }
  return contents;
}

bool Journal::exists(Storage& storage, const std::string& dir) {
  const Result<std::vector<std::string>> names = storage.list(dir);
  return names.ok() && !names.value().empty();
}

std::string Journal::part_name(std::uint64_t term, std::uint64_t part) const {
  char name[80];
  std::snprintf(name, sizeof name, "term-%010llu-part-%010llu-%016llx",
                static_cast<unsigned long long>(term), static_cast<unsigned long long>(part),
                static_cast<unsigned long long>(nonce_));
  return name;
}

Result<JournalContents> Journal::take_over() {
  RETURN_IF_ERROR(storage_.make_directories(dir_));
  RETURN_IF_ERROR(claim());
  return read_predecessor();
}

// Sorted; a folder that is not there (an object store has none) holds nothing.
Result<std::vector<std::string>> Journal::names() const {
  Result<std::vector<std::string>> names = storage_.list(dir_);
  if (!names.ok() && names.status().code() == Code::kNotFound) return std::vector<std::string>();
  return names;
}

// A term is had by whoever finds, once its file is there, no other of that term or above: of two
// that try for one, the later sees the earlier and tries for the next.
Status Journal::claim() {
  for (int i = 0; i < kClaimsMax; ++i) {
    ASSIGN_OR_RETURN(const std::vector<std::string> before, names());
    std::uint64_t newest = 0;
    for (const std::string& name : before) newest = std::max(newest, term_of(name));
    term_ = newest + 1;
    part_ = 1;
    name_ = part_name(term_, part_);
    ASSIGN_OR_RETURN(file_, storage_.create(join_path(dir_, name_)));
    RETURN_IF_ERROR(file_->sync());
    ASSIGN_OR_RETURN(const std::vector<std::string> after, names());
    std::size_t rivals = 0;
    for (const std::string& name : after) rivals += term_of(name) >= term_ && name != name_;
    if (rivals == 0) return {};
    RETURN_IF_ERROR(storage_.remove(join_path(dir_, name_)));
  }
  return unavailable("another scheduler starts on " + dir_ + " again and again");
}

// The newest file with a whole record: later ones were begun, and nothing was promised from them.
Result<JournalContents> Journal::read_predecessor() {
  ASSIGN_OR_RETURN(const std::vector<std::string> all, names());
  for (auto name = all.rbegin(); name != all.rend(); ++name) {
    if (term_of(*name) == 0 || *name == name_) continue;
    const std::string path = join_path(dir_, *name);
    ASSIGN_OR_RETURN(const Buffer bytes, storage_.read(path));
    ASSIGN_OR_RETURN(JournalContents contents, read_journal(bytes, path));
    LOG_IF(WARNING, contents.torn > 0)
        << path << ": " << contents.torn << " bytes at its end are no whole record: dropped";
    if (!contents.is_empty) return contents;
  }
  return JournalContents();
}

Status Journal::rewrite(const journal::Record& all) {
  if (bytes_ > 0) {
    RETURN_IF_ERROR(check_still_mine());
    const std::string name = part_name(term_, ++part_);
    ASSIGN_OR_RETURN(file_, storage_.create(join_path(dir_, name)));
    name_ = name;
  }
  pending_ = kMagic;
  bytes_ = 0;
  append(all);
  RETURN_IF_ERROR(sync());
  first_bytes_ = bytes_;
  ASSIGN_OR_RETURN(const std::vector<std::string> files, names());
  for (const std::string& name : files) {
    if (name < name_) RETURN_IF_ERROR(storage_.remove(join_path(dir_, name)));
  }
  return {};
}

void Journal::append(const journal::Record& record) {
  CHECK_LT(record.ByteSizeLong(), kRecordMax);
  encode(record, pending_);
}

Status Journal::sync() {
  if (pending_.empty()) return {};
  RETURN_IF_ERROR(file_->append(pending_.data(), pending_.size()));
  RETURN_IF_ERROR(file_->sync());
  bytes_ += pending_.size();
  pending_.clear();
  return check_still_mine();
}

// A successor makes its file before it reads ours: if there is none, it will read all that is
// durable by now.
Status Journal::check_still_mine() {
  ASSIGN_OR_RETURN(const std::vector<std::string> all, names());
  if (!all.empty() && all.back() == name_) return {};
  return unavailable("another scheduler has taken this run over");
}

Status Journal::remove() {
  file_.reset();
  return storage_.remove(dir_);
}

}  // namespace meander::scheduler
