// SPDX-License-Identifier: Apache-2.0
#include "data/marks.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/rng.h"

namespace meander::data {
namespace {

std::vector<std::uint32_t> one_by_one(const std::string& text, MarkBytes bytes) {
  std::vector<std::uint32_t> marks;
  for (std::uint32_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\n' || text[i] == bytes.delimiter || text[i] == bytes.quote) marks.push_back(i);
  }
  return marks;
}

TEST(Marks, EveryInstructionSetFindsWhatALookAtEachByteFinds) {
  Rng rng(5);
  const std::string alphabets[] = {"0123456789,\n", ",\n\"", "abcdefghijklmnopqrstuvwxyz,",
                                   std::string("\0\xff\x80\n;\t", 6)};
  for (const char* isa : {"v2", "v3", "v4"}) {
    const FindMarks find = find_marks_for(isa);
    if (find == nullptr) continue;  // this machine lacks it
    for (int round = 0; round < 400; ++round) {
      const std::string& letters = alphabets[rng.below(4)];
      std::string text(rng.below(300), ' ');
      for (char& c : text) c = letters[rng.below(letters.size())];
      const MarkBytes bytes{",;\t"[rng.below(3)], rng.chance(0.5) ? '"' : '\n'};
      std::vector<std::uint32_t> marks(text.size() + kMarksSlack);
      marks.resize(find(text.data(), text.size(), bytes, marks.data()));
      ASSERT_EQ(marks, one_by_one(text, bytes)) << isa << ", round " << round;
    }
  }
}

TEST(Marks, UnknownInstructionSetHasNone) { EXPECT_EQ(find_marks_for("v9"), nullptr); }

}  // namespace
}  // namespace meander::data
