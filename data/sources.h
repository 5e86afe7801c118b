// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/status.h"
#include "common/storage.h"
#include "data/item_names.h"
#include "data/node_graph.h"
#include "data/prepare.h"
#include "data/record.h"

namespace meander::data {

// The files of a log and how each is read.
class Source {
 public:
  // Finds the files, reads what describes items. kInvalid, kNotFound.
  static Result<Source> open(Storage& storage, const PrepareOptions& options);

  // Reads every file in order. A bad record is refused and reading goes on; a file that cannot be
  // read, or whose header lacks a column, is an error.
  Status read(Intake& intake);

  const RecordShape& shape() const { return shape_; }
  const std::optional<ItemNames>& names() const { return names_; }
  const std::vector<std::string>& files() const { return files_; }  // paths, test_in's last
  std::uint64_t bytes_read() const { return bytes_read_; }
  const NodeGraph& nodes() const { return nodes_; }  // of cora, once it is read

 private:
  Source(Storage& storage, Format format) : storage_(&storage), format_(format) {}
  Status find_files(const PrepareOptions& options);
  Status find_names(const PrepareOptions& options);
  Status read_file(const std::string& path, bool is_test, Intake& intake);
  Status read_links_beside(const std::string& path);

  Storage* storage_;
  Format format_;
  Schema schema_;  // of the delimited formats
  RecordShape shape_;
  std::optional<ItemNames> names_;
  std::vector<std::string> files_;
  std::size_t test_files_ = 0;  // of them, the last ones
  std::uint64_t sessions_ = 0;  // read so far: a session's number is its user
  std::uint64_t bytes_read_ = 0;
  NodeGraph nodes_;
};

}  // namespace meander::data
