// SPDX-License-Identifier: Apache-2.0
#include "nn/simd/kernels.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nn/simd/mixed.h"

namespace meander::nn {
namespace {

using Floats = std::vector<float>;

class KernelsTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    table_ = kernels_for(GetParam());
    if (const mixed::Products* products = mixed::products_for(GetParam())) {
      mixed_ = with_products(*kernels_for("v4"), *products);
      table_ = &mixed_;
    }
    if (table_ == nullptr) GTEST_SKIP() << "this machine does not run " << GetParam();
  }
  // In mixed precision: of numbers that bfloat16 holds exactly, so products may be compared.
  Floats random(std::size_t n, float low = -1, float high = 1) {
    std::uniform_real_distribution<float> draw(low, high);
    Floats x(n);
    for (float& v : x) v = table_ == &mixed_ ? bfloat16(draw(engine_)) : draw(engine_);
    return x;
  }
  static float bfloat16(float x) {
    auto bits = std::bit_cast<std::uint32_t>(x);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    return std::bit_cast<float>(bits);
  }
  const Kernels& kernels() const { return *table_; }

  const Kernels* table_ = nullptr;
  Kernels mixed_;
  std::mt19937 engine_{7};
};

// Sums of k products of numbers below 1 in float32.
double tolerance(int k) { return 1e-6 * (1 + std::sqrt(k)); }

constexpr float kMark = 12345.0f;  // in memory that a kernel must leave alone

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

struct Shape {
  int m, k, n;
};
const Shape kShapes[] = {{1, 1, 1},   {1, 3, 2},    {2, 36, 36},  {3, 5, 7},     {5, 9, 15},
                         {7, 4, 16},  {8, 36, 72},  {9, 17, 17},  {11, 36, 108}, {13, 72, 100},
                         {16, 2, 24}, {17, 40, 80}, {19, 80, 40}, {25, 100, 50}, {97, 7, 33},
                         {200, 6, 9}, {31, 64, 65}, {4, 10, 49},  {6, 3, 64}};

Floats naive_product(const Floats& a, int lda, const Floats& b, int m, int k, int n) {
  Floats c(m * n);
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      double sum = 0;
      for (int x = 0; x < k; ++x) sum += double{a[i * lda + x]} * b[x * n + j];
      c[i * n + j] = sum;
    }
  }
  return c;
}

TEST_P(KernelsTest, ProductMatchesNaiveOneAtOddShapesAndStrides) {
  for (const auto& [m, k, n] : kShapes) {
    const int lda = k + 3, ldc = n + 2;
    const Floats a = random(m * lda), b = random(k * n), bias = random(n);
    Floats packed(kernels().packed_floats(k, n)), c(m * ldc, kMark);
    kernels().pack(b.data(), n, k, n, false, packed.data());
    kernels().gemm(a.data(), lda, packed.data(), bias.data(), c.data(), ldc, m, k, n, false);
    const Floats expected = naive_product(a, lda, b, m, k, n);
    for (int i = 0; i < m; ++i) {
      for (int j = 0; j < n; ++j) {
        EXPECT_NEAR(c[i * ldc + j], expected[i * n + j] + bias[j], tolerance(k));
      }
      for (int j = n; j < ldc; ++j) EXPECT_EQ(c[i * ldc + j], kMark) << "beyond the columns";
    }
    kernels().gemm(a.data(), lda, packed.data(), nullptr, c.data(), ldc, m, k, n, true);
    for (int i = 0; i < m; ++i) {
      for (int j = 0; j < n; ++j) {
        EXPECT_NEAR(c[i * ldc + j], 2 * expected[i * n + j] + bias[j], 2 * tolerance(k));
      }
    }
  }
}

TEST_P(KernelsTest, TransposedPackEqualsPackOfTranspose) {
  for (const auto& [m, k, n] : kShapes) {
    const Floats b = random(k * n);
    Floats transposed(k * n);
    for (int i = 0; i < k; ++i) {
      for (int j = 0; j < n; ++j) transposed[j * k + i] = b[i * n + j];
    }
    Floats one(kernels().packed_floats(k, n)), other(one.size());
    kernels().pack(b.data(), n, k, n, false, one.data());
    kernels().pack(transposed.data(), k, k, n, true, other.data());
    EXPECT_EQ(one, other);
  }
}

