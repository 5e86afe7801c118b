// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "nn/precision.h"

namespace meander::nn {

namespace mixed {
struct Products;
}

// Which values of an op a step drops: a share `rate` of them (0: none), and the others count
// 1 / (1 - rate) times. Value i's draw is a pure function of (stream, i).
struct Drop {
  std::uint64_t stream = 0;
  float rate = 0;
};

// The entries of a sparse matrix by rows (nn/sparse.h): row r has begin[r] ... begin[r + 1].
struct SparseRows {
  const std::uint32_t *begin, *column;
  const float* value;
};

// Inner loops, one table of them per instruction-set level (x86-64-v2, v3, v4), with products in
// float32 or in mixed precision (nn/simd/mixed.inc). kernels() is the best that this machine runs;
// MEANDER_ISA=v2|v3|v4 in the environment asks for a lower one. Matrices are row-major float32,
// `ld*` floats from a row to the next. Sums run in one fixed order, so a result depends on the
// shape and the level alone, never on threads or alignment; a row of a product does not depend on
// the other rows or on their number either. Nothing allocates. NaN in, NaN out. Loads of
// 64-byte-aligned packed weights are fastest; nothing needs alignment.
struct Kernels {
  const char* isa;

  // ---- products
  // Packed weights: a (K, N) matrix in the order gemm() reads it.
  std::size_t (*packed_floats)(std::int32_t k, std::int32_t n);
  // Packs b (K, N); with `transpose`, b is (N, K) and its transpose is packed.
  void (*pack)(const float* b, std::int32_t ldb, std::int32_t k, std::int32_t n, bool transpose,
               float* packed);
  // out = a + b, all packed (K, N), where row r of b counts scale[r] times, or column j scale[j]
  // times. In mixed precision the sum is rounded again.
  void (*pack_add_rows)(const float* a, const float* b, const float* scale, std::int32_t k,
                        std::int32_t n, float* out);
  void (*pack_add_columns)(const float* a, const float* b, const float* scale, std::int32_t k,
                           std::int32_t n, float* out);
  // c (M, N) = a (M, K) . packed + bias (N; may be null). With `accumulate`, c += instead.
  void (*gemm)(const float* a, std::int32_t lda, const float* packed, const float* bias, float* c,
               std::int32_t ldc, std::int32_t m, std::int32_t k, std::int32_t n, bool accumulate);
  // c (M, N) = init + a (M, K) . packed, where row i of c starts from row i / share of `init`
  // (ldi 0: the same row for all). k may be 0.
  void (*gemm_from)(const float* a, std::int32_t lda, const float* packed, const float* init,
                    std::int32_t ldi, std::int32_t share, float* c, std::int32_t ldc,
                    std::int32_t m, std::int32_t k, std::int32_t n);
  // dw (K, N) += a (M, K)^T . dc (M, N): a weight gradient.
  void (*gemm_tn)(const float* a, std::int32_t lda, const float* dc, std::int32_t ldc, float* dw,
                  std::int32_t ldw, std::int32_t m, std::int32_t k, std::int32_t n);
  // out (N) += the sum of the rows of x (M, N): a bias gradient.
  void (*column_sum)(const float* x, std::int32_t ldx, std::int32_t m, std::int32_t n, float* out);

  // ---- flat arrays
  // y[i] = f(x[i]), n values; y may be x. Absolute error below 3e-7; for exp, relative error.
  void (*sigmoid)(const float* x, float* y, std::size_t n);
  void (*tanh)(const float* x, float* y, std::size_t n);
  void (*exp)(const float* x, float* y, std::size_t n);  // 0 below -87, capped above 88
  // y[i] += a * x[i].
  void (*axpy)(float a, const float* x, float* y, std::size_t n);
  // dy[i] *= y[i] * (1 - y[i]): back through y = sigmoid.
  void (*sigmoid_backward)(const float* y, float* dy, std::size_t n);
  // y[i] = x[i] or y[i] += x[i], value first + i of those that may be dropped; y may be x.
  void (*dropout)(Drop drop, std::uint32_t first, const float* x, float* y, std::size_t n);
  void (*dropout_add)(Drop drop, std::uint32_t first, const float* x, float* y, std::size_t n);

  // ---- a softmax over long rows, tile by tile
  // x (M, N) becomes exp(x - top), where top (M) first grows to the largest value of its row;
  // keep (M) = exp(what top was - top), by which everything made with the former top counts now;
  // sum (M) = sum keep + the sum of the row.
  void (*softmax_rows)(float* x, std::int32_t ldx, float* top, float* keep, float* sum,
                       std::int32_t m, std::int32_t n);
  // x (M, N) = scale exp(x - shift (M)).
  void (*exp_rows)(float* x, std::int32_t ldx, const float* shift, float scale, std::int32_t m,
                   std::int32_t n);

