// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/xml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/rng.h"

namespace meander::checkpoint {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(Xml, FindsElementsInOrderWithWhatTheyHold) {
  const std::string xml = "<?xml?><List xmlns=\"u\"><C><Key>a</Key></C><C><Key>b</Key></C></List>";
  EXPECT_THAT(xml_elements(xml, "C"), ElementsAre("<Key>a</Key>", "<Key>b</Key>"));
  EXPECT_EQ(xml_text(xml, "Key"), "a");
  EXPECT_EQ(xml_text(xml, "absent"), "");
  EXPECT_THAT(xml_elements("<C></C><Key/>", "Key"), IsEmpty());
  EXPECT_THAT(xml_elements("<C>cut off", "C"), IsEmpty());
}

TEST(Xml, UnescapesEntitiesAndNumbersAndLeavesTheRest) {
  EXPECT_EQ(xml_unescape("&lt;a&gt; &amp; &quot;b&quot; &apos;"), "<a> & \"b\" '");
  EXPECT_EQ(xml_unescape("&#38;&#x26;&#xe9;&#x1234;&#x1F600;"), "&&\u00e9\u1234\U0001F600");
  EXPECT_EQ(xml_unescape("&unknown; & &#; &#xZZ; &#x110000; &"),
            "&unknown; & &#; &#xZZ; &#x110000; &");
}

TEST(Xml, WhatIsEscapedComesBack) {
  Rng rng(7);
  for (int round = 0; round < 200; ++round) {
    std::string text;
    for (int i = 0; i < 20; ++i) text += "<>&\"'a;#x"[rng.below(9)];
    EXPECT_EQ(xml_unescape(xml_escape(text)), text);
    EXPECT_EQ(xml_text("<T>" + xml_escape(text) + "</T>", "T"), text);
  }
}

}  // namespace
}  // namespace meander::checkpoint
