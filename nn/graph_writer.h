// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "nn/op.h"

namespace meander::nn {

// What an op may say of its ONNX form; `export` alone knows ONNX messages.
//
// Shapes of tensors in the exported graph (opset 17, float32), G histories and K candidates each:
//   kGroup (G, w)   kSample (G*K, w)   kHistory (T, G, w)   kHistorySample (T, G*K, w)
// Histories are padded on the right to the longest, T; values at padded steps may be anything, so
// an op that mixes steps must mask by `lengths()` or `sample_lengths()`.
class GraphWriter {
 public:
  using Attribute =
      std::pair<std::string,
                std::variant<std::int64_t, float, std::string, std::vector<std::int64_t>>>;
  virtual ~GraphWriter() = default;

  // The ONNX name of a tensor that an earlier op (or the input) has produced.
  virtual std::string tensor(TensorId id) const = 0;
  // Says which ONNX value holds tensor `id`.
  virtual void bind(TensorId id, const std::string& value) = 0;
  // A key column, already looked up: rows of slot `slot` of `source` (kTarget or kHistory) as
  // (G*K, w) or (T, G, w).
  virtual std::string embedding(Source source, std::int32_t slot) = 0;
  virtual std::string numeric() = 0;         // (G*K, F)
  virtual std::string age() = 0;             // (T, G) hours from a behaviour to now
  virtual std::string lengths() = 0;         // int32 (G)
  virtual std::string sample_lengths() = 0;  // int32 (G*K)
  virtual std::string candidates() = 0;      // int64 scalar K
  // The trained values of a parameter, as an initializer of shape (rows, cols).
  virtual std::string param(ParamId id) = 0;
  // An initializer with these values.
  virtual std::string constant(std::vector<std::int64_t> shape, std::vector<float> values) = 0;
  virtual std::string constant_int(std::vector<std::int64_t> shape,
                                   std::vector<std::int64_t> values) = 0;
  // Appends a node; returns its first output (`outputs` of them, named <first>_1, <first>_2, ...;
  // an empty input name is an absent optional input).
  virtual std::string node(const std::string& type, std::vector<std::string> inputs,
                           std::vector<Attribute> attributes = {}, int outputs = 1) = 0;
  // A Scan over axis 0 of `sequences`. `body` gets the names of the states and of one step's slices
  // (axis 0 gone), appends nodes through the writer it is handed, and returns the new states
  // followed by the step's `outputs` outputs. Returns the final states followed by the stacked
  // outputs. Inside the body, param(), constant() and values of the outer graph may be used.
  using ScanBody = std::function<std::vector<std::string>(GraphWriter& body,
                                                          const std::vector<std::string>& states,
                                                          const std::vector<std::string>& slices)>;
  virtual std::vector<std::string> scan(std::vector<std::string> initial_states,
                                        std::vector<std::string> sequences, int outputs,
                                        const ScanBody& body) = 0;
};

}  // namespace meander::nn