TEST_P(KernelsTest, ProductStartsFromSharedRows) {
  for (const int share : {1, 2, 3}) {
    const int m = 6 * share, k = 5, n = 21;
    const Floats a = random(m * k), b = random(k * n), init = random(6 * n);
    Floats packed(kernels().packed_floats(k, n)), c(m * n), start(m * n);
    kernels().pack(b.data(), n, k, n, false, packed.data());
    kernels().gemm_from(a.data(), k, packed.data(), init.data(), n, share, c.data(), n, m, k, n);
    kernels().gemm_from(nullptr, 0, packed.data(), init.data(), n, share, start.data(), n, m, 0, n);
    const Floats expected = naive_product(a, k, b, m, k, n);
    for (int i = 0; i < m * n; ++i) {
      const float from = init[i / n / share * n + i % n];
      EXPECT_NEAR(c[i], from + expected[i], tolerance(k));
      EXPECT_EQ(start[i], from);
    }
  }
}

TEST_P(KernelsTest, RowOfProductDoesNotDependOnItsPlaceOrOnOthers) {
  const int m = 37, k = 36, n = 100;
  const Floats a = random(m * k), b = random(k * n);
  Floats packed(kernels().packed_floats(k, n)), all(m * n), one(n);
  kernels().pack(b.data(), n, k, n, false, packed.data());
  kernels().gemm(a.data(), k, packed.data(), nullptr, all.data(), n, m, k, n, false);
  for (int i = 0; i < m; ++i) {
    kernels().gemm(&a[i * k], k, packed.data(), nullptr, one.data(), n, 1, k, n, false);
    EXPECT_THAT(one, ::testing::ElementsAreArray(&all[i * n], n));
  }
}

TEST_P(KernelsTest, WeightGradientMatchesNaiveOne) {
  for (const auto& [m, k, n] : kShapes) {
    for (const int gap : {0, 1, 20}) {
      const int lda = k + 1, ldc = n + gap, ldw = n + 2;
      // Exactly as long as the last row: a read past it is seen by a sanitizer.
      const Floats a = random((m - 1) * lda + k), dc = random((m - 1) * ldc + n);
      const Floats before = random(k * ldw);
      Floats dw = before;
      kernels().gemm_tn(a.data(), lda, dc.data(), ldc, dw.data(), ldw, m, k, n);
      for (int i = 0; i < k; ++i) {
        for (int j = 0; j < ldw; ++j) {
          double sum = 0;
          for (int r = 0; j < n && r < m; ++r) sum += double{a[r * lda + i]} * dc[r * ldc + j];
          EXPECT_NEAR(dw[i * ldw + j], before[i * ldw + j] + sum, tolerance(m));
        }
      }
    }
  }
}

TEST_P(KernelsTest, ColumnSumAddsRows) {
  for (const auto& [m, k, n] : kShapes) {
    const Floats x = random(m * (n + 1)), before = random(n);
    Floats out = before;
    kernels().column_sum(x.data(), n + 1, m, n, out.data());
    for (int j = 0; j < n; ++j) {
      double sum = before[j];
      for (int i = 0; i < m; ++i) sum += x[i * (n + 1) + j];
      EXPECT_NEAR(out[j], sum, tolerance(m));
    }
  }
}

TEST_P(KernelsTest, FunctionsAreWithinThreeTenMillionths) {
  Floats x;
  for (int i = -100000; i <= 100000; ++i) x.push_back(i * 2e-4f);
  for (const float far : {-1e30f, -300.0f, -88.0f, 88.0f, 300.0f, 1e30f}) x.push_back(far);
  Floats s(x.size()), t(x.size());
  kernels().sigmoid(x.data(), s.data(), x.size());
  kernels().tanh(x.data(), t.data(), x.size());
  double worst_s = 0, worst_t = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    worst_s = std::max(worst_s, std::abs(s[i] - sigmoid(x[i])));
    worst_t = std::max(worst_t, std::abs(t[i] - std::tanh(double{x[i]})));
  }
  EXPECT_LT(worst_s, 3e-7);
  EXPECT_LT(worst_t, 3e-7);
}

