// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/status.h"
#include "models/model.h"

namespace meander::artefact {

// What a slot's key is taken from: of the candidate, of a behaviour, of the user, of the request.
inline constexpr const char* kSlotSources[] = {"item", "category", "user", "context"};

// What an export is: its file export.json (docs/export-format.md). Paths are relative to the
// export's own directory.
struct Description {
  std::string job;
  std::uint64_t generation = 0;
  std::string digest;        // of the generation
  models::ModelSpec model;   // as exported: its `dice` may be another than the training's
  std::string second_label;  // what the model's second task is called; empty: it has none
  std::vector<std::string> slot_sources;  // by slot of the model, of kSlotSources
  struct Table {
    std::string name;
    std::uint32_t width = 0;
    std::uint64_t rows = 0;    // without the one of zeros
    std::uint64_t stored = 0;  // of them trained; the others are initial rows of known ids
    std::string file;
  };
  std::vector<Table> tables;
  std::string model_file = "model.onnx";
  std::uint32_t history = 50;  // behaviours that the model was trained to see at most
  // Which items `recommend` scores if it is not told: "all", or "recent": those with an event in
  // the last `recent_ms` of the log.
  std::string candidates = "all";
  std::int64_t recent_ms = 3'600'000;
  std::int64_t newest_ms = 0;  // of the log's events; 0: the log has no times
  bool repeats = false;        // may an item of the user's behaviours be recommended again
  std::uint64_t items = 0, users = 0, behaviours = 0;
};

inline constexpr std::uint32_t kFormat = 2;

std::string encode_description(const Description& description);
// kInvalid: another format or version; kCorrupt: anything missing or of a wrong type. `path` is for
// the message.
Result<Description> decode_description(const std::string& text, const std::string& path);

}  // namespace meander::artefact
