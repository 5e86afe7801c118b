// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cstdio>
#include <cstring>

#include "checkpoint/generation.h"
#include "common/rng.h"

namespace meander::checkpoint {
namespace {

// Takes in a word. For a fixed state it is a bijection of the word, so a record that differs in one
// word has another digest for certain.
std::uint64_t absorb(std::uint64_t state, std::uint64_t word) {
  return std::rotl((state ^ word) * 0x9fb21c651e98df25ull, 29);
}

}  // namespace

std::uint64_t record_digest(std::uint32_t table, const Record& record) {
  std::uint64_t h = mix64(table + 1);
  h = absorb(h, record.key);
  h = absorb(h, record.step);
  h = absorb(h, std::uint64_t{record.count} << 1 | (record.admitted ? 1 : 0));
  std::size_t i = 0;
  for (; i + 2 <= record.values.size(); i += 2) {
    std::uint64_t pair;
    std::memcpy(&pair, record.values.data() + i, sizeof(pair));
    h = absorb(h, pair);
  }
  if (i < record.values.size()) h = absorb(h, std::bit_cast<std::uint32_t>(record.values[i]));
  return mix64(h);
}

std::uint64_t records_digest(std::uint32_t table, const Records& records) {
  std::uint64_t sum = 0;
  const Status status = visit_each(records, [&](const Record& record) {
    sum += record_digest(table, record);
    return Status();
  });
  CHECK(status.ok());
  return sum;
}

std::string final_digest(std::uint64_t record_sum, const manifest::Manifest& manifest) {
  std::uint64_t h = absorb(mix64(manifest.tables_size()), record_sum);
  for (const auto& table : manifest.tables()) {
    h = absorb(h, table.step());
    h = absorb(h, table.rows());
  }
  for (const auto& stream : manifest.streams()) {
    h = absorb(h, stream.stream());
    h = absorb(h, stream.next() << 1 | (stream.ended() ? 1 : 0));
  }
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(mix64(h)));
  return text;
}

}  // namespace meander::checkpoint
