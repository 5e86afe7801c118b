// SPDX-License-Identifier: Apache-2.0
#include "launch/yaml.h"

#include <google/protobuf/descriptor.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <set>

#include "launch/suggest.h"

namespace meander::launch {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

std::string child_path(const std::string& path, const std::string& name) {
  return path.empty() ? name : path + "." + name;
}

// What is being read: where it is from, and its place in the schema.
struct Place {
  std::string origin;  // "job.yaml" (marks are added), "--set", an environment variable
  bool has_marks = false;
  std::string path;

  std::string at(const YAML::Mark& mark) const {
    if (!has_marks || mark.is_null()) return origin;
    return origin + ":" + std::to_string(mark.line + 1) + ":" + std::to_string(mark.column + 1);
  }
  Status error(const YAML::Mark& mark, const std::string& what) const {
    return invalid(at(mark) + ": " + (path.empty() ? "" : path + ": ") + what);
  }
  Place child(const std::string& name) const { return {origin, has_marks, child_path(path, name)}; }
};

std::vector<std::string> field_names(const Descriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.field_count(); ++i) names.push_back(type.field(i)->name());
  return names;
}

std::vector<std::string> value_names(const EnumDescriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.value_count(); ++i) names.push_back(type.value(i)->name());
  return names;
}

Status unknown_field(const Place& place, const YAML::Mark& mark, const std::string& name,
                     const Descriptor& type) {
  const std::vector<std::string> known = field_names(type);
  std::string hint = did_you_mean(name, known);
  if (hint.empty()) hint = "; known here: " + join(known);
  return place.child(name).error(mark, "unknown field" + hint);
}

template <class T>
bool parse_number(const std::string& text, T& value) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  return error == std::errc() && stop == end;
}

// A scalar of the field's type: set when `index` is below zero, else appended.
class ScalarSetter {
 public:
  ScalarSetter(Message& message, const FieldDescriptor& field) : message_(message), field_(field) {}

  // What was expected, when `text` is not of the field's type; else empty.
  std::string set(const std::string& text) {
    switch (field_.cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        return set_string(text);
      case FieldDescriptor::CPPTYPE_BOOL:
        return set_bool(text);
      case FieldDescriptor::CPPTYPE_ENUM:
        return set_enum(text);
      case FieldDescriptor::CPPTYPE_UINT32:
        return set_whole<std::uint32_t>(text, &Reflection::SetUInt32, &Reflection::AddUInt32);
      case FieldDescriptor::CPPTYPE_UINT64:
        return set_whole<std::uint64_t>(text, &Reflection::SetUInt64, &Reflection::AddUInt64);
      case FieldDescriptor::CPPTYPE_INT32:
        return set_whole<std::int32_t>(text, &Reflection::SetInt32, &Reflection::AddInt32);
      case FieldDescriptor::CPPTYPE_INT64:
        return set_whole<std::int64_t>(text, &Reflection::SetInt64, &Reflection::AddInt64);
      case FieldDescriptor::CPPTYPE_FLOAT:
        return set_real<float>(text, &Reflection::SetFloat, &Reflection::AddFloat);
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return set_real<double>(text, &Reflection::SetDouble, &Reflection::AddDouble);
      case FieldDescriptor::CPPTYPE_MESSAGE:
        break;
    }
    LOG(FATAL) << "not a scalar field: " << field_.full_name();
    return {};
  }

 private:
  const Reflection& reflection() const { return *message_.GetReflection(); }

  template <class T, class Set, class Add>
  void store(T value, Set set, Add add) {
    if (field_.is_repeated()) {
      (reflection().*add)(&message_, &field_, value);
    } else {
      (reflection().*set)(&message_, &field_, value);
    }
  }

  std::string set_string(const std::string& text) {
    if (field_.is_repeated()) {
      reflection().AddString(&message_, &field_, text);
    } else {
      reflection().SetString(&message_, &field_, text);
    }
    return {};
  }

  std::string set_bool(const std::string& text) {
    if (text != "true" && text != "false") return "true or false";
    store(text == "true", &Reflection::SetBool, &Reflection::AddBool);
    return {};
  }

