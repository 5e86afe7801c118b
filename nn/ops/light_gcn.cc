// SPDX-License-Identifier: Apache-2.0
#include "nn/ops/light_gcn.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "common/check.h"
#include "nn/ops/carve.h"
#include "nn/ops/nodes.h"
#include "nn/ops/rank_vectors.h"
#include "nn/simd/kernels.h"

namespace meander::nn {
namespace {

constexpr std::int32_t kRuns = 64;         // of a matrix's rows: tasks
constexpr std::int32_t kActiveRows = 128;  // of a task
constexpr int kUser = 0, kItem = 1;
constexpr std::array<int, 2> kSides = {kUser, kItem};

// Users or items: `a` has a row for each, and a column for each of the other side.
struct Side {
  std::int32_t slot = 0, table = 0;
  std::shared_ptr<const SparseMatrix> a;
  std::vector<std::int32_t> runs;

  std::int32_t nodes() const { return a->rows; }
};

// Kept from forward to backward. Active nodes are those that the batch asks about, by number.
struct SavedSide {
  std::uint32_t* node_of_row;  // (nodes)
  std::uint32_t* active;       // (count)
  std::int32_t* place;         // (nodes) among the active ones; -1: it is not
  std::uint32_t* sample;       // (S) place of the sample's node among the active ones
  std::int32_t* count;         // (1)
  float* sum;                  // (count, d) its layers added up
};

struct ScratchSide {
  // In forward the rows of the table in order of nodes; in backward (count, d), the gradient of
  // sum.
  float* rows;                  // (nodes, d)
  std::array<float*, 2> layer;  // (nodes, d)
};

class LightGcnOp final : public Op {
 public:
  LightGcnOp(std::string name, std::array<Side, 2> sides, std::int32_t width,
             LightGcnOptions options, LightGcn out)
      : name_(std::move(name)),
        side_(std::move(sides)),
        d_(width),
        options_(options),
        scale_(1.0f / static_cast<float>(options.layers + 1)),
        out_(out) {}

  std::string name() const override { return name_; }
  Scope scope() const override { return Scope::kBatch; }
  std::vector<TensorId> inputs() const override { return {}; }
  std::vector<TensorId> outputs() const override { return {out_.logits, out_.ranks}; }

  std::size_t saved_floats(const Layout& layout) const override {
    Carve carve(nullptr);
    carve_saved(layout, carve);
    return carve.floats();
  }
  std::size_t scratch_floats(const Layout& layout) const override {
    Carve carve(nullptr);
    carve_scratch(layout, carve);
    return carve.floats();
  }

  void forward(const OpContext& context) const override {
    Work w = work(context);
    for (const int s : kSides) mark(w, s);
    propagate(w);
    score(w);
    if (context.training) {
      *context.loss += decay_loss(w);
    } else {
      rank(w);
    }
  }

  void backward(const OpContext& context) const override {
    Work w = work(context);
    back_to_sums(w);
    propagate_back(w);
    decay_backward(w);
  }

  void emit_onnx(GraphWriter&) const override {
    LOG(FATAL) << name_ << ": a graph of all rows has no ONNX form";
  }

 private:
  using Layer = std::array<const float*, 2>;  // of each side (nodes, d)
  struct Work {
    const OpContext& context;
    std::array<Nodes, 2> nodes;
    std::array<SavedSide, 2> saved;
    std::array<ScratchSide, 2> scratch;
    RankQuery* queries;  // (G)
    float* rank_scratch;
  };

  std::array<SavedSide, 2> carve_saved(const Layout& layout, Carve& carve) const {
    std::array<SavedSide, 2> saved;
    const auto u32 = [&](std::size_t n) { return reinterpret_cast<std::uint32_t*>(carve.take(n)); };
    const auto i32 = [&](std::size_t n) { return reinterpret_cast<std::int32_t*>(carve.take(n)); };
    for (const int s : kSides) {
      const std::size_t nodes = side_[s].nodes(), samples = layout.samples();
      // At inference every item is active.
      const std::size_t active_max = s == kItem ? nodes : std::min(nodes, samples);
      saved[s] = {u32(nodes),   u32(nodes), i32(nodes),
                  u32(samples), i32(1),     carve.take(active_max, d_)};
    }
    return saved;
  }

