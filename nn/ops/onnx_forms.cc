// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/onnx_forms.h"

namespace meander::nn {
namespace {

constexpr std::int64_t kOnnxInt32 = 6;  // TensorProto.DataType

// bool (T, G, 1): how `first` + the number of a step compares with the history's length.
std::string compare_steps(GraphWriter& writer, const std::string& history, std::int64_t first,
                          const std::string& comparison) {
  std::string steps = onnx_steps(writer, history);
  if (first != 0) steps = writer.node("Add", {steps, writer.constant_int({}, {first})});
  const std::string step = writer.node("Cast", {steps}, {{"to", kOnnxInt32}});
  const std::string column = writer.node("Unsqueeze", {step, writer.constant_int({1}, {1})});
  const std::string mask = writer.node(comparison, {column, writer.lengths()});
  return writer.node("Unsqueeze", {mask, writer.constant_int({1}, {2})});
}

}  // namespace

std::string onnx_steps(GraphWriter& writer, const std::string& history) {
  const std::string shape = writer.node("Shape", {history});
  const std::string steps = writer.node("Gather", {shape, writer.constant_int({}, {0})});
  return writer.node("Range", {writer.constant_int({}, {0}), steps, writer.constant_int({}, {1})});
}

std::string onnx_history_mask(GraphWriter& writer, const std::string& history) {
  return compare_steps(writer, history, 0, "Less");
}

std::string onnx_last_mask(GraphWriter& writer, const std::string& history) {
  return compare_steps(writer, history, 1, "Equal");
}

std::string onnx_last_states(GraphWriter& writer, const std::string& history) {
  const std::string last =
      writer.node("Where", {onnx_last_mask(writer, history), history, writer.constant({}, {0.0f})});
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