  std::string set_enum(const std::string& text) {
    const EnumDescriptor& type = *field_.enum_type();
    const auto* value = type.FindValueByName(text);
    if (value == nullptr) return "one of " + join(value_names(type));
    if (field_.is_repeated()) {
      reflection().AddEnum(&message_, &field_, value);
    } else {
      reflection().SetEnum(&message_, &field_, value);
    }
    return {};
  }

  template <class T, class Set, class Add>
  std::string set_whole(const std::string& text, Set set, Add add) {
    T value{};
    if (!parse_number(text, value)) {
      return "a whole number from " + std::to_string(std::numeric_limits<T>::min()) + " to " +
             std::to_string(std::numeric_limits<T>::max());
    }
    store(value, set, add);
    return {};
  }

  template <class T, class Set, class Add>
  std::string set_real(const std::string& text, Set set, Add add) {
    T value{};
    if (!parse_number(text, value) || !std::isfinite(value)) return "a number";
    store(value, set, add);
    return {};
  }

  Message& message_;
  const FieldDescriptor& field_;
};

std::string hint_for(const FieldDescriptor& field, const std::string& text) {
  if (field.cpp_type() != FieldDescriptor::CPPTYPE_ENUM) return "";
  return did_you_mean(text, value_names(*field.enum_type()));
}

Status read_message(const YAML::Node& node, const Place& place, Message& message, Origins& origins);

Status read_scalar(const YAML::Node& node, const Place& place, const FieldDescriptor& field,
                   Message& message) {
  if (!node.IsScalar()) {
    const std::string found = node.IsNull() ? "nothing" : node.IsMap() ? "a map" : "a list";
    return place.error(node.Mark(), "expected one value, found " + found);
  }
  const std::string& text = node.Scalar();
  const std::string expected = ScalarSetter(message, field).set(text);
  if (expected.empty()) return {};
  return place.error(node.Mark(),
                     "expected " + expected + ", got '" + text + "'" + hint_for(field, text));
}

Status read_list(const YAML::Node& node, const Place& place, const FieldDescriptor& field,
                 Message& message, Origins& origins) {
  if (!node.IsSequence()) return place.error(node.Mark(), "expected a list, such as [a, b]");
  message.GetReflection()->ClearField(&message, &field);
  std::size_t index = 0;
  for (const YAML::Node& element : node) {
    const Place at{place.origin, place.has_marks, place.path + "[" + std::to_string(index++) + "]"};
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      Message& added = *message.GetReflection()->AddMessage(&message, &field);
      RETURN_IF_ERROR(read_message(element, at, added, origins));
    } else {
      RETURN_IF_ERROR(read_scalar(element, at, field, message));
    }
  }
  origins[place.path] = place.at(node.Mark());
  return {};
}

Status read_field(const YAML::Node& node, const Place& place, const FieldDescriptor& field,
                  Message& message, Origins& origins) {
  if (field.is_repeated()) return read_list(node, place, field, message, origins);
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    Message& inner = *message.GetReflection()->MutableMessage(&message, &field);
    return read_message(node, place, inner, origins);
  }
  RETURN_IF_ERROR(read_scalar(node, place, field, message));
  origins[place.path] = place.at(node.Mark());
  return {};
}

Status read_message(const YAML::Node& node, const Place& place, Message& message,
                    Origins& origins) {
  if (node.IsNull()) return {};  // `train:` with nothing below it
  if (!node.IsMap()) return place.error(node.Mark(), "expected fields, such as name: value");
  std::set<std::string> seen;
  for (const auto& entry : node) {
    if (!entry.first.IsScalar()) return place.error(entry.first.Mark(), "a key must be a word");
    const std::string& name = entry.first.Scalar();
    const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(name);
    if (field == nullptr) {
      return unknown_field(place, entry.first.Mark(), name, *message.GetDescriptor());
    }
    if (!seen.insert(name).second) {
      return place.child(name).error(entry.first.Mark(), "given twice");
    }
    RETURN_IF_ERROR(read_field(entry.second, place.child(name), *field, message, origins));
  }
  return {};
}

