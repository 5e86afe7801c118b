// SPDX-License-Identifier: Apache-2.0
#include "export/samples.h"

#include "export/safetensors.h"

namespace meander::artefact {
namespace {

template <class T>
std::vector<T> copy(std::span<const T> values) {
  return {values.begin(), values.end()};
}

}  // namespace

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
  if (!s.logit.empty()) add("logit", "F32", {s.groups, s.candidates}, s.logit);
  ASSIGN_OR_RETURN(auto writer, SafetensorsWriter::create(storage, path, arrays));
  for (const auto& b : bytes) RETURN_IF_ERROR(writer.append(b.data(), b.size()));
  RETURN_IF_ERROR(writer.close());
  return writer.file_bytes();
}

Result<Samples> read_samples(Storage& storage, const std::string& path,
                             const models::ModelSpec& model) {
  ASSIGN_OR_RETURN(const Safetensors file, Safetensors::open(storage, path));
  Samples s;
  const auto ints = [&](const std::string& name, std::size_t dims,
                        std::vector<std::int64_t>& into) -> Status {
    ASSIGN_OR_RETURN(const auto values, file.ints(name, dims));
    into = copy(values);
    return {};
  };
  s.target.resize(model.slots.size());
  s.history.resize(model.slots.size());
  for (std::size_t i = 0; i < model.slots.size(); ++i) {
    const std::string target = "target_" + model.slots[i].name;
    RETURN_IF_ERROR(ints(target, 2, s.target[i]));
    s.groups = file.find(target)->shape[0];
    s.candidates = file.find(target)->shape[1];
    if (!model.slots[i].in_history) continue;
    const std::string history = "history_" + model.slots[i].name;
    RETURN_IF_ERROR(ints(history, 2, s.history[i]));
    s.steps = file.find(history)->shape[1];
  }
  RETURN_IF_ERROR(ints("history_length", 1, s.history_length));
  RETURN_IF_ERROR(ints("batches", 1, s.batches));
  if (model.numeric_features > 0) {
    ASSIGN_OR_RETURN(const auto values, file.floats("numeric", 3));
    s.numeric = copy(values);
  }
  if (file.find("logit")) {
    ASSIGN_OR_RETURN(const auto values, file.floats("logit", 2));
    s.logit = copy(values);
  }
  const auto pairs = static_cast<std::size_t>(s.groups * s.candidates);
  bool fits = s.history_length.size() == static_cast<std::size_t>(s.groups);
  for (std::size_t i = 0; i < model.slots.size(); ++i) {
    fits = fits && s.target[i].size() == pairs;
    if (!model.slots[i].in_history) continue;
    fits = fits && s.history[i].size() == static_cast<std::size_t>(s.groups * s.steps);
  }
  for (std::int64_t length : s.history_length) fits = fits && length >= 1 && length <= s.steps;
  if (!fits) return corrupt(path + ": arrays of samples whose sizes do not go together");
  return s;
}

}  // namespace meander::artefact