TEST_P(KernelsTest, ExponentialHasSmallRelativeErrorAndEnds) {
  Floats x;
  for (int i = -86000; i <= 87000; ++i) x.push_back(i * 1e-3f);
  Floats e(x.size());
  kernels().exp(x.data(), e.data(), x.size());
  double worst = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    worst = std::max(worst, std::abs(e[i] / std::exp(double{x[i]}) - 1));
  }
  EXPECT_LT(worst, 3e-7);
  Floats ends = {-1e30f, -100.0f, 0.0f, 1e30f};
  kernels().exp(ends.data(), ends.data(), ends.size());
  EXPECT_EQ(ends[0], 0.0f);
  EXPECT_EQ(ends[1], 0.0f);
  EXPECT_EQ(ends[2], 1.0f);
  EXPECT_TRUE(std::isfinite(ends[3]));
}

TEST_P(KernelsTest, SoftmaxOfTilesIsThatOfTheWholeRow) {
  constexpr int kRows = 3, kStride = 150;
  for (const int n : {1, 7, 16, 64, 70, 145}) {
    Floats x = random(kRows * kStride, -30, 30), top(kRows, -5.0f), keep(kRows), sum(kRows, 2.0f);
    x[kStride] = -std::numeric_limits<float>::infinity();
    Floats e = x;
    Floats top_before = top;
    kernels().softmax_rows(e.data(), kStride, top.data(), keep.data(), sum.data(), kRows, n);
    for (int r = 0; r < kRows; ++r) {
      const float* row = &x[r * kStride];
      EXPECT_EQ(top[r], std::max(-5.0f, *std::max_element(row, row + n)));
      EXPECT_NEAR(keep[r], std::exp(top_before[r] - top[r]), 1e-6);
      double total = 2 * std::exp(double{top_before[r]} - top[r]);
      for (int j = 0; j < n; ++j) {
        EXPECT_NEAR(e[r * kStride + j], std::exp(double{row[j]} - top[r]), 1e-6);
        total += std::exp(double{row[j]} - top[r]);
      }
      EXPECT_NEAR(sum[r], total, 1e-5 * total);
      EXPECT_EQ(e[r * kStride + n], row[n]) << "written past the row";
    }
    Floats p = x;
    kernels().exp_rows(p.data(), kStride, top.data(), 0.5f, kRows, n);
    for (int i = 0; i < kRows * kStride; ++i) {
      const bool is_inside = i % kStride < n;
      ASSERT_EQ(p[i], is_inside ? 0.5f * e[i] : x[i]) << i;
    }
  }
}

TEST_P(KernelsTest, FunctionsAreExactAtZeroAndKeepNan) {
  Floats x(5, 0.0f), y(5);
  x[3] = std::numeric_limits<float>::quiet_NaN();
  kernels().sigmoid(x.data(), y.data(), 5);
  EXPECT_EQ(y[0], 0.5f);
  EXPECT_TRUE(std::isnan(y[3]));
  kernels().tanh(x.data(), y.data(), 5);
  EXPECT_EQ(y[0], 0.0f);
  EXPECT_TRUE(std::isnan(y[3]));
  kernels().exp(x.data(), y.data(), 5);
  EXPECT_EQ(y[4], 1.0f);
  EXPECT_TRUE(std::isnan(y[3]));
}

TEST_P(KernelsTest, TailOfFlatArrayEqualsItsMiddleBitForBit) {
  const Floats x = random(67, -5, 5);
  for (const auto f : {kernels().sigmoid, kernels().tanh, kernels().exp}) {
    Floats whole(67);
    f(x.data(), whole.data(), 67);
    for (std::size_t i = 0; i < 67; ++i) {
      float alone;
      f(&x[i], &alone, 1);
      EXPECT_EQ(alone, whole[i]);
    }
  }
}

