// SPDX-License-Identifier: Apache-2.0
#include "data/npy.h"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace meander::data {
namespace {

constexpr std::string_view kMagic("\x93NUMPY", 6);
constexpr std::uint64_t kBytesMax = std::uint64_t{1} << 48;

// The header's text, a Python dictionary, piece by piece.
class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  // Blanks, then `word`; stays where it is if that does not come.
  bool take(std::string_view word) {
    skip_blanks();
    if (!text_.starts_with(word)) return false;
    text_.remove_prefix(word.size());
    return true;
  }
  bool take_string(std::string& out) {
    skip_blanks();
    if (text_.empty() || (text_[0] != '\'' && text_[0] != '"')) return false;
    const std::size_t end = text_.find(text_[0], 1);
    if (end == text_.npos) return false;
    out = text_.substr(1, end - 1);
    text_.remove_prefix(end + 1);
    return true;
  }
  // (), (3,), (3, 4)
  bool take_shape(std::vector<std::uint64_t>& shape) {
    if (!take("(")) return false;
    while (!take(")")) {
      skip_blanks();
      std::uint64_t& size = shape.emplace_back();
      const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), size);
      if (error != std::errc()) return false;
      text_.remove_prefix(end - text_.data());
      if (!take(",") && !text_.starts_with(')')) return false;
    }
    return true;
  }
  bool at_end() {
    skip_blanks();
    return text_.empty();
  }

 private:
  void skip_blanks() {
    text_.remove_prefix(std::min(text_.find_first_not_of(" \t\n"), text_.size()));
  }
  std::string_view text_;
};

struct Header {
  NpyArray array;
  bool is_fortran = false, has_type = false, has_order = false, has_shape = false;
};

bool parse(std::string_view text, Header& header) {
  Reader in(text);
  if (!in.take("{")) return false;
  while (!in.take("}")) {
    std::string key;
    if (!in.take_string(key) || !in.take(":")) return false;
    if (key == "descr" && !header.has_type) {
      // Structured types are lists.
      header.has_type = in.take_string(header.array.type);
      if (!header.has_type) return false;
    } else if (key == "fortran_order" && !header.has_order) {
      header.is_fortran = in.take("True");
      header.has_order = header.is_fortran || in.take("False");
      if (!header.has_order) return false;
    } else if (key == "shape" && !header.has_shape) {
      header.has_shape = in.take_shape(header.array.shape);
      if (!header.has_shape) return false;
    } else {
      return false;
    }
    in.take(",");
  }
  return in.at_end() && header.has_type && header.has_order && header.has_shape;
}

// Bytes of a value; 0: not a plain little-endian number.
std::uint64_t width_of(std::string_view type) {
  if (type.size() != 3 || (type[0] != '<' && type[0] != '|')) return 0;
  if (std::string_view("fiub").find(type[1]) == std::string_view::npos) return 0;
  const std::uint64_t width = type[2] - '0';
  const bool is_one = width == 1;
  return (is_one || type[0] == '<') && (is_one || width == 2 || width == 4 || width == 8) ? width
                                                                                          : 0;
}

}  // namespace

bool is_npy(const Buffer& bytes) {
  return bytes.size() >= kMagic.size() &&
         std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) == 0;
}

Result<NpyArray> read_npy(Storage& storage, const std::string& path) {
  ASSIGN_OR_RETURN(const Buffer file, storage.read(path));
  if (!is_npy(file)) return invalid(path + ": not a NumPy file; write one with numpy.save");
  const std::string_view bytes(reinterpret_cast<const char*>(file.data()), file.size());
  const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(bytes[at]); };
  const std::size_t count_bytes = bytes.size() > 6 && byte(6) == 1 ? 2 : 4;
  if (bytes.size() < 8 + count_bytes) return corrupt(path + ": cut off in its header");
  if (byte(6) < 1 || byte(6) > 3) {
    return invalid(path + ": NumPy format " + std::to_string(byte(6)) + ", known are 1 to 3");
  }
  std::uint64_t length = 0;
  for (std::size_t i = 0; i < count_bytes; ++i) length |= std::uint64_t{byte(8 + i)} << 8 * i;
  const std::uint64_t first = 8 + count_bytes + length;
  if (first > bytes.size()) return corrupt(path + ": cut off in its header");

  Header header;
  if (!parse(bytes.substr(8 + count_bytes, length), header)) {
    return invalid(path + ": not an array of plain numbers; save one with numpy.save");
  }
  NpyArray& array = header.array;
  const std::uint64_t width = width_of(array.type);
  if (width == 0) {
    return invalid(path + ": of type " + array.type + ", which is no little-endian number");
  }
  std::uint64_t size = width;
  for (const std::uint64_t n : array.shape) {
    if (n != 0 && size > kBytesMax / n) return corrupt(path + ": of an impossible shape");
    size *= n;
  }
  if (header.is_fortran && array.shape.size() > 1) {
    return invalid(path + ": in Fortran order; save numpy.ascontiguousarray of it");
  }
  if (bytes.size() - first != size) {
    return corrupt(path + ": its shape needs " + std::to_string(size) + " bytes, it has " +
                   std::to_string(bytes.size() - first));
  }
  array.values = file.slice(first, size);
  return std::move(array);
}

std::string npy_header(std::string_view type, const std::vector<std::uint64_t>& shape) {
  std::string text = "{'descr': '" + std::string(type) + "', 'fortran_order': False, 'shape': (";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : " ") + std::to_string(shape[i]);
    if (i + 1 < shape.size() || shape.size() == 1) text += ',';
  }
  text += "), }";
  text.resize((10 + text.size() + 1 + 63) / 64 * 64 - 10 - 1, ' ');
  text += '\n';
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>(text.size() & 0xff);
  header += static_cast<char>(text.size() >> 8);
  return header + text;
}

}  // namespace meander::data
