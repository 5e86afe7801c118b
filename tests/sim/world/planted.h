// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "common/planted_bug.h"

namespace meander::sim {

// From now on this process has the bug; kNone: none.
void plant(PlantedBug bug);
// "repeat_applied".
const char* name_of(PlantedBug bug);
std::optional<PlantedBug> planted_bug(const std::string& name);

}  // namespace meander::sim
