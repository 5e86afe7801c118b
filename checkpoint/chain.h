// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "checkpoint/generation.h"

namespace meander::checkpoint {

// Appends the generation in `dir` and all that it stands on, the newest first, up to what is wrong:
// kNotFound (there is no such generation), kCorrupt (a manifest is damaged, or what it stands on is
// missing or does not fit).
Status follow_links(Storage& storage, const std::string& dir, Chain& newest_first);

}  // namespace meander::checkpoint