TEST_P(KernelsTest, AxpyAndSigmoidBackwardMatchFormulas) {
  for (const std::size_t n : {1, 7, 16, 33, 100}) {
    const Floats x = random(n), before = random(n);
    Floats y = before, d = before;
    kernels().axpy(0.3f, x.data(), y.data(), n);
    kernels().sigmoid_backward(x.data(), d.data(), n);
    for (std::size_t i = 0; i < n; ++i) {
      EXPECT_NEAR(y[i], before[i] + 0.3 * x[i], 1e-6);
      EXPECT_NEAR(d[i], before[i] * x[i] * (1 - x[i]), 1e-6);
    }
  }
}

TEST_P(KernelsTest, OutputUnitForwardAndBackward) {
  for (const auto& [m, unused, n] : kShapes) {
    const int ld = n + 1;
    const Floats y = random(m * ld, 0, 1), w = random(n), dout = random(m), before = random(n);
    Floats out(m), dz = y, dw = before;
    kernels().row_dot(y.data(), ld, w.data(), 0.25f, out.data(), m, n);
    kernels().row_dot_sigmoid_backward(dout.data(), w.data(), dz.data(), ld, dw.data(), m, n);
    for (int i = 0; i < m; ++i) {
      double sum = 0.25;
      for (int j = 0; j < n; ++j) {
        const double s = y[i * ld + j];
        sum += s * w[j];
        EXPECT_NEAR(dz[i * ld + j], dout[i] * w[j] * s * (1 - s), 1e-6);
      }
      EXPECT_NEAR(out[i], sum, tolerance(n));
    }
    for (int j = 0; j < n; ++j) {
      double sum = before[j];
      for (int i = 0; i < m; ++i) sum += double{dout[i]} * y[i * ld + j];
      EXPECT_NEAR(dw[j], sum, tolerance(m));
    }
  }
}

TEST_P(KernelsTest, ShortRowsAreCopiedAddedGatheredAndScattered) {
  const std::vector<std::uint32_t> keys = {4, 0, 4, 2, 5};
  const int m = 5, all = 6;
  for (const int n : {1, 4, 7, 18, 36, 49}) {
    const int ldf = n + 3, ldt = n + 1;
    const Floats from = random(all * ldf), before = random(all * ldt);
    Floats copied = before, added = before, gathered = before, scattered = before;
    kernels().copy_rows(from.data(), ldf, copied.data(), ldt, m, n);
    kernels().add_rows(from.data(), ldf, added.data(), ldt, m, n);
    kernels().gather_rows(from.data(), ldf, keys.data(), gathered.data(), ldt, m, n);
    kernels().scatter_add_rows(from.data(), ldf, keys.data(), scattered.data(), ldt, m, n);
    Floats e_copied = before, e_added = before, e_gathered = before, e_scattered = before;
    for (int i = 0; i < m; ++i) {
      for (int j = 0; j < n; ++j) {
        e_copied[i * ldt + j] = from[i * ldf + j];
        e_added[i * ldt + j] += from[i * ldf + j];
        e_gathered[i * ldt + j] = from[keys[i] * ldf + j];
        e_scattered[keys[i] * ldt + j] += from[i * ldf + j];
      }
    }
    EXPECT_EQ(copied, e_copied) << n;
    EXPECT_EQ(added, e_added) << n;
    EXPECT_EQ(gathered, e_gathered) << n;
    EXPECT_EQ(scattered, e_scattered) << n;
  }
}

// Values of a behind its K columns, and rows of weights that only fill a vector up, do not count.
TEST_P(KernelsTest, ProductReadsNothingBehindItsOperands) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const auto& [m, k, n] : kShapes) {
    const int lda = k + 5;
    Floats a = random(m * lda), b = random(k * n), c(m * n);
    for (int i = 0; i < m; ++i) std::fill_n(&a[i * lda + k], lda - k, nan);
    Floats packed(kernels().packed_floats(k, n));
    kernels().pack(b.data(), n, k, n, false, packed.data());
    kernels().gemm(a.data(), lda, packed.data(), nullptr, c.data(), n, m, k, n, false);
    for (float x : c) EXPECT_TRUE(std::isfinite(x)) << m << " " << k << " " << n;
  }
}

