// SPDX-License-Identifier: Apache-2.0
#include "export/safetensors.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cstring>
#include <limits>

namespace meander::artefact {
namespace json = boost::json;
namespace {

constexpr std::size_t kLengthBytes = 8;
constexpr std::size_t kPieceBytes = 1 << 20;
constexpr std::uint64_t kHeaderBytesMax = 100'000'000;  // the format's own limit

// 0: a type that we do not write.
std::uint64_t type_bytes(std::string_view type) {
  if (type == "I64") return 8;
  if (type == "F32") return 4;
  return 0;
}

std::string header_text(const std::vector<ArraySpec>& arrays) {
  json::object header;
  std::uint64_t at = 0;
  for (const ArraySpec& a : arrays) {
    const std::uint64_t end = at + a.bytes();
    header[a.name] = {{"dtype", a.type},
                      {"shape", json::array(a.shape.begin(), a.shape.end())},
                      {"data_offsets", json::array{at, end}}};
    at = end;
  }
  std::string text = json::serialize(header);
  const std::size_t used = kLengthBytes + text.size();
  text.append((kSafetensorsAlign - used % kSafetensorsAlign) % kSafetensorsAlign, ' ');
  return text;
}

}  // namespace

std::uint64_t ArraySpec::count() const {
  std::uint64_t n = 1;
  for (std::int64_t d : shape) n *= static_cast<std::uint64_t>(d);
  return n;
}

std::uint64_t ArraySpec::bytes() const { return count() * type_bytes(type); }

Result<SafetensorsWriter> SafetensorsWriter::create(Storage& storage, const std::string& path,
                                                    std::vector<ArraySpec> arrays) {
  SafetensorsWriter writer;
  const std::string header = header_text(arrays);
  for (const ArraySpec& a : arrays) {
    CHECK_NE(type_bytes(a.type), 0u) << a.type;
    writer.payload_bytes_ += a.bytes();
  }
  writer.arrays_ = std::move(arrays);
  writer.payload_at_ = kLengthBytes + header.size();
  ASSIGN_OR_RETURN(writer.file_, storage.create(path));
  const std::uint64_t length = header.size();
  RETURN_IF_ERROR(writer.file_->append(&length, sizeof(length)));
  RETURN_IF_ERROR(writer.file_->append(header.data(), header.size()));
  return writer;
}

Status SafetensorsWriter::append(const void* bytes, std::size_t size) {
  CHECK_LE(appended_ + size, payload_bytes_);
  appended_ += size;
  if (size >= kPieceBytes) {
    RETURN_IF_ERROR(flush());
    return file_->append(bytes, size);
  }
  const auto* first = static_cast<const std::byte*>(bytes);
  pending_.insert(pending_.end(), first, first + size);
  return pending_.size() < kPieceBytes ? Status() : flush();
}

Status SafetensorsWriter::flush() {
  if (pending_.empty()) return {};
  RETURN_IF_ERROR(file_->append(pending_.data(), pending_.size()));
  pending_.clear();
  return {};
}

Status SafetensorsWriter::close() {
  CHECK_EQ(appended_, payload_bytes_);
  RETURN_IF_ERROR(flush());
  return file_->close();
}

std::uint64_t SafetensorsWriter::offset(const std::string& name) const {
  std::uint64_t at = payload_at_;
  for (const ArraySpec& a : arrays_) {
    if (a.name == name) return at;
    at += a.bytes();
  }
  LOG(FATAL) << "no array " << name;
}

namespace {

// One entry of the header; false: not what it should be.
bool parse_array(const json::value& entry, std::uint64_t payload_bytes, ArraySpec& spec,
                 std::uint64_t& offset) {
  const json::object* object = entry.if_object();
  if (!object) return false;
  const json::value *type = object->if_contains("dtype"), *shape = object->if_contains("shape"),
                    *offsets = object->if_contains("data_offsets");
  if (!type || !type->is_string() || !shape || !shape->is_array()) return false;
  if (!offsets || !offsets->is_array() || offsets->get_array().size() != 2) return false;
  spec.type = type->get_string();
  std::uint64_t count = 1;
  for (const json::value& dimension : shape->get_array()) {
    boost::system::error_code error;
    const auto d = dimension.to_number<std::int64_t>(error);
    if (error || d < 0) return false;
    if (d != 0 && count > std::numeric_limits<std::int64_t>::max() / static_cast<std::uint64_t>(d))
      return false;
    spec.shape.push_back(d);
    count *= static_cast<std::uint64_t>(d);
  }
  boost::system::error_code bad_begin, bad_end;
  const auto begin = offsets->get_array()[0].to_number<std::uint64_t>(bad_begin);
  const auto end = offsets->get_array()[1].to_number<std::uint64_t>(bad_end);
  if (bad_begin || bad_end || begin > end || end > payload_bytes) return false;
  const std::uint64_t width = type_bytes(spec.type);
  if (width != 0 && (count > (end - begin) / width || count * width != end - begin)) return false;
  offset = begin;
  return true;
}

}  // namespace

Result<Safetensors> Safetensors::open(Storage& storage, const std::string& path) {
  Safetensors file;
  file.path_ = path;
  ASSIGN_OR_RETURN(file.bytes_, storage.read(path));
  const auto bad = [&](const std::string& why) { return corrupt(path + ": " + why); };
  const std::byte* data = file.bytes_.data();
  const std::size_t size = file.bytes_.size();
  std::uint64_t length = 0;
  if (size < kLengthBytes) return bad("too short for a safetensors file");
  std::memcpy(&length, data, kLengthBytes);
  if (length > kHeaderBytesMax || length > size - kLengthBytes) {
    return bad("header reaches past the end of the file");
  }
  const std::string_view text(reinterpret_cast<const char*>(data) + kLengthBytes, length);
  boost::system::error_code error;
  const json::value header = json::parse(text, error);
  if (error || !header.is_object()) return bad("header is not a JSON object");
  const std::uint64_t payload_at = kLengthBytes + length;
  for (const auto& [name, entry] : header.get_object()) {
    if (name == "__metadata__") continue;  // strings for people
    Array array;
    array.spec.name = name;
    if (!parse_array(entry, size - payload_at, array.spec, array.offset)) {
      return bad("array " + std::string(name) + " does not fit the file (truncated?)");
    }
    array.offset += payload_at;
    file.arrays_[name] = std::move(array);
  }
  return file;
}

const ArraySpec* Safetensors::find(const std::string& name) const {
  const auto found = arrays_.find(name);
  return found == arrays_.end() ? nullptr : &found->second.spec;
}

template <class T>
Result<std::span<const T>> Safetensors::array(const std::string& name, const char* type,
                                              std::size_t dims) const {
  const auto found = arrays_.find(name);
  if (found == arrays_.end()) return corrupt(path_ + ": has no array " + name);
  const ArraySpec& spec = found->second.spec;
  if (spec.type != type || spec.shape.size() != dims) {
    return corrupt(path_ + ": array " + name + " is not of type " + type + " and " +
                   std::to_string(dims) + " dimensions");
  }
  const Buffer bytes = bytes_.slice(found->second.offset, spec.bytes());
  if (!bytes.holds<T>()) return corrupt(path_ + ": array " + name + " is not aligned");
  return bytes.as<T>();
}

Result<std::span<const std::int64_t>> Safetensors::ints(const std::string& name,
                                                        std::size_t dims) const {
  return array<std::int64_t>(name, "I64", dims);
}

Result<std::span<const float>> Safetensors::floats(const std::string& name,
                                                   std::size_t dims) const {
  return array<float>(name, "F32", dims);
}

}  // namespace meander::artefact