// The value of an assignment as a YAML node: a scalar stays as it is written.
YAML::Node assigned_node(const std::string& text, const FieldDescriptor& field) {
  if (!field.is_repeated()) return YAML::Node(text);
  if (!text.empty() && text.front() == '[') return YAML::Load(text);
  YAML::Node list(YAML::NodeType::Sequence);
  std::size_t from = 0;
  while (from < text.size()) {
    const std::size_t comma = std::min(text.find(',', from), text.size());
    list.push_back(text.substr(from, comma - from));
    from = comma + 1;
  }
  return list;
}

Status assign(Place place, const std::string& path, const std::string& text, Message& message,
              Origins& origins) {
  const std::size_t dot = path.find('.');
  const std::string name = path.substr(0, dot);
  const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(name);
  if (field == nullptr) {
    return unknown_field(place, YAML::Mark::null_mark(), name, *message.GetDescriptor());
  }
  const bool is_group =
      field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field->is_repeated();
  const Place at = place.child(name);
  if (dot != std::string::npos) {
    if (!is_group) return at.error(YAML::Mark::null_mark(), "has no fields of its own");
    Message& inner = *message.GetReflection()->MutableMessage(&message, field);
    return assign(at, path.substr(dot + 1), text, inner, origins);
  }
  if (is_group) {
    return at.error(YAML::Mark::null_mark(), "is a group of fields: set one of " +
                                                 join(field_names(*field->message_type())));
  }
  try {
    return read_field(assigned_node(text, *field), at, *field, message, origins);
  } catch (const YAML::Exception& e) {
    return at.error(YAML::Mark::null_mark(), "'" + text + "': " + e.msg);
  }
}

std::string environment_name(const std::string& path) {
  std::string name = "MEANDER_" + path;
  for (char& c : name) c = c == '.' ? '_' : static_cast<char>(std::toupper(c));
  return name;
}

void collect_paths(const Descriptor& type, const std::string& path,
                   std::vector<std::string>& paths) {
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const std::string here = child_path(path, field.name());
    if (field.cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      if (!path.empty()) paths.push_back(here);
    } else if (!field.is_repeated()) {
      collect_paths(*field.message_type(), here, paths);
    }
  }
}

// A scalar as it is written in YAML; quoted only where it must be.
std::string quoted(const std::string& text) {
  YAML::Emitter out;
  out << text;
  return out.c_str();
}

std::string shortest(double value, bool is_float) {
  char text[40];
  const auto result = is_float ? std::to_chars(text, text + sizeof text, static_cast<float>(value))
                               : std::to_chars(text, text + sizeof text, value);
  return std::string(text, result.ptr);
}

// Value `index` of the field (the field itself when it is not repeated), as YAML.
std::string scalar_text(const Message& message, const FieldDescriptor& field, int index) {
  const Reflection& r = *message.GetReflection();
  const bool many = field.is_repeated();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING:
      return quoted(many ? r.GetRepeatedString(message, &field, index)
                         : r.GetString(message, &field));
    case FieldDescriptor::CPPTYPE_BOOL:
      return (many ? r.GetRepeatedBool(message, &field, index) : r.GetBool(message, &field))
                 ? "true"
                 : "false";
    case FieldDescriptor::CPPTYPE_ENUM:
      return (many ? r.GetRepeatedEnum(message, &field, index) : r.GetEnum(message, &field))
          ->name();
    case FieldDescriptor::CPPTYPE_UINT32:
      return std::to_string(many ? r.GetRepeatedUInt32(message, &field, index)
                                 : r.GetUInt32(message, &field));
    case FieldDescriptor::CPPTYPE_UINT64:
      return std::to_string(many ? r.GetRepeatedUInt64(message, &field, index)
                                 : r.GetUInt64(message, &field));
    case FieldDescriptor::CPPTYPE_INT32:
      return std::to_string(many ? r.GetRepeatedInt32(message, &field, index)
                                 : r.GetInt32(message, &field));
    case FieldDescriptor::CPPTYPE_INT64:
      return std::to_string(many ? r.GetRepeatedInt64(message, &field, index)
                                 : r.GetInt64(message, &field));
    case FieldDescriptor::CPPTYPE_FLOAT:
      return shortest(
          many ? r.GetRepeatedFloat(message, &field, index) : r.GetFloat(message, &field), true);
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return shortest(
          many ? r.GetRepeatedDouble(message, &field, index) : r.GetDouble(message, &field), false);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      break;
  }
  LOG(FATAL) << "not a scalar field: " << field.full_name();
  return {};
}