  // ---- an output unit on a sigmoid layer y (M, N): out = y . w + bias
  void (*row_dot)(const float* y, std::int32_t ldy, const float* w, float bias, float* out,
                  std::int32_t m, std::int32_t n);
  // Given dout (M): dw (N) += y^T . dout, then y becomes the gradient before its sigmoid,
  // dout w y (1 - y).
  void (*row_dot_sigmoid_backward)(const float* dout, const float* w, float* y, std::int32_t ldy,
                                   float* dw, std::int32_t m, std::int32_t n);

  // ---- short rows, N floats each
  // to (M, N) = from.
  void (*copy_rows)(const float* from, std::int32_t ldf, float* to, std::int32_t ldt,
                    std::int32_t m, std::int32_t n);
  // to (M, N) += from.
  void (*add_rows)(const float* from, std::int32_t ldf, float* to, std::int32_t ldt, std::int32_t m,
                   std::int32_t n);
  // to (M, N) = rows keys[0], ... keys[M - 1] of `from`.
  void (*gather_rows)(const float* from, std::int32_t ldf, const std::uint32_t* keys, float* to,
                      std::int32_t ldt, std::int32_t m, std::int32_t n);
  // Rows keys[i] of `to` = row i of from (M, N).
  void (*scatter_rows)(const float* from, std::int32_t ldf, const std::uint32_t* keys, float* to,
                       std::int32_t ldt, std::int32_t m, std::int32_t n);
  // Rows keys[i] of `to` += row i of from (M, N), in the order of i.
  void (*scatter_add_rows)(const float* from, std::int32_t ldf, const std::uint32_t* keys,
                           float* to, std::int32_t ldt, std::int32_t m, std::int32_t n);

  // ---- rows that share a row: row i of `shared` belongs to rows i*share ... of `own`
  // out (M, N) = the sum over its rows of own (M*share, N).
  void (*sum_shared)(const float* own, std::int32_t ldo, float* out, std::int32_t ldout,
                     std::int32_t m, std::int32_t share, std::int32_t n);
  // Back from dw, the gradient of a + diag(scale) b, all (K, N) without gaps: da += dw,
  // db += diag(scale) dw, dscale (K; may be null) += the row sums of b * dw.
  void (*scaled_rows_backward)(const float* dw, const float* b, const float* scale, float* da,
                               float* db, float* dscale, std::int32_t k, std::int32_t n);
  // out (M*share, E) += weight (M*share) * key (M, E).
  void (*pool_add)(const float* weight, const float* key, std::int32_t ldk, float* out,
                   std::int32_t ldo, std::int32_t m, std::int32_t share, std::int32_t e);
  // dweight (M*share) += dout . key; dkey (M, E; may be null) += the sum of weight * dout.
  void (*pool_backward)(const float* weight, const float* key, std::int32_t ldk, const float* dout,
                        std::int32_t ldo, float* dweight, float* dkey, std::int32_t lddkey,
                        std::int32_t m, std::int32_t share, std::int32_t e);

  // ---- GRU, one step: M rows of `p` hold [r | u | c], H each; hp is the state before
  // r, u = sigmoid in place; rh (M, H) = r * hp.
  void (*gru_gates)(float* p, std::int32_t ldp, const float* hp, std::int32_t ldhp, float* rh,
                    std::int32_t ldrh, std::int32_t m, std::int32_t h);
  // c = tanh in place; v = (1 - a) u with a (M) the attention (null: 0); out = v hp + (1 - v) c.
  void (*gru_state)(float* p, std::int32_t ldp, const float* hp, std::int32_t ldhp, const float* a,
                    float* out, std::int32_t ldo, std::int32_t m, std::int32_t h);
  // dh (M, H; no gaps) is the gradient from later steps; dout (null: none) is added to it. Turns
  // u, c of p into the gradients before their nonlinearity, dh into its share that flows past
  // them, and adds to da (M; null where a is).
  void (*gru_state_backward)(float* p, std::int32_t ldp, const float* hp, std::int32_t ldhp,
                             const float* a, const float* dout, std::int32_t lddout, float* dh,
                             float* da, std::int32_t m, std::int32_t h);
  // Given drh (M, H; no gaps): turns r of p into its gradient and adds r drh to dh.
  void (*gru_reset_backward)(float* p, std::int32_t ldp, const float* hp, std::int32_t ldhp,
                             const float* drh, float* dh, std::int32_t m, std::int32_t h);

