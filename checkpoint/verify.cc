// SPDX-License-Identifier: Apache-2.0
#include <set>

#include "checkpoint/block.h"
#include "common/crc32c.h"
#include "common/partition.h"

namespace meander::checkpoint {
namespace {

// What the files add up to.
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
  ASSIGN_OR_RETURN(const Buffer bytes, storage.read(path));
  if (bytes.size() != file.bytes()) {
    return corrupt(path + ": torn: " + std::to_string(bytes.size()) + " of " +
                   std::to_string(file.bytes()) + " bytes");
  }
  std::uint32_t first = kPartitions, last = 0;
  const auto visit = [&](const Record& record) {
    sums.digest += record_digest(file.table(), record);
    first = std::min(first, partition_of(record.key));
    last = std::max(last, partition_of(record.key));
    return Status();
  };
  ASSIGN_OR_RETURN(const RowsFile rows,
                   scan_rows(path, {bytes.data(), bytes.size()}, 0, kPartitions - 1, visit));
  sums.rows[file.table()] += rows.rows;
  if (crc32c(bytes.data(), bytes.size()) != file.crc32c()) {
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

}  // namespace

Result<Verification> verify(Storage& storage, const std::string& generation_dir) {
  Verification result;
  auto manifest = read_manifest(storage, generation_dir);
  if (!manifest.ok()) {
    if (manifest.status().code() != Code::kCorrupt) return std::move(manifest).status();
    result.errors.push_back(manifest.status().message());
    return result;
  }
  Sums sums;
  sums.rows.resize(manifest->tables_size());
  std::set<std::string> names;
  for (const manifest::File& file : manifest->files()) {
    const std::string path = join_path(generation_dir, file.name());
    if (!names.insert(file.name()).second) result.errors.push_back(path + ": listed twice");
    const Status status = verify_file(storage, path, manifest.value(), file, sums);
    if (!status.ok()) result.errors.push_back(status.message());
    ++result.files;
  }
  for (const manifest::Extra& extra : manifest->extras()) {
    const Status status = verify_extra(storage, join_path(generation_dir, extra.name()), extra);
    if (!status.ok()) result.errors.push_back(status.message());
    ++result.files;
  }
  for (int t = 0; t < manifest->tables_size(); ++t) {
    result.rows += sums.rows[t];
    if (result.errors.empty() && sums.rows[t] != manifest->tables(t).rows()) {
      result.errors.push_back(generation_dir + ": table " + manifest->tables(t).name() + " has " +
                              std::to_string(sums.rows[t]) + " rows, not " +
                              std::to_string(manifest->tables(t).rows()));
    }
  }
  if (result.errors.empty() && final_digest(sums.digest, manifest.value()) != manifest->digest()) {
    result.errors.push_back(generation_dir + ": its rows do not add up to the manifest's digest");
  }
  return result;
}

}  // namespace meander::checkpoint
