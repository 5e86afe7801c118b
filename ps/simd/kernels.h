// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

namespace meander::ps {

// The constants of one push, worked out once. w: weights, s: state, g: gradient + l2 * w; per
// element unless noted. `width` weights, then the state. soft(x, a): x, nearer to 0 by a.
struct UpdateParams {
  std::uint32_t width = 0;
  float rate = 0;
  float l2 = 0;
  float epsilon = 0;
  // Adam: m += first * (g - m); v += second * (g^2 - v); w -= rate * m / (sqrt(v) * root +
  // epsilon).
  float first = 0, second = 0, root = 1;
  float keep = 1;  // AdamW: w *= keep, before
  float l1 = 0;
  float beta = 0;          // FTRL
  float clip_row = 0;      // of clip()
  float compensation = 0;  // of compensate()
};

// Updates n rows in order: rows[i] by gradients[i]. A row may occur more than once. Rows are
// aligned to floats only. No products and sums are fused and the one sum (row-wise Adagrad) has a
// fixed order, so each level gives the same bits: it does not matter which machine a lane runs on.
using UpdateRows = void (*)(float* const* rows, const float* const* gradients, std::size_t n,
                            const UpdateParams& params);

struct Kernels {
  const char* isa;
  // w = soft(w - a * g, a * l1), of SGD and the Adagrads; a: the rate, or what divides g.
  UpdateRows sgd;              // a = rate
  UpdateRows adagrad;          // s += g^2;        a = rate / (sqrt(s) + epsilon)
  UpdateRows rowwise_adagrad;  // s += mean(g^2);  a = rate / (sqrt(s) + epsilon)   (one s)
  UpdateRows adam;             // s: all of m, then all of v
  UpdateRows momentum;         // s = first * s + g;           w -= rate * s
  UpdateRows rmsprop;          // s += second * (g^2 - s);     w -= rate * g / (sqrt(s) + epsilon)
  UpdateRows ftrl;             // s: all sums of squares, then all of z
  // Where a gradient's norm is above clip_row, writes it scaled down to that into `scratch`, (n,
  // width), and points to it there instead.
  void (*clip)(const float** gradients, float* scratch, std::size_t n, const UpdateParams& params);
  // Writes g + compensation * g^2 * (w - pulled) into `scratch`, (n, width), and points to it.
  void (*compensate)(const float** gradients, const float* const* rows, const float* const* pulled,
                     float* scratch, std::size_t n, const UpdateParams& params);
};

// The best level that this machine runs; MEANDER_ISA=v2|v3|v4 asks for a lower one.
const Kernels& kernels();
// A level by name; null when this machine does not run it.
const Kernels* kernels_for(const char* isa);

}  // namespace meander::ps
