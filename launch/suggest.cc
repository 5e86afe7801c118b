// SPDX-License-Identifier: Apache-2.0
#include "launch/suggest.h"

#include "common/text.h"

namespace meander::launch {

std::string did_you_mean(std::string_view word, const std::vector<std::string>& known) {
  const std::string name = nearest_name(word, known);
  return name.empty() ? "" : "; did you mean '" + name + "'?";
}

std::string join(const std::vector<std::string>& words, std::string_view separator) {
  std::string text;
  for (const std::string& word : words) {
    if (!text.empty()) text += separator;
    text += word;
  }
  return text;
}

}  // namespace meander::launch
