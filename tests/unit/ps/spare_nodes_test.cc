// SPDX-License-Identifier: Apache-2.0
#include "ps/spare_nodes.h"

#include <gtest/gtest.h>

#include <map>

namespace meander::ps {
namespace {

struct Entry {
  std::vector<int> values;
  void clear() { values.clear(); }
};
using Entries = std::map<int, Entry>;

TEST(SpareNodes, AnEntryThatHasEndedComesBackEmptyWithItsMemoryUnderAnotherKey) {
  Entries entries;
  SpareNodes<Entries> spare;
  std::vector<int>& values = spare.insert(entries, 1)->second.values;
  values.assign(100, 7);
  const int* const memory = values.data();
  spare.give(entries.extract(1));
  EXPECT_TRUE(entries.empty());

  const auto next = spare.insert(entries, 2);
  EXPECT_EQ(next->first, 2);
  EXPECT_TRUE(next->second.values.empty());
  next->second.values.push_back(1);
  EXPECT_EQ(next->second.values.data(), memory);
  EXPECT_TRUE(spare.insert(entries, 3)->second.values.empty()) << "nothing is left to be given";
  EXPECT_EQ(entries.size(), 2u);
}

TEST(SpareNodes, NoEntryIsNotGiven) {
  Entries entries;
  SpareNodes<Entries> spare;
  spare.give(entries.extract(1));
  spare.insert(entries, 5)->second.values.push_back(3);
  EXPECT_EQ(entries.at(5).values.size(), 1u);
}

}  // namespace
}  // namespace meander::ps
