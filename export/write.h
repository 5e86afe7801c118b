// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "common/status.h"
#include "common/storage.h"
#include "export/description.h"
#include "export/rows.h"
#include "export/samples.h"
#include "nn/graph.h"

namespace meander::artefact {

struct Item {
  std::uint64_t id = 0;
  std::uint64_t category = 0;
  std::int64_t last_ms = 0;  // its newest event; 0 without times
  std::uint64_t count = 0;   // its events in the training part
  std::string category_name, title;
};

// A user's newest behaviours, oldest first; borrowed. `category` and `time_ms` may be empty.
struct UserHistory {
  std::uint64_t user = 0;
  std::span<const std::uint64_t> item, category;
  std::span<const std::int64_t> time_ms;
};

// All that an export is made of. `description` says job, generation, digest, model, slot sources
// and how to recommend; write_export() fills in tables, files and counts.
struct Contents {
  Description description;
  const nn::Graph* graph = nullptr;  // of description.model
  std::vector<TableRows> tables;     // by table of the graph
  std::vector<float> dense;
  std::vector<Item> items;             // by id
  std::vector<UserHistory> histories;  // by user as signed
  // Written beside the model, to check it by (samples.safetensors); null: none.
  const Samples* samples = nullptr;
};

// kTriton: the model and its rows lie in <job>/1/ beside <job>/config.pbtxt, so that the export is
// a model repository of the Triton server as it is.
enum class Layout { kPlain, kTriton };

struct Written {
  std::uint64_t files = 0, bytes = 0, rows = 0;
};

// Writes an export (docs/export-format.md) as directory `out`, whole or not at all: it is made
// under another name first, and takes its place once `check` (may be empty) has found it good
// there. An older export in its place is replaced; anything else there is left alone (kInvalid).
using CheckExport = std::function<Status(const std::string& dir)>;
Result<Written> write_export(Storage& storage, const Contents& contents, Layout layout,
                             const std::string& out, const CheckExport& check = {});

// Is `out` free for an export? Asked before the work begins. kInvalid as above.
Status check_target(Storage& storage, const std::string& out);

}  // namespace meander::artefact
