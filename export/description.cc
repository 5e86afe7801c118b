// SPDX-License-Identifier: Apache-2.0
#include "export/description.h"

#include <boost/json.hpp>
#include <stdexcept>

namespace meander::artefact {
namespace json = boost::json;
namespace {

template <class T>
json::array to_array(const std::vector<T>& values) {
  json::array array;
  for (const T& value : values) array.emplace_back(value);
  return array;
}

json::object encode_model(const models::ModelSpec& m, const std::vector<std::string>& sources) {
  json::array slots;
  for (std::size_t i = 0; i < m.slots.size(); ++i) {
    const nn::SlotSpec& s = m.slots[i];
    slots.push_back({{"name", s.name},
                     {"source", sources.at(i)},
                     {"table", s.table},
                     {"width", s.width},
                     {"in_history", s.in_history},
                     {"frozen", s.frozen},
                     {"projected", s.projected}});
  }
  return {{"kind", m.kind},
          {"slots", slots},
          {"numeric_features", m.numeric_features},
          {"hidden", m.hidden},
          {"layers", m.layers},
          {"attention", to_array(m.attention)},
          {"head", to_array(m.head)},
          {"activation", m.activation},
          {"dice", m.dice},
          {"auxiliary_weight", m.auxiliary_weight},
          {"auxiliary_mean", m.auxiliary_mean},
          {"evolution", m.evolution},
          {"cell", m.cell},
          {"loss", m.loss},
          {"click_weight", m.click_weight},
          {"second_weight", m.second_weight},
          {"dropout", m.dropout},
          {"blocks", m.blocks},
          {"heads", m.heads},
          {"positions", m.positions},
          {"decay", m.decay},
          {"half_life_h", m.half_life_h}};
}

// The readers below throw std::exception on what is missing or of a wrong type;
// decode_description() catches it.
template <class T>
T number(const json::object& object, const char* key) {
  return object.at(key).to_number<T>();
}
std::string string(const json::object& object, const char* key) {
  return std::string(object.at(key).as_string());
}
std::vector<std::int32_t> ints(const json::object& object, const char* key) {
  std::vector<std::int32_t> values;
  for (const json::value& v : object.at(key).as_array()) {
    values.push_back(v.to_number<std::int32_t>());
  }
  return values;
}

void decode_model(const json::object& object, Description& d) {
  models::ModelSpec& m = d.model;
  m.kind = string(object, "kind");
  for (const json::value& value : object.at("slots").as_array()) {
    const json::object& slot = value.as_object();
    m.slots.push_back({string(slot, "name"), number<std::int32_t>(slot, "table"),
                       number<std::int32_t>(slot, "width"), slot.at("in_history").as_bool(),
                       slot.at("frozen").as_bool(), number<std::int32_t>(slot, "projected")});
    d.slot_sources.push_back(string(slot, "source"));
  }
  m.numeric_features = number<std::int32_t>(object, "numeric_features");
  m.hidden = number<std::int32_t>(object, "hidden");
  m.layers = number<std::int32_t>(object, "layers");
  m.attention = ints(object, "attention");
  m.head = ints(object, "head");
  m.activation = string(object, "activation");
  m.dice = string(object, "dice");
  m.auxiliary_weight = number<float>(object, "auxiliary_weight");
  m.auxiliary_mean = string(object, "auxiliary_mean");
  m.evolution = string(object, "evolution");
  m.cell = string(object, "cell");
  m.loss = string(object, "loss");
  if (object.contains("second_weight")) {  // not in exports of before there was one
    m.click_weight = number<float>(object, "click_weight");
    m.second_weight = number<float>(object, "second_weight");
  }
  m.dropout = number<float>(object, "dropout");
  m.blocks = number<std::int32_t>(object, "blocks");
  m.heads = number<std::int32_t>(object, "heads");
  m.positions = number<std::int32_t>(object, "positions");
  m.decay = string(object, "decay");
  m.half_life_h = number<float>(object, "half_life_h");
}

Description decode(const json::object& object) {
  Description d;
  d.job = string(object, "job");
  d.generation = number<std::uint64_t>(object, "generation");
  d.digest = string(object, "digest");
  decode_model(object.at("model").as_object(), d);
  if (object.contains("second_label")) d.second_label = string(object, "second_label");
  for (const json::value& value : object.at("tables").as_array()) {
    const json::object& table = value.as_object();
    d.tables.push_back({string(table, "name"), number<std::uint32_t>(table, "width"),
                        number<std::uint64_t>(table, "rows"),
                        number<std::uint64_t>(table, "stored"), string(table, "file")});
  }
  d.model_file = string(object, "model_file");
  d.history = number<std::uint32_t>(object, "history");
  d.candidates = string(object, "candidates");
  d.recent_ms = number<std::int64_t>(object, "recent_ms");
  d.newest_ms = number<std::int64_t>(object, "newest_ms");
  d.repeats = object.at("repeats").as_bool();
  d.items = number<std::uint64_t>(object, "items");
  d.users = number<std::uint64_t>(object, "users");
  d.behaviours = number<std::uint64_t>(object, "behaviours");
  return d;
}

}  // namespace

std::string encode_description(const Description& d) {
  json::array tables;
  for (const Description::Table& t : d.tables) {
    tables.push_back({{"name", t.name},
                      {"width", t.width},
                      {"rows", t.rows},
                      {"stored", t.stored},
                      {"file", t.file}});
  }
  json::object object = {{"format", "meander-export"},
                         {"version", kFormat},
                         {"job", d.job},
                         {"generation", d.generation},
                         {"digest", d.digest},
                         {"model", encode_model(d.model, d.slot_sources)},
                         {"tables", tables},
                         {"model_file", d.model_file},
                         {"history", d.history},
                         {"candidates", d.candidates},
                         {"recent_ms", d.recent_ms},
                         {"newest_ms", d.newest_ms},
                         {"repeats", d.repeats},
                         {"items", d.items},
                         {"users", d.users},
                         {"behaviours", d.behaviours}};
  if (!d.second_label.empty()) object["second_label"] = d.second_label;
  return json::serialize(object) + "\n";
}

Result<Description> decode_description(const std::string& text, const std::string& path) {
  boost::system::error_code error;
  const json::value value = json::parse(text, error);
  if (error || !value.is_object()) return corrupt(path + ": not a JSON object");
  const json::value* format = value.get_object().if_contains("format");
  if (!format || *format != "meander-export") return invalid(path + ": not an export of meander");
  try {
    const json::object& object = value.get_object();
    if (const auto version = number<std::uint32_t>(object, "version"); version != kFormat) {
      return invalid(path + ": version " + std::to_string(version) + ", this program reads " +
                     std::to_string(kFormat) + "; export again");
    }
    return decode(object);
  } catch (const std::exception& wrong) {
    return corrupt(path + ": a field is missing or of a wrong type: " + wrong.what());
  }
}

}  // namespace meander::artefact
