// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/data/support.h"

#include <vector>

#include "common/rng.h"

namespace meander::data {

std::string shop_csv(std::uint64_t users, std::uint64_t items, std::uint64_t seed) {
  Rng rng(seed);
  std::string text = "time,user,item,category,price,device,note\n";
  std::vector<std::uint64_t> left(users);
  for (std::uint64_t& n : left) n = 2 + rng.below(39);
  for (std::uint64_t alive = users; alive > 0;) {
    const std::uint64_t user = rng.below(users);
    if (left[user] == 0) continue;
    alive -= --left[user] == 0;
    const std::uint64_t item = rng.below(items);
    text += std::to_string(1'000'000 + rng.below(500'000)) + "," + std::to_string(user + 1) + "," +
            std::to_string(item + 100) + ",c" + std::to_string(item % 5) + ",";
    if (!rng.chance(0.1)) text += std::to_string(1 + rng.below(1000)) + ".25";
    text += rng.chance(0.5) ? ",phone,x\n" : ",desk,x\n";
  }
  return text;
}

}  // namespace meander::data