TEST_P(KernelsTest, SharedRowsPoolAndSum) {
  for (const int share : {1, 2, 3}) {
    for (const int e : {1, 5, 16, 36}) {
      const int m = 7, p = m * share;
      const Floats key = random(m * e), q = random(p * e);
      Floats sum(m * e), pooled = q;
      kernels().sum_shared(q.data(), e, sum.data(), e, m, share, e);
      const Floats weight = random(p);
      kernels().pool_add(weight.data(), key.data(), e, pooled.data(), e, m, share, e);
      Floats expected_sum(m * e);
      for (int i = 0; i < p * e; ++i) {
        const int shared = i / e / share * e + i % e;
        EXPECT_NEAR(pooled[i], q[i] + weight[i / e] * key[shared], 1e-6);
        expected_sum[shared] += q[i];
      }
      for (int i = 0; i < m * e; ++i) EXPECT_NEAR(sum[i], expected_sum[i], 1e-6);
    }
  }
}

TEST_P(KernelsTest, SharedRowsGetTheirGradients) {
  for (const int share : {1, 2, 3}) {
    for (const int e : {1, 5, 16, 36}) {
      const int m = 7, p = m * share;
      const Floats key = random(m * e);
      const Floats weight = random(p), dout = random(p * e);
      Floats dweight(p, 1.0f), dpooled(m * e, 1.0f);
      kernels().pool_backward(weight.data(), key.data(), e, dout.data(), e, dweight.data(),
                              dpooled.data(), e, m, share, e);
      Floats sum_pooled(m * e, 1.0f), dot(p, 1.0f);
      for (int i = 0; i < p * e; ++i) {
        const int shared = i / e / share * e + i % e;
        sum_pooled[shared] += weight[i / e] * dout[i];
        dot[i / e] += dout[i] * key[shared];
      }
      for (int i = 0; i < m * e; ++i) EXPECT_NEAR(dpooled[i], sum_pooled[i], 1e-6);
      for (int i = 0; i < p; ++i) EXPECT_NEAR(dweight[i], dot[i], tolerance(e));
    }
  }
}

// A product with the sum tells what the sum's packed form holds.
TEST_P(KernelsTest, PackedSumsScaleRowsAndColumns) {
  const double rounding = table_ == &mixed_ ? 0x1p-8 : 0;  // of a sum, to bfloat16
  for (const auto& [m, k, n] : kShapes) {
    const Floats a = random(m * k), x = random(k * n), y = random(k * n);
    const Floats rows = random(k), columns = random(n);
    const std::size_t size = kernels().packed_floats(k, n);
    Floats px(size), py(size), sum(size, kMark), c(m * n);
    kernels().pack(x.data(), n, k, n, false, px.data());
    kernels().pack(y.data(), n, k, n, false, py.data());
    for (const bool by_rows : {true, false}) {
      Floats expected_sum(k * n);
      for (int i = 0; i < k * n; ++i) {
        expected_sum[i] = x[i] + (by_rows ? rows[i / n] : columns[i % n]) * y[i];
      }
      if (by_rows) {
        kernels().pack_add_rows(px.data(), py.data(), rows.data(), k, n, sum.data());
      } else {
        kernels().pack_add_columns(px.data(), py.data(), columns.data(), k, n, sum.data());
      }
      kernels().gemm(a.data(), k, sum.data(), nullptr, c.data(), n, m, k, n, false);
      const Floats expected = naive_product(a, k, expected_sum, m, k, n);
      for (int i = 0; i < m * n; ++i) {
        EXPECT_NEAR(c[i], expected[i], tolerance(k) + 2 * rounding * std::sqrt(k));
      }
    }
  }
}

