// SPDX-License-Identifier: Apache-2.0
#include "export/samples.h"

#include "export/safetensors.h"

namespace meander::artefact {
Result<std::uint64_t> write_samples(Storage& storage, const std::string& path,
                                    const models::ModelSpec& model, const Samples& s) {
  std::vector<ArraySpec> arrays;
  std::vector<std::span<const std::byte>> bytes;
  const auto add = [&](const std::string& name, const char* type, std::vector<std::int64_t> shape,
                       const auto& values) {
    arrays.push_back({name, type, std::move(shape)});
    bytes.push_back(std::as_bytes(std::span(values)));
    CHECK_EQ(bytes.back().size(), arrays.back().bytes()) << name;
  };
  for (std::size_t i = 0; i < model.slots.size(); ++i) {
    const std::string& name = model.slots[i].name;
    add("target_" + name, "I64", {s.groups, s.candidates}, s.target[i]);
    if (model.slots[i].in_history) {
      add("history_" + name, "I64", {s.groups, s.steps}, s.history[i]);
    }
  }
  add("history_length", "I64", {s.groups}, s.history_length);
  const auto batches = static_cast<std::int64_t>(s.batches.size());
  add("batches", "I64", {batches}, s.batches);
  if (model.numeric_features > 0) {
    add("numeric", "F32", {s.groups, s.candidates, model.numeric_features}, s.numeric);
  }
  if (!s.history_age.empty()) add("history_age", "F32", {s.groups, s.steps}, s.history_age);
  if (!s.logit.empty()) add("logit", "F32", {s.groups, s.candidates}, s.logit);
  if (!s.second_logit.empty()) {
    add("second_logit", "F32", {s.groups, s.candidates}, s.second_logit);
  }
  ASSIGN_OR_RETURN(auto writer, SafetensorsWriter::create(storage, path, arrays));
  for (const auto& b : bytes) RETURN_IF_ERROR(writer.append(b.data(), b.size()));
  RETURN_IF_ERROR(writer.close());
  return writer.file_bytes();
}

}  // namespace meander::artefact
