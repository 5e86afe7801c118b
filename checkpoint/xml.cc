// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/xml.h"

#include <cstdint>
#include <utility>

namespace meander::checkpoint {
namespace {

constexpr std::pair<std::string_view, char> kEntities[] = {
    {"amp", '&'}, {"lt", '<'}, {"gt", '>'}, {"quot", '"'}, {"apos", '\''}};

void append_utf8(std::string& out, std::uint32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += {static_cast<char>(0xc0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
  } else if (c < 0x10000) {
    out += {static_cast<char>(0xe0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
            static_cast<char>(0x80 | (c & 63))};
  } else {
    out += {static_cast<char>(0xf0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 63)),
            static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
  }
}

// The character of "#38" or "#x26"; false: it is none.
bool append_numbered(std::string& out, std::string_view name) {
  if (name.size() < 2 || name[0] != '#') return false;
  const bool is_hex = name[1] == 'x';
  std::uint32_t value = 0;
  for (const char c : name.substr(is_hex ? 2 : 1)) {
    int digit = -1;
    if (c >= '0' && c <= '9') digit = c - '0';
    if (is_hex && c >= 'a' && c <= 'f') digit = c - 'a' + 10;
    if (is_hex && c >= 'A' && c <= 'F') digit = c - 'A' + 10;
    if (digit < 0) return false;
    value = value * (is_hex ? 16 : 10) + static_cast<std::uint32_t>(digit);
    if (value > 0x10ffff) return false;
  }
  append_utf8(out, value);
  return true;
}

bool append_entity(std::string& out, std::string_view name) {
  for (const auto& [known, c] : kEntities) {
    if (name == known) {
      out += c;
      return true;
    }
  }
  return append_numbered(out, name);
}

}  // namespace

std::vector<std::string_view> xml_elements(std::string_view xml, std::string_view name) {
  const std::string open = "<" + std::string(name) + ">", close = "</" + std::string(name) + ">";
  std::vector<std::string_view> found;
  for (std::size_t at = 0; (at = xml.find(open, at)) != std::string_view::npos;) {
    const std::size_t begin = at + open.size();
    const std::size_t end = xml.find(close, begin);
    if (end == std::string_view::npos) break;
    found.push_back(xml.substr(begin, end - begin));
    at = end + close.size();
  }
  return found;
}

std::string xml_text(std::string_view xml, std::string_view name) {
  const auto found = xml_elements(xml, name);
  return found.empty() ? "" : xml_unescape(found.front());
}

std::string xml_escape(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    const std::pair<std::string_view, char>* entity = nullptr;
    for (const auto& known : kEntities) {
      if (known.second == c) entity = &known;
    }
    if (entity == nullptr) {
      escaped += c;
    } else {
      escaped += "&" + std::string(entity->first) + ";";
    }
  }
  return escaped;
}

std::string xml_unescape(std::string_view text) {
  std::string plain;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::size_t end = text[i] == '&' ? text.find(';', i) : std::string_view::npos;
    if (end != std::string_view::npos && append_entity(plain, text.substr(i + 1, end - i - 1))) {
      i = end;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

}  // namespace meander::checkpoint
