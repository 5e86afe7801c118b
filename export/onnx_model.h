// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "common/status.h"
#include "nn/graph.h"

// The folder is called export; that word is C++'s, so its namespace is called by what it makes.
namespace meander::artefact {

// One embedding table of the exported graph: row i belongs to keys[i], and one more row behind the
// last, of zeros, to every other key. The rows lie outside the model, in `file` (a path relative to
// the model's own) from byte `offset` on: (keys + 1, width) float32.
struct OnnxTable {
  std::string name;
  std::span<const std::int64_t> keys;  // distinct; a key's 64 bits taken as signed
  std::string file;
  std::uint64_t offset = 0;
};

struct OnnxOptions {
  std::vector<OnnxTable> tables;  // by table of the graph
  std::span<const float> dense;   // the graph's dense vector
  std::vector<std::pair<std::string, std::string>> metadata;
};

// An input or output of the graph: "INT64" or "FP32"; a dimension of -1 is free.
struct OnnxPort {
  std::string name, type;
  std::vector<std::int64_t> dimensions;
};

struct OnnxModel {
  std::string bytes;  // serialized
  std::vector<OnnxPort> inputs, outputs;
};

// The ONNX model (opset 17, ai.onnx.ml 3) of a graph: raw 64-bit ids in, scores out.
//
//   target_<slot>   int64 (G, K)     for each slot that the model reads of its candidates
//   history_<slot>  int64 (G, T)     for each slot that it reads of histories; oldest first, padded
//                                    on the right with anything
//   history_length  int64 (G)        in [1, T]; only if the model reads histories
//   numeric         float (G, K, F)  only if the model reads numbers
//   history_age     float (G, T)     hours before now; only if the model reads ages
//   -> logit, score float (G, K)     score = sigmoid(logit)
//   -> second_logit, second_score    the same of the second task; only if the model has one
//
// Errors: kExhausted above the 2 GiB that an ONNX file may have (some 180 million keys).
Result<OnnxModel> onnx_model(const nn::Graph& graph, const OnnxOptions& options);

}  // namespace meander::artefact