TEST_P(KernelsTest, ScaledRowsGetTheirGradients) {
  for (const int n : {1, 5, 16, 36, 80}) {
    const int k = 7;
    const Floats dw = random(k * n), b = random(k * n), scale = random(k);
    Floats da(k * n, 1.0f), db(k * n, 1.0f), dscale(k, 1.0f), expected(k, 1.0f);
    kernels().scaled_rows_backward(dw.data(), b.data(), scale.data(), da.data(), db.data(),
                                   dscale.data(), k, n);
    for (int i = 0; i < k * n; ++i) {
      EXPECT_NEAR(da[i], 1 + dw[i], 1e-6);
      EXPECT_NEAR(db[i], 1 + scale[i / n] * dw[i], 1e-6);
      expected[i / n] += b[i] * dw[i];
    }
    for (int i = 0; i < k; ++i) EXPECT_NEAR(dscale[i], expected[i], tolerance(n));
    const Floats before = dscale;
    kernels().scaled_rows_backward(dw.data(), b.data(), scale.data(), da.data(), db.data(), nullptr,
                                   k, n);
    EXPECT_EQ(dscale, before);
  }
}

TEST_P(KernelsTest, GruStepMatchesFormulas) {
  for (const int h : {1, 5, 16, 36, 64}) {
    const int m = 9;
    const Floats p = random(m * 3 * h, -3, 3), hp = random(m * h), a = random(m, 0, 1);
    Floats gates = p, rh(m * h), out(m * h);
    kernels().gru_gates(gates.data(), 3 * h, hp.data(), h, rh.data(), h, m, h);
    kernels().gru_state(gates.data(), 3 * h, hp.data(), h, a.data(), out.data(), h, m, h);
    const Floats dh_in = random(m * h), dout = random(m * h), drh = random(m * h);
    Floats d = gates, dh = dh_in, da(m, 1.0f);
    kernels().gru_state_backward(d.data(), 3 * h, hp.data(), h, a.data(), dout.data(), h, dh.data(),
                                 da.data(), m, h);
    kernels().gru_reset_backward(d.data(), 3 * h, hp.data(), h, drh.data(), dh.data(), m, h);
    for (int i = 0; i < m; ++i) {
      double da_sum = 1;
      for (int j = 0; j < h; ++j) {
        const double r = sigmoid(p[i * 3 * h + j]), u = sigmoid(p[i * 3 * h + h + j]);
        const double c = std::tanh(double{p[i * 3 * h + 2 * h + j]}), before = hp[i * h + j];
        const double v = (1 - a[i]) * u, g = double{dh_in[i * h + j]} + dout[i * h + j];
        EXPECT_NEAR(rh[i * h + j], r * before, 1e-6);
        EXPECT_NEAR(out[i * h + j], v * before + (1 - v) * c, 1e-6);
        const double dv = g * (before - c), flow = drh[i * h + j] * r;
        EXPECT_NEAR(d[i * 3 * h + 2 * h + j], g * (1 - v) * (1 - c * c), 3e-6);
        EXPECT_NEAR(d[i * 3 * h + h + j], dv * (1 - a[i]) * u * (1 - u), 3e-6);
        EXPECT_NEAR(d[i * 3 * h + j], flow * before * (1 - r), 3e-6);
        EXPECT_NEAR(dh[i * h + j], g * v + flow, 3e-6);
        da_sum -= dv * u;
      }
      EXPECT_NEAR(da[i], da_sum, 1e-5);
    }
  }
}

