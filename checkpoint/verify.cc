// SPDX-License-Identifier: Apache-2.0
#include <set>

#include "checkpoint/block.h"
#include "checkpoint/chain.h"
#include "common/crc32c.h"
#include "common/partition.h"

namespace meander::checkpoint {
namespace {

// What a generation's files add up to.
struct Sums {
  std::uint64_t digest = 0;
  std::vector<std::uint64_t> rows;  // by table
};

Status verify_file(Storage& storage, const std::string& path, const manifest::Manifest& manifest,
                   const manifest::File& file, Sums& sums) {
  if (file.table() >= static_cast<std::uint32_t>(manifest.tables_size())) {
    return corrupt(path + ": of a table that the manifest does not have");
  }
  const manifest::Table& table = manifest.tables(static_cast<int>(file.table()));
  std::uint32_t first = kPartitions, last = 0;
  const auto visit = [&](const Records& records) {
    sums.digest += records_digest(file.table(), records);
    for (const std::uint64_t key : records.keys) {
      first = std::min(first, partition_of(key));
      last = std::max(last, partition_of(key));
    }
    return Status();
  };
  ASSIGN_OR_RETURN(const RowsFile rows,
                   scan_rows(storage, path, file.bytes(), 0, kPartitions - 1, true, visit));
  sums.rows[file.table()] += rows.rows;
  if (rows.crc != file.crc32c()) {
    return corrupt(path + ": its checksum is not the manifest's");
  }
  if (rows.table != file.table() || rows.values != table.width() + table.state_width() ||
      rows.rows != file.rows()) {
    return corrupt(path + ": holds other rows than the manifest says");
  }
  if (rows.rows != 0 && (first != file.first_partition() || last != file.last_partition())) {
    return corrupt(path + ": holds other partitions than the manifest says");
  }
  return {};
}

Status verify_extra(Storage& storage, const std::string& path, const manifest::Extra& extra) {
  ASSIGN_OR_RETURN(const Buffer bytes, storage.read(path));
  if (bytes.size() != extra.bytes()) {
    return corrupt(path + ": torn: " + std::to_string(bytes.size()) + " of " +
                   std::to_string(extra.bytes()) + " bytes");
  }
  if (crc32c(bytes.data(), bytes.size()) != extra.crc32c()) {
    return corrupt(path + ": its checksum is not the manifest's");
  }
  return {};
}

void verify_link(Storage& storage, const Link& link, Verification& result) {
  std::vector<std::string> errors;
  Sums sums;
  sums.rows.resize(link.manifest.tables_size());
  std::set<std::string> names;
  for (const manifest::File& file : link.manifest.files()) {
    const std::string path = join_path(link.dir, file.name());
    if (!names.insert(file.name()).second) errors.push_back(path + ": listed twice");
    const Status status = verify_file(storage, path, link.manifest, file, sums);
    if (!status.ok()) errors.push_back(status.message());
    ++result.files;
  }
  for (const manifest::Extra& extra : link.manifest.extras()) {
    const Status status = verify_extra(storage, join_path(link.dir, extra.name()), extra);
    if (!status.ok()) errors.push_back(status.message());
    ++result.files;
  }
  for (int t = 0; t < link.manifest.tables_size(); ++t) {
    const manifest::Table& table = link.manifest.tables(t);
    result.rows += sums.rows[t];
    if (errors.empty() && sums.rows[t] != table.rows()) {
      errors.push_back(link.dir + ": table " + table.name() + " has " +
                       std::to_string(sums.rows[t]) + " rows, not " + std::to_string(table.rows()));
    }
  }
  const bool is_full = link.manifest.base() == 0;
  if (is_full && errors.empty() &&
      final_digest(sums.digest, link.manifest) != link.manifest.digest()) {
    errors.push_back(link.dir + ": its rows do not add up to the manifest's digest");
  }
  ++result.generations;
  result.errors.insert(result.errors.end(), errors.begin(), errors.end());
}

}  // namespace

Result<Verification> verify(Storage& storage, const std::string& generation_dir) {
  Verification result;
  Chain chain;
  const Status links = follow_links(storage, generation_dir, chain);
  if (chain.empty() && links.code() != Code::kCorrupt) return links;
  for (const Link& link : chain) verify_link(storage, link, result);
  if (!links.ok()) result.errors.push_back(links.message());
  return result;
}

}  // namespace meander::checkpoint