  std::array<ScratchSide, 2> carve_scratch(const Layout& layout, Carve& carve,
                                           RankQuery** queries = nullptr,
                                           float** rank_scratch = nullptr) const {
    std::array<ScratchSide, 2> scratch;
    for (const int s : kSides) {
      const std::size_t nodes = side_[s].nodes();
      scratch[s] = {carve.take(nodes, d_), {carve.take(nodes, d_), carve.take(nodes, d_)}};
    }
    float* const of_queries = carve.take(layout.groups * (sizeof(RankQuery) / sizeof(float)));
    float* const of_ranks = carve.take(rank_scratch_floats(side_[kItem].nodes(), d_));
    if (queries != nullptr) *queries = reinterpret_cast<RankQuery*>(of_queries);
    if (rank_scratch != nullptr) *rank_scratch = of_ranks;
    return scratch;
  }

  Work work(const OpContext& context) const {
    Carve saved(context.saved), scratch(context.scratch);
    Work w = {context,
              {Nodes(context, side_[kUser].table, side_[kUser].nodes()),
               Nodes(context, side_[kItem].table, side_[kItem].nodes())},
              carve_saved(*context.layout, saved),
              {},
              nullptr,
              nullptr};
    w.scratch = carve_scratch(*context.layout, scratch, &w.queries, &w.rank_scratch);
    return w;
  }

  // Finds the active nodes.
  void mark(const Work& w, int s) const {
    const Nodes& nodes = w.nodes[s];
    const SavedSide& saved = w.saved[s];
    const std::int32_t all = side_[s].nodes();
    for (std::int32_t n = 0; n < all; ++n) saved.node_of_row[nodes.row[n]] = n;
    std::fill_n(saved.place, all, s == kItem && !w.context.training ? 0 : -1);
    for_target_keys(w.context, side_[s].slot, [&](std::int32_t sample, std::uint32_t key) {
      saved.sample[sample] = saved.node_of_row[key];
      saved.place[saved.node_of_row[key]] = 0;
    });
    std::int32_t count = 0;
    for (std::int32_t n = 0; n < all; ++n) {
      if (saved.place[n] < 0) continue;
      saved.place[n] = count;
      saved.active[count++] = n;
    }
    *saved.count = count;
    for (std::int32_t i = 0; i < w.context.layout->samples(); ++i) {
      saved.sample[i] = saved.place[saved.sample[i]];
    }
  }

  // body(side, first, count) for runs of all nodes of both sides, beside each other.
  template <class Body>
  void for_nodes(const Work& w, const Body& body) const {
    const std::size_t of_users = side_[kUser].runs.size() - 1;
    w.context.executor->parallel(of_users + side_[kItem].runs.size() - 1, [&](std::size_t task) {
      const int s = task < of_users ? kUser : kItem;
      const std::size_t run = s == kUser ? task : task - of_users;
      const std::vector<std::int32_t>& runs = side_[s].runs;
      body(s, runs[run], runs[run + 1] - runs[run]);
    });
  }
  // The same for runs of the active nodes.
  template <class Body>
  void for_active(const Work& w, const Body& body) const {
    const auto runs = [&](int s) { return (*w.saved[s].count + kActiveRows - 1) / kActiveRows; };
    const auto of_users = static_cast<std::size_t>(runs(kUser));
    w.context.executor->parallel(of_users + runs(kItem), [&](std::size_t task) {
      const int s = task < of_users ? kUser : kItem;
      const auto first =
          static_cast<std::int32_t>(s == kUser ? task : task - of_users) * kActiveRows;
      body(s, first, std::min(kActiveRows, *w.saved[s].count - first));
    });
  }

  // The rows of the tables in order of nodes: copied, where they are in another.
  Layer layer_zero(const Work& w) const {
    for_nodes(w, [&](int s, std::int32_t first, std::int32_t count) {
      const Nodes& nodes = w.nodes[s];
      if (nodes.in_order) return;
      kernels().gather_rows(nodes.table.data, nodes.table.stride, nodes.row.data() + first,
                            w.scratch[s].rows + offset(first), d_, count, d_);
    });
    Layer layer;
    for (const int s : kSides) {
      layer[s] = w.nodes[s].in_order ? w.nodes[s].table.data : w.scratch[s].rows;
    }
    return layer;
  }

  void propagate(const Work& w) const {
    Layer x = layer_zero(w);
    for_active(w, [&](int s, std::int32_t first, std::int32_t count) {
      kernels().gather_rows(x[s], d_, w.saved[s].active + first, w.saved[s].sum + offset(first), d_,
                            count, d_);
    });
    for (std::int32_t k = 1; k < options_.layers; ++k) {
      for_nodes(w, [&](int s, std::int32_t first, std::int32_t count) {
        float* const y = w.scratch[s].layer[k % 2];
        kernels().spmm(side_[s].a->view(), nullptr, first, count, x[1 - s], d_, y, d_, nullptr, d_,
                       false);
        for_active_of(w, s, first, count, [&](std::int32_t place, std::int32_t node) {
          add_row(1.0f, y + offset(node), w.saved[s].sum + offset(place));
        });
      });
      for (const int s : kSides) x[s] = w.scratch[s].layer[k % 2];
    }
    for_active(w, [&](int s, std::int32_t first, std::int32_t count) {
      kernels().spmm(side_[s].a->view(), w.saved[s].active, first, count, x[1 - s], d_,
                     w.saved[s].sum, d_, nullptr, d_, true);
    });
  }