std::string list_text(const Message& message, const FieldDescriptor& field) {
  std::vector<std::string> values;
  const int count = message.GetReflection()->FieldSize(message, &field);
  for (int i = 0; i < count; ++i) values.push_back(scalar_text(message, field, i));
  return "[" + join(values) + "]";
}

void write_message(const Message& message, const Origins* origins, const std::string& path,
                   std::size_t indent, std::string& out) {
  const Reflection& reflection = *message.GetReflection();
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *message.GetDescriptor()->field(i);
    const bool is_message = field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    const bool is_string = field.cpp_type() == FieldDescriptor::CPPTYPE_STRING;
    const bool is_set = field.is_repeated() ? reflection.FieldSize(message, &field) > 0
                                            : reflection.HasField(message, &field);
    if (!is_set && (field.is_repeated() || is_message || is_string)) {
      if (!(is_string && field.has_default_value())) continue;
    }
    const std::string here = child_path(path, field.name());
    out += std::string(indent, ' ') + field.name() + ":";
    if (is_message) {  // lists of messages do not occur in what is written
      out += "\n";
      write_message(reflection.GetMessage(message, &field), origins, here, indent + 2, out);
      continue;
    }
    const std::size_t from = out.rfind('\n') == std::string::npos ? 0 : out.rfind('\n') + 1;
    out += " " + (field.is_repeated() ? list_text(message, field) : scalar_text(message, field, 0));
    if (origins != nullptr) {
      const std::size_t width = out.size() - from;
      out += std::string(width < 40 ? 40 - width : 1, ' ') + "# " + origin_of(*origins, here);
    }
    out += "\n";
  }
}

}  // namespace

std::string origin_of(const Origins& origins, const std::string& path) {
  const auto found = origins.find(path);
  return found == origins.end() ? "default" : found->second;
}

Status read_yaml(const std::string& text, const std::string& file, Message& message,
                 Origins& origins) {
  const Place place{file, true, ""};
  try {
    return read_message(YAML::Load(text), place, message, origins);
  } catch (const YAML::Exception& e) {
    return place.error(e.mark, e.msg);
  }
}

Status set_field(const std::string& assignment, const std::string& origin, Message& message,
                 Origins& origins) {
  const std::size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) {
    return invalid(origin + ": expected key=value, such as train.batch=512; got '" + assignment +
                   "'");
  }
  return assign({origin, false, ""}, assignment.substr(0, equals), assignment.substr(equals + 1),
                message, origins);
}

Status set_from_environment(Message& message, Origins& origins) {
  std::vector<std::string> paths;
  collect_paths(*message.GetDescriptor(), "", paths);
  for (const std::string& path : paths) {
    const std::string name = environment_name(path);
    const char* value = std::getenv(name.c_str());
    if (value == nullptr || *value == '\0') continue;
    RETURN_IF_ERROR(set_field(path + "=" + value, name, message, origins));
  }
  return {};
}

std::string field_text(const Message& message, const std::string& path) {
  const std::size_t dot = path.find('.');
  const FieldDescriptor* field = message.GetDescriptor()->FindFieldByName(path.substr(0, dot));
  CHECK(field != nullptr) << path;
  if (field->is_repeated()) return list_text(message, *field);
  if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) return scalar_text(message, *field, 0);
  const Message& inner = message.GetReflection()->GetMessage(message, field);
  if (dot != std::string::npos) return field_text(inner, path.substr(dot + 1));
  std::vector<std::string> values;
  for (const std::string& name : field_names(*inner.GetDescriptor())) {
    values.push_back(name + ": " + field_text(inner, name));
  }
  return "{" + join(values) + "}";
}

std::string write_yaml(const Message& message, const Origins* origins) {
  std::string out;
  write_message(message, origins, "", 0, out);
  return out;
}

}  // namespace meander::launch
