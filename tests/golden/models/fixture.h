// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "common/check.h"
#include "tests/jagged_batch.h"

namespace meander {

// A file written by tools/make_fixtures.py, which says what it holds and how.
class Fixture {
 public:
  struct Array {
    std::vector<std::int32_t> shape;
    std::vector<double> values;

    std::vector<float> floats() const { return {values.begin(), values.end()}; }
  };

  explicit Fixture(const std::string& name) {
    // Tests run in the root of the sources.
    const std::filesystem::path path = "tests/golden/data/" + name + ".bin";
    std::ifstream file(path, std::ios::binary);
    CHECK(file.is_open()) << path;
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
    while (at_ < bytes_.size()) read_array();
  }

  const Array& at(const std::string& name) const {
    const auto found = arrays_.find(name);
    CHECK(found != arrays_.end()) << name;
    return found->second;
  }
  bool has(const std::string& name) const { return arrays_.contains(name); }
  // Names that start with `prefix`, without it.
  std::vector<std::string> names(const std::string& prefix) const {
    std::vector<std::string> found;
    for (const auto& [name, array] : arrays_) {
      if (name.starts_with(prefix)) found.push_back(name.substr(prefix.size()));
    }
    return found;
  }

  // The groups of a batch, in the order of the file.
  std::vector<JaggedGroup> groups(int batch) const {
    const std::string prefix = "batch/" + std::to_string(batch) + "/";
    const Array& target = at(prefix + "target");
    const std::size_t slots = target.shape[0], count = target.shape[1], k = target.shape[2];
    std::vector<JaggedGroup> groups(count);
    std::size_t start = 0;
    for (std::size_t g = 0; g < count; ++g) {
      const auto length = static_cast<std::size_t>(at(prefix + "lengths").values[g]);
      for (std::size_t slot = 0; slot < slots; ++slot) {
        groups[g].target.push_back(keys(target, (slot * count + g) * k, k));
        const Array& history = at(prefix + "history");
        const Array& negative = at(prefix + "negative");
        groups[g].history.push_back(keys(history, slot * history.shape[1] + start, length));
        groups[g].negative.push_back(keys(negative, slot * negative.shape[1] + start, length));
      }
      const std::vector<float> valid = at(prefix + "valid").floats();
      const std::vector<float> label = at(prefix + "label").floats();
      groups[g].valid.assign(valid.begin() + start, valid.begin() + start + length);
      groups[g].label.assign(label.begin() + g * k, label.begin() + (g + 1) * k);
      if (has(prefix + "second")) {
        const std::vector<float> second = at(prefix + "second").floats();
        groups[g].second_label.assign(second.begin() + g * k, second.begin() + (g + 1) * k);
      }
      start += length;
    }
    return groups;
  }

 private:
  template <class T>
  T read() {
    T value;
    CHECK_LE(at_ + sizeof(T), bytes_.size());
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }

  void read_array() {
    const auto length = read<std::uint8_t>();
    CHECK_LE(at_ + length, bytes_.size());
    Array& array = arrays_[std::string(bytes_.data() + at_, length)];
    at_ += length;
    const char type = read<char>();
    std::size_t size = 1;
    for (auto rank = read<std::uint8_t>(); rank > 0; --rank) {
      array.shape.push_back(read<std::int32_t>());
      size *= array.shape.back();
    }
    for (std::size_t i = 0; i < size; ++i) array.values.push_back(read_value(type));
  }

  double read_value(char type) {
    switch (type) {
      case 'f':
        return read<float>();
      case 'd':
        return read<double>();
      case 'i':
        return read<std::int32_t>();
    }
    LOG(FATAL) << "type " << type;
  }

  static std::vector<std::uint32_t> keys(const Array& array, std::size_t first, std::size_t n) {
    return {array.values.begin() + first, array.values.begin() + first + n};
  }

  std::vector<char> bytes_;
  std::size_t at_ = 0;
  std::map<std::string, Array> arrays_;
};

}  // namespace meander