TEST_P(KernelsTest, LstmStepMatchesFormulas) {
  for (const int h : {1, 5, 16, 36, 64}) {
    for (const int share : {1, 2}) {
      const int m = 3 * share;
      const Floats p = random(m * 4 * h, -3, 3), cp = random(3 * h);
      Floats gates = p, c(m * h), tc(m * h), out(m * h);
      kernels().lstm_state(gates.data(), cp.data(), share, c.data(), tc.data(), out.data(), h, m,
                           h);
      const Floats dout = random(m * h), dh = random(m * h), dc_in = random(m * h);
      Floats d = gates, dc = dc_in;
      kernels().lstm_state_backward(d.data(), cp.data(), share, tc.data(), dout.data(), h,
                                    dh.data(), dc.data(), m, h);
      for (int x = 0; x < m * h; ++x) {
        const int row = x / h, at = row * 4 * h + x % h;
        const double i = sigmoid(p[at]), j = std::tanh(double{p[at + h]});
        const double f = sigmoid(p[at + 2 * h]), o = sigmoid(p[at + 3 * h]);
        const double before = cp[row / share * h + x % h];
        const double cell = f * before + i * j, t = std::tanh(cell);
        EXPECT_NEAR(c[x], cell, 1e-6);
        EXPECT_NEAR(tc[x], t, 1e-6);
        EXPECT_NEAR(out[x], o * t, 1e-6);
        const double g = double{dout[x]} + dh[x], dcell = dc_in[x] + g * o * (1 - t * t);
        EXPECT_NEAR(d[at], dcell * j * i * (1 - i), 3e-6);
        EXPECT_NEAR(d[at + h], dcell * i * (1 - j * j), 3e-6);
        EXPECT_NEAR(d[at + 2 * h], dcell * before * f * (1 - f), 3e-6);
        EXPECT_NEAR(d[at + 3 * h], g * t * o * (1 - o), 3e-6);
        EXPECT_NEAR(dc[x], dcell * f, 3e-6);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Levels, KernelsTest, ::testing::Values("v2", "v3", "v4", "bf16", "amx"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(KernelsTest, MixedProductRoundsOperandsToNearestEven) {
  if (table_ != &mixed_) GTEST_SKIP() << "of mixed precision";
  const float close = 1.0f + 0x1p-9f, tie = 1.0f + 0x1p-8f, odd_tie = 1.0f + 0x3p-8f;
  const Floats a = {close, tie, odd_tie, 1, -tie}, b = {1, 1, 1, odd_tie, 1};
  Floats packed(kernels().packed_floats(1, 1));
  for (std::size_t i = 0; i < a.size(); ++i) {
    float c = kMark;
    kernels().pack(&b[i], 1, 1, 1, false, packed.data());
    kernels().gemm(&a[i], 1, packed.data(), nullptr, &c, 1, 1, 1, 1, false);
    EXPECT_EQ(c, bfloat16(a[i]) * bfloat16(b[i])) << i;
    float dw = 0;
    kernels().gemm_tn(&a[i], 1, &b[i], 1, &dw, 1, 1, 1, 1);
    EXPECT_EQ(dw, c) << i;
  }
}

// Deeper and wider than what is rounded at a time.
TEST_P(KernelsTest, LargeProductsAndGradientsMatchNaiveOnes) {
  const int m = 300, k = 1500, n = 300;
  const Floats a = random(m * k), b = random(k * n);
  Floats packed(kernels().packed_floats(k, n)), c(m * n);
  kernels().pack(b.data(), n, k, n, false, packed.data());
  kernels().gemm(a.data(), k, packed.data(), nullptr, c.data(), n, m, k, n, false);
  const Floats expected = naive_product(a, k, b, m, k, n);
  for (int i = 0; i < m * n; ++i) ASSERT_NEAR(c[i], expected[i], 4 * tolerance(k)) << i;
  // dw (k2, n) = a^T c with rows of a: m.
  const int k2 = 290;
  Floats dw(k2 * n), transposed(k2 * m);
  kernels().gemm_tn(a.data(), k, b.data(), n, dw.data(), n, m, k2, n);
  for (int i = 0; i < m; ++i) {
    for (int x = 0; x < k2; ++x) transposed[x * m + i] = a[i * k + x];
  }
  const Floats gradient = naive_product(transposed, m, b, k2, m, n);
  for (int i = 0; i < k2 * n; ++i) ASSERT_NEAR(dw[i], gradient[i], 4 * tolerance(m)) << i;
}

TEST(Kernels, PrecisionHoldsInItsScopeOnly) {
  const Kernels& before = kernels();
  {
    PrecisionScope scope(Precision::kMixed);
    EXPECT_EQ(&kernels(), &kernels(Precision::kMixed));
    PrecisionScope inner(Precision::kF32);
    EXPECT_EQ(&kernels(), &before);
  }
  EXPECT_EQ(&kernels(), &before);
}

TEST(Kernels, UnknownLevelIsRefused) { EXPECT_EQ(kernels_for("v9"), nullptr); }

TEST(Kernels, TableNamesItsLevel) {
  for (const char* isa : {"v2", "v3", "v4"}) {
    if (const Kernels* table = kernels_for(isa)) {
      EXPECT_STREQ(table->isa, isa);
    }
  }
}

}  // namespace
}  // namespace meander::nn