  // body(place, node) for the active nodes among nodes first ... first + count - 1.
  template <class Body>
  static void for_active_of(const Work& w, int s, std::int32_t first, std::int32_t count,
                            const Body& body) {
    const std::uint32_t* const end = w.saved[s].active + *w.saved[s].count;
    const std::uint32_t* const begin = w.saved[s].active;
    const std::uint32_t* at = std::lower_bound(begin, end, static_cast<std::uint32_t>(first));
    for (; at != end && static_cast<std::int32_t>(*at) < first + count; ++at) {
      body(static_cast<std::int32_t>(at - w.saved[s].active), static_cast<std::int32_t>(*at));
    }
  }

  const float* sum_of(const Work& w, int s, std::int32_t sample) const {
    return w.saved[s].sum + offset(w.saved[s].sample[sample]);
  }

  void score(const Work& w) const {
    const Matrix logits = w.context.value(out_.logits);
    for (std::int32_t i = 0; i < logits.rows; ++i) {
      *logits.row(i) = scale_ * scale_ * dot(sum_of(w, kUser, i), sum_of(w, kItem, i));
    }
  }

  // From the gradient of the logits to that of the sums of layers, in scratch.rows.
  void back_to_sums(const Work& w) const {
    const Matrix dlogits = w.context.grad(out_.logits);
    for (const int s : kSides) {
      std::fill_n(w.scratch[s].rows, offset(*w.saved[s].count), 0.0f);
    }
    for (std::int32_t i = 0; i < dlogits.rows; ++i) {
      const float d = scale_ * scale_ * *dlogits.row(i);
      for (const int s : kSides) {
        add_row(d, sum_of(w, 1 - s, i), w.scratch[s].rows + offset(w.saved[s].sample[i]));
      }
    }
  }

  // With d the gradient of the sums, that of layer 0 is h_K, where h_0 = d and h_k = d + A h_{k-1}:
  // the adjacency is its own transpose.
  void propagate_back(const Work& w) const {
    Layer h{};
    for (std::int32_t k = 1; k <= options_.layers; ++k) {
      const bool is_last = k == options_.layers;
      for_nodes(w, [&](int s, std::int32_t first, std::int32_t count) {
        float* const y =
            is_last ? w.context.dtables[side_[s].table].data : w.scratch[s].layer[k % 2];
        const std::uint32_t* const rows =
            is_last && !w.nodes[s].in_order ? w.nodes[s].row.data() : nullptr;
        const SparseRows a = side_[s].a->view();
        if (k == 1) {
          kernels().spmm_some(a, w.saved[1 - s].place, first, count, w.scratch[1 - s].rows, d_, y,
                              d_, rows, d_, is_last);
        } else {
          kernels().spmm(a, nullptr, first, count, h[1 - s], d_, y, d_, rows, d_, is_last);
        }
        for_active_of(w, s, first, count, [&](std::int32_t place, std::int32_t node) {
          const std::int64_t row = rows == nullptr ? node : rows[node];
          add_row(1.0f, w.scratch[s].rows + offset(place), y + offset(row));
        });
      });
      for (const int s : kSides) h[s] = w.scratch[s].layer[k % 2];
    }
  }

  // body(row of the table, its gradient's table) for what decays.
  template <class Body>
  void for_decayed(const Work& w, const Body& body) const {
    const std::int32_t k = w.context.layout->candidates;
    for (const int s : kSides) {
      for_target_keys(w.context, side_[s].slot, [&](std::int32_t sample, std::uint32_t key) {
        if (s == kItem || sample % k == 0) body(s, static_cast<std::int32_t>(key));
      });
    }
  }
  float decay(const Work& w) const {
    return options_.decay / static_cast<float>(w.context.layout->batch_groups);
  }
  double decay_loss(const Work& w) const {
    double sum = 0;
    for_decayed(w, [&](int s, std::int32_t row) {
      sum += dot(w.nodes[s].table.row(row), w.nodes[s].table.row(row));
    });
    return 0.5 * decay(w) * sum;
  }
  void decay_backward(const Work& w) const {
    if (options_.decay == 0) return;
    for_decayed(w, [&](int s, std::int32_t row) {
      add_row(decay(w), w.nodes[s].table.row(row), w.context.dtables[side_[s].table].row(row));
    });
  }

