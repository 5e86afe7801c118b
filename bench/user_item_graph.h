// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "nn/sparse.h"

namespace meander {

// The normalised graph of users and items in a file of lines "user item item ...", users by items.
// Ends the program with status 2 when the file cannot be read.
inline nn::SparseMatrix read_user_item_graph(const char* path) {
  std::ifstream file(path);
  if (!file) {
    std::fprintf(stderr, "%s: cannot be read\n", path);
    std::exit(2);
  }
  std::vector<nn::SparseEntry> entries;
  std::uint32_t users = 0, items = 0;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::uint32_t user = 0, item = 0;
    if (!(words >> user)) continue;
    users = std::max(users, user + 1);
    while (words >> item) {
      items = std::max(items, item + 1);
      entries.push_back({user, item, 1.0f});
    }
  }
  return nn::symmetrically_normalised(nn::sparse_matrix(static_cast<std::int32_t>(users),
                                                        static_cast<std::int32_t>(items), entries));
}

}  // namespace meander
