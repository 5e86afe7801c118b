// SPDX-License-Identifier: Apache-2.0
#include "data/fields.h"

#include <gtest/gtest.h>

#include <string>

#include "common/rng.h"

namespace meander::data {
namespace {

// `text` with bytes before it that would change the value if they were taken for part of it.
std::string padded(const std::string& text) { return std::string(16, '7') + text; }

TEST(Fields, DigitsAreReadAsTheNumberTheyAre) {
  Rng rng(1);
  for (int round = 0; round < 20'000; ++round) {
    std::string text;
    for (std::uint64_t n = 1 + rng.below(16); n > 0; --n) {
      text += static_cast<char>('0' + rng.below(10));
    }
    const std::string all = padded(text);
    std::uint64_t fast = 0, slow = 1;
    ASSERT_TRUE(parse_digits(std::string_view(all).substr(16), fast)) << text;
    ASSERT_TRUE(parse_key(text, slow));
    ASSERT_EQ(fast, slow) << text;
  }
}

TEST(Fields, WhatIsNotOneToSixteenDigitsIsLeftToTheSlowPath) {
  std::uint64_t value = 0;
  for (const std::string text : {"", "12345678901234567", "-1", "+1", " 1", "1 ", "1.5", "1e3"}) {
    EXPECT_FALSE(parse_digits(std::string_view(padded(text)).substr(16), value)) << text;
  }
  // Any byte but a digit, at any place of any length.
  for (std::size_t size = 1; size <= 16; ++size) {
    for (std::size_t at = 0; at < size; ++at) {
      for (int byte = 0; byte < 256; ++byte) {
        if (byte >= '0' && byte <= '9') continue;
        std::string text(size, '5');
        text[at] = static_cast<char>(byte);
        const std::string all = padded(text);
        ASSERT_FALSE(parse_digits(std::string_view(all).substr(16), value)) << size << " " << byte;
      }
    }
  }
}

}  // namespace
}  // namespace meander::data