  void rank(const Work& w) const {
    const Matrix ranks = w.context.value(out_.ranks);
    const std::int32_t k = w.context.layout->candidates;
    std::int32_t group = 0;
    for (const PartInput& part : w.context.parts) {
      for (std::int32_t g = 0; g < part.layout.groups; ++g, ++group) {
        std::span<const std::uint32_t> seen;
        if (!part.seen_begin.empty()) {
          seen = part.seen.subspan(part.seen_begin[g], part.seen_begin[g + 1] - part.seen_begin[g]);
        }
        CHECK(std::ranges::is_sorted(seen)) << name_;
        w.queries[group] = {w.saved[kUser].sample[group * k], w.saved[kItem].sample[group * k],
                            seen};
      }
    }
    rank_vectors({w.saved[kUser].sum, *w.saved[kUser].count, d_, d_},
                 {w.saved[kItem].sum, side_[kItem].nodes(), d_, d_},
                 {w.queries, static_cast<std::size_t>(group)}, ranks.data, w.rank_scratch,
                 *w.context.executor);
  }

  std::int64_t offset(std::int64_t row) const { return row * d_; }
  void add_row(float weight, const float* from, float* to) const {
    kernels().axpy(weight, from, to, static_cast<std::size_t>(d_));
  }
  float dot(const float* x, const float* y) const {
    float out = 0;
    kernels().row_dot(x, d_, y, 0.0f, &out, 1, d_);
    return out;
  }

  std::string name_;
  std::array<Side, 2> side_;
  std::int32_t d_;
  LightGcnOptions options_;
  float scale_;  // of a sum of layers to their mean
  LightGcn out_;
};

Side side_of(Graph& graph, std::int32_t slot, std::shared_ptr<const SparseMatrix> a) {
  Side side;
  side.slot = slot;
  side.table = graph.slots().at(slot).table;
  side.runs = balanced_rows(*a, kRuns);
  side.a = std::move(a);
  for (const bool training : {false, true}) {
    graph.use_catalogue(side.table, training, Graph::CatalogueUse::kAll);
  }
  return side;
}

}  // namespace

void propagate_all(const SparseMatrix& adjacency, std::int32_t layers, ConstMatrix user_rows,
                   ConstMatrix item_rows, Matrix users, Matrix items) {
  const SparseMatrix by_item = transposed(adjacency);
  const std::array<const SparseMatrix*, 2> a = {&adjacency, &by_item};
  const std::array<Matrix, 2> sum = {users, items};
  const std::int32_t d = user_rows.cols;
  std::array<std::vector<float>, 2> x;
  for (const int s : kSides) {
    const ConstMatrix rows = s == kUser ? user_rows : item_rows;
    CHECK_EQ(rows.rows, a[s]->rows);
    x[s].assign(rows.data, rows.data + std::int64_t{rows.rows} * d);
    std::ranges::copy(x[s], sum[s].data);
  }
  for (std::int32_t k = 1; k <= layers; ++k) {
    std::array<std::vector<float>, 2> next;
    for (const int s : kSides) {
      next[s].resize(x[s].size());
      kernels().spmm(a[s]->view(), nullptr, 0, a[s]->rows, x[1 - s].data(), d, next[s].data(), d,
                     nullptr, d, false);
      kernels().axpy(1.0f, next[s].data(), sum[s].data, next[s].size());
    }
    x = std::move(next);
  }
  const float scale = 1.0f / static_cast<float>(layers + 1);
  for (const int s : kSides) {
    for (std::size_t i = 0; i < x[s].size(); ++i) sum[s].data[i] *= scale;
  }
}

LightGcn light_gcn(Graph& graph, std::string name, std::shared_ptr<const SparseMatrix> adjacency,
                   std::int32_t user_slot, std::int32_t item_slot, LightGcnOptions options) {
  CHECK_GE(options.layers, 1) << name;
  const std::int32_t width = graph.slots().at(user_slot).width;
  CHECK_EQ(graph.slots().at(item_slot).width, width) << name << ": users and items meet";
  auto by_item = std::make_shared<const SparseMatrix>(transposed(*adjacency));
  std::array<Side, 2> sides = {side_of(graph, user_slot, std::move(adjacency)),
                               side_of(graph, item_slot, std::move(by_item))};
  CHECK_NE(sides[kUser].table, sides[kItem].table) << name;
  const LightGcn out = {graph.tensor(Rows::kSample, 1), graph.tensor(Rows::kGroup, 1, false)};
  graph.add(std::make_unique<LightGcnOp>(std::move(name), std::move(sides), width, options, out));
  return out;
}

}  // namespace meander::nn
