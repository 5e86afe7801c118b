// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/status.h"
#include "common/storage.h"
#include "export/description.h"
#include "export/safetensors.h"
#include "export/write.h"
#include "nn/graph.h"

namespace meander::serve {

// An export (docs/export-format.md), ready to score: its files are mapped, so memory is about what
// is touched of them; items are read into memory. Immutable: any number of threads may use one.
class Artefact {
 public:
  // `dir` is what `meander export` wrote. kNotFound, kInvalid (no export, or of another version),
  // kCorrupt; the message names the file.
  static Result<std::shared_ptr<const Artefact>> load(Storage& storage, const std::string& dir);

  struct Table {
    std::span<const std::int64_t> keys;  // rising
    nn::ConstMatrix rows;                // (keys + 1, width); the last is for every other key
    // Row of a key; keys.size() when it is unknown.
    std::uint32_t row_of(std::int64_t key) const;
  };

  const artefact::Description& description() const { return description_; }
  const nn::Graph& graph() const { return *graph_; }
  const std::vector<Table>& tables() const { return tables_; }
  // The rows of all tables, as a step of the graph takes them.
  const std::vector<nn::ConstMatrix>& table_rows() const { return table_rows_; }
  std::span<const float> dense() const { return dense_; }
  const std::vector<artefact::Item>& items() const { return items_; }  // by id
  const artefact::Item* find_item(std::uint64_t id) const;
  // A user's stored behaviours, oldest first.
  std::optional<artefact::UserHistory> history(std::uint64_t user) const;
  std::span<const std::int64_t> users() const { return users_; }  // rising

 private:
  Artefact() = default;
  Status load_tables(Storage& storage, const std::string& dir);
  Status load_dense(Storage& storage, const std::string& dir);
  Status load_items(Storage& storage, const std::string& dir);
  Status load_histories(Storage& storage, const std::string& dir);

  artefact::Description description_;
  std::unique_ptr<const nn::Graph> graph_;
  std::vector<artefact::Safetensors> files_;  // keeps what the spans below point to
  std::vector<Table> tables_;
  std::vector<nn::ConstMatrix> table_rows_;
  std::vector<float> dense_;
  std::vector<artefact::Item> items_;
  std::span<const std::int64_t> users_, first_, item_, category_, time_ms_;
};

}  // namespace meander::serve
