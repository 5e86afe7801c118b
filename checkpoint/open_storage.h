// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "common/storage.h"

namespace meander::checkpoint {

bool is_s3_path(const std::string& path);  // "s3://..."

// All paths: those that begin with "s3://" on the store that the environment names
// (docs/stores.md), which is first asked for when such a path is first used; the others on the file
// system.
std::unique_ptr<Storage> open_storage();

}  // namespace meander::checkpoint
