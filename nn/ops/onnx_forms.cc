// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/onnx_forms.h"

namespace meander::nn {
namespace {

constexpr std::int64_t kOnnxInt32 = 6;  // TensorProto.DataType

// int32 (T, 1): first, first + 1, ... for the steps of `history`.
std::string steps_from(GraphWriter& writer, const std::string& history, std::int64_t first) {
  const std::string shape = writer.node("Shape", {history});
  const std::string steps = writer.node("Gather", {shape, writer.constant_int({}, {0})});
  const std::string range =
      writer.node("Range", {writer.constant_int({}, {0}), steps, writer.constant_int({}, {1})});
  const std::string step = writer.node("Cast", {range}, {{"to", kOnnxInt32}});
  const std::string column = writer.node("Unsqueeze", {step, writer.constant_int({1}, {1})});
  if (first == 0) return column;
  return writer.node("Add", {column, writer.node("Cast", {writer.constant_int({}, {first})},
                                                 {{"to", kOnnxInt32}})});
}

}  // namespace

std::string onnx_history_mask(GraphWriter& writer, const std::string& history) {
  const std::string mask = writer.node("Less", {steps_from(writer, history, 0), writer.lengths()});
  return writer.node("Unsqueeze", {mask, writer.constant_int({1}, {2})});
}

std::string onnx_last_states(GraphWriter& writer, const std::string& history) {
  const std::string is_last =
      writer.node("Equal", {steps_from(writer, history, 1), writer.lengths()});
  const std::string mask = writer.node("Unsqueeze", {is_last, writer.constant_int({1}, {2})});
  const std::string last = writer.node("Where", {mask, history, writer.constant({}, {0.0f})});
  return writer.node("ReduceSum", {last, writer.constant_int({1}, {0})},
                     {{"keepdims", std::int64_t{0}}});
}

std::string onnx_repeat_candidates(GraphWriter& writer, const std::string& groups) {
  const std::string one = writer.constant_int({1}, {1});
  const std::string count =
      writer.node("Unsqueeze", {writer.candidates(), writer.constant_int({1}, {0})});
  const std::string repeats = writer.node("Concat", {one, count, one}, {{"axis", std::int64_t{0}}});
  const std::string wide = writer.node("Unsqueeze", {groups, one});
  const std::string repeated = writer.node("Expand", {wide, repeats});
  const std::string width =
      writer.node("Gather", {writer.node("Shape", {groups}), writer.constant_int({1}, {1})});
  const std::string shape =
      writer.node("Concat", {writer.constant_int({1}, {-1}), width}, {{"axis", std::int64_t{0}}});
  return writer.node("Reshape", {repeated, shape});
}

std::string onnx_repeat_history(GraphWriter& writer, const std::string& history) {
  const std::string one = writer.constant_int({1}, {1});
  const std::string count =
      writer.node("Unsqueeze", {writer.candidates(), writer.constant_int({1}, {0})});
  const std::string repeats =
      writer.node("Concat", {one, one, count, one}, {{"axis", std::int64_t{0}}});
  const std::string wide = writer.node("Unsqueeze", {history, writer.constant_int({1}, {2})});
  const std::string repeated = writer.node("Expand", {wide, repeats});
  const std::string old = writer.node("Shape", {history});
  const std::string steps = writer.node("Gather", {old, writer.constant_int({1}, {0})});
  const std::string width = writer.node("Gather", {old, writer.constant_int({1}, {2})});
  const std::string shape = writer.node("Concat", {steps, writer.constant_int({1}, {-1}), width},
                                        {{"axis", std::int64_t{0}}});
  return writer.node("Reshape", {repeated, shape});
}

std::string onnx_layer_norm(GraphWriter& writer, const std::string& x, ParamId gamma, ParamId beta,
                            float epsilon) {
  const std::string flat = writer.constant_int({1}, {-1});
  return writer.node("LayerNormalization",
                     {x, writer.node("Reshape", {writer.param(gamma), flat}),
                      writer.node("Reshape", {writer.param(beta), flat})},
                     {{"axis", std::int64_t{-1}}, {"epsilon", epsilon}});
}

}  // namespace meander::nn
