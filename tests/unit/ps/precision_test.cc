// SPDX-License-Identifier: Apache-2.0
#include "ps/precision.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "common/rng.h"

namespace meander::ps {
namespace {

float from_bits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

float round_trip(float value, wire::Precision precision) {
  std::byte bytes[4];
  encode(&value, 1, precision, bytes);
  decode(bytes, 1, precision, &value);
  return value;
}

// The nearest of all 65,536 values of a format; of two equally near ones that with an even last
// bit.
class Nearest {
 public:
  explicit Nearest(wire::Precision precision) {
    for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
      const auto narrow = static_cast<std::uint16_t>(bits);
      float value;
      decode(reinterpret_cast<const std::byte*>(&narrow), 1, precision, &value);
      if (std::isfinite(value) && !std::signbit(value)) values_.push_back(value);
    }
    // Positive numbers rise with their bits.
    for (std::size_t i = 1; i < values_.size(); ++i) EXPECT_LT(values_[i - 1], values_[i]);
  }
  float of(float value) const {
    const double x = std::fabs(double{value});
    const auto above = std::lower_bound(values_.begin(), values_.end(), x);
    std::size_t i = static_cast<std::size_t>(above - values_.begin());
    if (i == values_.size()) i = values_.size() - 1;
    if (i > 0) {
      const double up = values_[i] - x, down = x - values_[i - 1];
      if (down < up || (down == up && i % 2 == 1)) --i;
    }
    return std::copysign(values_[i], value);
  }
  float largest() const { return values_.back(); }

 private:
  std::vector<float> values_;
};

class Precision : public ::testing::TestWithParam<wire::Precision> {};

TEST_P(Precision, RoundsToTheNearestAndTiesToEven) {
  const Nearest nearest(GetParam());
  Rng rng(1);
  for (int i = 0; i < 20'000; ++i) {
    const float value = from_bits(static_cast<std::uint32_t>(rng.next()));
    if (!(std::fabs(value) <= nearest.largest())) continue;
    ASSERT_EQ(round_trip(value, GetParam()), nearest.of(value)) << value;
  }
  for (int i = 0; i < 2000; ++i) {  // exactly between two neighbours, and the values themselves
    const float a =
        nearest.of(static_cast<float>(std::ldexp(rng.uniform(), int(rng.below(40)) - 26)));
    const float b = nearest.of(std::nextafter(a * 1.01f, 2 * a));
    ASSERT_EQ(round_trip(a, GetParam()), a);
    ASSERT_EQ(round_trip((a + b) / 2, GetParam()), nearest.of((a + b) / 2));
  }
}

TEST_P(Precision, WhatIsNoNumberStaysNone) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(round_trip(kInfinity, GetParam()), kInfinity);
  EXPECT_EQ(round_trip(-kInfinity, GetParam()), -kInfinity);
  EXPECT_EQ(round_trip(std::numeric_limits<float>::max(), GetParam()), kInfinity);
  EXPECT_TRUE(std::isnan(round_trip(from_bits(0x7f800001), GetParam())));
  EXPECT_TRUE(std::isnan(round_trip(from_bits(0xffffffff), GetParam())));
  EXPECT_TRUE(std::signbit(round_trip(-0.0f, GetParam())));
}

TEST_P(Precision, EachInstructionSetGivesTheSameBits) {
  Rng rng(2);
  std::vector<float> values(1003);
  for (float& v : values) {
    do {
      v = from_bits(static_cast<std::uint32_t>(rng.next()));
    } while (std::isnan(v));
  }
  const bool is_bf16 = GetParam() == wire::BF16;
  const auto convert = [&](const NarrowKernels& k, std::size_t n) {
    std::pair<std::vector<std::uint16_t>, std::vector<float>> out{n, n};
    (is_bf16 ? k.to_bf16 : k.to_fp16)(values.data(), n, out.first.data());
    (is_bf16 ? k.from_bf16 : k.from_fp16)(out.first.data(), n, out.second.data());
    return out;
  };
  for (const char* isa : {"v3", "v4"}) {
    const NarrowKernels* kernels = narrow_kernels_for(isa);
    if (kernels == nullptr) continue;
    for (std::size_t n : {0, 1, 7, 8, 31, 36, 1003}) {
      EXPECT_EQ(convert(*kernels, n), convert(*narrow_kernels_for("v2"), n)) << isa << ", " << n;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, Precision, ::testing::Values(wire::BF16, wire::FP16),
                         [](const auto& info) { return Precision_Name(info.param); });

TEST(PrecisionF32, IsACopy) {
  const float value = from_bits(0x00000001);
  EXPECT_EQ(round_trip(value, wire::F32), value);
  EXPECT_EQ(bytes_of(wire::F32), 4u);
  EXPECT_EQ(bytes_of(wire::BF16), 2u);
}

}  // namespace
}  // namespace meander::ps