  // ---- LSTM, one step: M rows of p hold [i | j | f | o], H each; ldp = 4H, the rest without gaps
  // but `out`. i, f, o = sigmoid, j = tanh in place; c = f cp + i j; tc = tanh(c); out = o tc.
  // Row r has the cell before it in row r / share of cp.
  void (*lstm_state)(float* p, const float* cp, std::int32_t share, float* c, float* tc, float* out,
                     std::int32_t ldo, std::int32_t m, std::int32_t h);
  // Gradients dh + dout (null: none) and dc come in; p becomes the gradient before the
  // nonlinearities and dc that of cp, row by row.
  void (*lstm_state_backward)(float* p, const float* cp, std::int32_t share, const float* tc,
                              const float* dout, std::int32_t lddout, const float* dh, float* dc,
                              std::int32_t m, std::int32_t h);

  // ---- layer norm, transformer
  // y (M, N) = gamma (x - mean) / sqrt(variance + epsilon) + beta, each row by its own mean and
  // variance; stats (M, 2) = mean, 1 / sqrt(variance + epsilon). y may be x.
  void (*layer_norm)(const float* x, std::int32_t ldx, const float* gamma, const float* beta,
                     float epsilon, float* y, std::int32_t ldy, float* stats, std::int32_t m,
                     std::int32_t n);
  // y once more, from its stats.
  void (*layer_norm_again)(const float* x, std::int32_t ldx, const float* stats, const float* gamma,
                           const float* beta, float* y, std::int32_t ldy, std::int32_t m,
                           std::int32_t n);
  // dx (M, N) = or, with `accumulate`, += the gradient of x; dgamma, dbeta (N) += theirs. dx may be
  // dy without `accumulate`.
  void (*layer_norm_backward)(const float* x, std::int32_t ldx, const float* stats,
                              const float* gamma, const float* dy, std::int32_t lddy, float* dx,
                              std::int32_t lddx, float* dgamma, float* dbeta, std::int32_t m,
                              std::int32_t n, bool accumulate);
  // x[i] = max(x[i], 0), value first + i of those that may be dropped; and dy[i] back from there,
  // given the result y.
  void (*relu_dropout)(Drop drop, std::uint32_t first, float* x, std::size_t n);
  void (*relu_dropout_backward)(float rate, const float* y, float* dy, std::size_t n);
  // Rows of scores become weights: row i of s (M, N) becomes the softmax of scale * s over its
  // first `first` + i + 1 columns, dropped; its other columns become 0. Column j of row i is value
  // number
  // + i * stride + j of those that may be dropped. stats (M, 2) is for the way back. A row has room
  // for N rounded up to 16, which is written.
  void (*softmax_prefix)(float* s, std::int32_t lds, float scale, std::int32_t first, Drop drop,
                         std::uint32_t number, std::int32_t stride, float* stats, std::int32_t m,
                         std::int32_t n);
  // s holds the scores again, dp the gradient of the weights. s becomes the weights, dp the
  // gradient of the scores.
  void (*softmax_prefix_backward)(float* s, float* dp, std::int32_t ld, float scale,
                                  std::int32_t first, Drop drop, std::uint32_t number,
                                  std::int32_t stride, const float* stats, std::int32_t m,
                                  std::int32_t n);

  // ---- a sparse matrix times the rows of a dense one, N floats each
  // For i = first ... first + m - 1: row y_rows[i] (null: i) of y = row rows[i] (null: i) of a . x;
  // with `accumulate`, +=. Entries are added in their order.
  void (*spmm)(const SparseRows& a, const std::uint32_t* rows, std::int32_t first, std::int32_t m,
               const float* x, std::int32_t ldx, float* y, std::int32_t ldy,
               const std::uint32_t* y_rows, std::int32_t n, bool accumulate);
  // The same for an x of which most rows are 0 and the others lie close: row c of it is row
  // place[c] of `x`, or 0 where place[c] is -1. All rows of a.
  void (*spmm_some)(const SparseRows& a, const std::int32_t* place, std::int32_t first,
                    std::int32_t m, const float* x, std::int32_t ldx, float* y, std::int32_t ldy,
                    const std::uint32_t* y_rows, std::int32_t n, bool accumulate);
};

// What the calling thread computes with: of kF32, or of the PrecisionScope it is in.
const Kernels& kernels();
const Kernels& kernels(Precision precision);
// Packed weights are in the order of one precision: they are made and used under the same.
class PrecisionScope {
 public:
  explicit PrecisionScope(Precision precision);
  ~PrecisionScope();
  PrecisionScope(const PrecisionScope&) = delete;
  PrecisionScope& operator=(const PrecisionScope&) = delete;

 private:
  const Kernels* before_;
};
// The table of one level, "v2", "v3" or "v4"; null if unknown or more than this machine runs.
const Kernels* kernels_for(const char* isa);
// `table` with products in mixed precision.
Kernels with_products(Kernels table, const mixed::Products& products);

}  // namespace meander::nn
