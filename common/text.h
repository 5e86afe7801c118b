// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace meander {

// The candidate most like `word`, for "did you mean ...": empty when none is near (more than a
// third of the letters differ). Among equally near ones the first.
std::string nearest_name(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace meander
