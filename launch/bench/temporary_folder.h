// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <filesystem>
#include <string>

#include "common/storage.h"

namespace meander::launch::bench {

// A folder that is removed at the end.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const std::string& in)
      : path_(
            (std::filesystem::path(in) / ("meander-bench-" + std::to_string(getpid()))).string()) {
    std::error_code ignored;
    std::filesystem::create_directories(path_, ignored);  // an error shows in the first write
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return join_path(path_, name); }

 private:
  std::string path_;
};

}  // namespace meander::launch::bench
