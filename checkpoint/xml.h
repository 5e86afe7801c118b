// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace meander::checkpoint {

// What S3's answers need of XML: elements without attributes that do not nest in their own kind, no
// CDATA, no comments. Whatever the bytes are, it stays inside of them.

// What stands inside each <name>...</name>, in order, as it stands there.
std::vector<std::string_view> xml_elements(std::string_view xml, std::string_view name);
// The text of the first <name>, unescaped; empty when there is none.
std::string xml_text(std::string_view xml, std::string_view name);
std::string xml_escape(std::string_view text);
std::string xml_unescape(std::string_view text);

}  // namespace meander::checkpoint
