// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace meander::launch {

// Edits (insert, delete, replace, swap of neighbours) that turn one word into the other.
// Source: Damerau, "A technique for computer detection and correction of spelling errors", 1964
// (the restricted form).
std::size_t edit_distance(std::string_view a, std::string_view b);

// The name of `known` that `word` was probably meant to be; empty when none is near.
std::string nearest(std::string_view word, const std::vector<std::string>& known);

// "; did you mean 'batch'?", or "" when no known name is near.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& known);

// "a, b, c"
std::string join(const std::vector<std::string>& words, std::string_view separator = ", ");

}  // namespace meander::launch
