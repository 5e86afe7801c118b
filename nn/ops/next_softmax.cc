// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include "nn/ops/catalogue_tiles.h"
#include "nn/ops/next_item.h"

namespace meander::nn {
namespace {

constexpr std::int32_t kItems = CatalogueTiles::kItems, kRows = CatalogueTiles::kRows;

std::size_t floats(std::int32_t rows, std::int32_t cols) {
  return static_cast<std::size_t>(rows) * cols;
}

struct Saved {
  CatalogueTiles tiles;
  std::uint32_t* keys = nullptr;  // (R) of the positives
  float* states = nullptr;        // (R, d)
  float* dstates = nullptr;       // (R, d)
  float* score = nullptr;         // (R) of the positive; after forward, the gradient of that score
  float* log_sum = nullptr;       // (R) of the exponentials, the positive's among them
  float* loss = nullptr;          // (R)
  float* drawn =
      nullptr;  // (C, d) gradients of the drawn items, before they are added to their rows
};

// Of one task.
struct Scratch {
  float* tile;              // (kRows, kItems) scores, then exponentials
  float* vectors;           // (kItems, d)
  float* positives;         // (kRows, d)
  float* sums;              // (kRows, d) of the exponentials times the items
  float *top, *keep, *sum;  // (kRows)
};

class NextSoftmax final : public Op {
 public:
  NextSoftmax(std::string name, Positions positions, std::int32_t table, bool is_drawn)
      : name_(std::move(name)), at_(positions), table_(table), is_drawn_(is_drawn) {}

  std::string name() const override { return name_; }
  Scope scope() const override { return Scope::kBatch; }
  std::vector<TensorId> inputs() const override { return {at_.states}; }
  std::vector<TensorId> outputs() const override { return {}; }
  std::size_t saved_floats(const Layout& layout) const override {
    Carve carve(nullptr);
    carve_saved(layout, carve);
    return carve.floats();
  }
  std::size_t scratch_floats(const Layout&) const override {
    return CatalogueTiles::kTasks * task_floats();
  }

  void forward(const OpContext& context) const override {
    if (!context.training) return;
    const Saved saved = saved_of(context);
    at_.gather(context, saved.states, saved.keys);
    CatalogueTiles::for_each(
        *context.executor, saved.tiles.chunks(), [&](std::int32_t task, std::int32_t chunk) {
          saved.tiles.pack(chunk, context.tables[table_], scratch_of(context, task).vectors);
        });
    const std::int32_t count = at_.count(*context.layout);
    const std::int32_t block = CatalogueTiles::block_rows(count);
    CatalogueTiles::for_each(*context.executor, (count + block - 1) / block,
                             [&](std::int32_t task, std::int32_t i) {
                               const std::int32_t first = i * block;
                               run_block(context, saved, scratch_of(context, task), first,
                                         std::min(block, count - first));
                             });
    double loss = 0;
    for (std::int32_t r = 0; r < count; ++r) loss += saved.loss[r];
    *context.loss += loss / count;
  }

  void backward(const OpContext& context) const override {
    const Saved saved = saved_of(context);
    const Kernels& k = kernels();
    const Matrix dtable = context.dtables[table_];
    const std::int32_t d = at_.width;
    CatalogueTiles::for_each(*context.executor, saved.tiles.chunks(),
                             [&](std::int32_t task, std::int32_t chunk) {
                               add_item_gradients(context, saved, scratch_of(context, task), chunk);
                             });
    if (is_drawn_) {
      // An item may have been drawn twice, so its row is one task's.
      const std::span<const std::uint32_t> rows = context.catalogues[table_].rows;
      k.scatter_add_rows(saved.drawn, d, rows.data(), dtable.data, dtable.stride,
                         static_cast<std::int32_t>(rows.size()), d);
    }
    const std::int32_t count = at_.count(*context.layout);
    for (std::int32_t r = 0; r < count; ++r) {
      k.axpy(saved.score[r], saved.states + floats(r, d),
             dtable.row(static_cast<std::int32_t>(saved.keys[r])), static_cast<std::size_t>(d));
    }
    at_.scatter(context, saved.dstates);
  }

  void emit_onnx(GraphWriter&) const override {}  // training only

 private:
  Saved carve_saved(const Layout& layout, Carve& carve) const {
    const std::int32_t count = at_.count(layout), d = at_.width;
    Saved saved{.tiles = CatalogueTiles(layout, d, true, carve)};
    saved.keys = reinterpret_cast<std::uint32_t*>(carve.take(count));
    saved.states = carve.take(count, d);
    saved.dstates = carve.take(count, d);
    saved.score = carve.take(count);
    saved.log_sum = carve.take(count);
    saved.loss = carve.take(count);
    saved.drawn = carve.take(is_drawn_ ? layout.catalogue_rows : 0, d);
    return saved;
  }
  Saved saved_of(const OpContext& context) const {
    CHECK_LT(static_cast<std::size_t>(table_), context.catalogues.size()) << name_;
    const Catalogue& catalogue = context.catalogues[table_];
    CHECK(!catalogue.empty()) << name_ << ": the step lacks its catalogue";
    CHECK_EQ(catalogue.log_expected.size(), is_drawn_ ? catalogue.rows.size() : 0) << name_;
    Carve carve(context.saved);
    Saved saved = carve_saved(*context.layout, carve);
    saved.tiles.bind(catalogue);
    return saved;
  }

  Scratch carve_scratch(Carve& carve) const {
    Scratch scratch;
    scratch.tile = carve.take(kRows, kItems);
    scratch.vectors = carve.take(kItems, at_.width);
    scratch.positives = carve.take(kRows, at_.width);
    scratch.sums = carve.take(kRows, at_.width);
    for (float** rows : {&scratch.top, &scratch.keep, &scratch.sum}) *rows = carve.take(kRows);
    return scratch;
  }
  std::size_t task_floats() const {
    Carve carve(nullptr);
    carve_scratch(carve);
    return carve.floats();
  }
  Scratch scratch_of(const OpContext& context, std::int32_t task) const {
    Carve carve(context.scratch + task * task_floats());
    return carve_scratch(carve);
  }

  // Forward, and the states' gradients, of positions `first` ...: the catalogue passes by once,
  // while the sum of exponentials and that of exponentials times items grow side by side.
  void run_block(const OpContext& context, const Saved& saved, const Scratch& s, std::int32_t first,
                 std::int32_t rows) const {
    const Kernels& k = kernels();
    const std::int32_t d = at_.width;
    const ConstMatrix table = context.tables[table_];
    const float* states = saved.states + floats(first, d);
    const std::uint32_t* keys = saved.keys + first;
    float* score = saved.score + first;
    k.gather_rows(table.data, table.stride, keys, s.positives, d, rows, d);
    std::fill_n(score, rows, 0.0f);
    k.pool_backward(score, states, d, s.positives, d, score, nullptr, 0, rows, 1, d);
    // The positive comes first, outside the catalogue.
    std::copy_n(score, rows, s.top);
    std::fill_n(s.sum, rows, 1.0f);
    std::copy_n(s.positives, floats(rows, d), s.sums);
    for (std::int32_t chunk = 0; chunk < saved.tiles.chunks(); ++chunk) {
      saved.tiles.scores(chunk, states, rows, s.tile);
      leave_out_positives(saved.tiles, chunk, keys, rows, s.tile);
      k.softmax_rows(s.tile, kItems, s.top, s.keep, s.sum, rows, saved.tiles.items(chunk));
      scale_rows(s.keep, s.sums, rows, d);
      saved.tiles.add_items(chunk, s.tile, rows, s.sums);
    }
    const float scale = scale_of(*context.layout);
    for (std::int32_t r = 0; r < rows; ++r) {
      const float log_sum = s.top[r] + std::log(s.sum[r]);
      saved.log_sum[first + r] = log_sum;
      saved.loss[first + r] = log_sum - score[r];
      score[r] = scale * std::expm1(score[r] - log_sum);
      const float* __restrict sum = s.sums + floats(r, d);
      const float* __restrict positive = s.positives + floats(r, d);
      float* __restrict dstate = saved.dstates + floats(first + r, d);
      const float inverse = 1 / s.sum[r];
      for (std::int32_t j = 0; j < d; ++j) dstate[j] = scale * (sum[j] * inverse - positive[j]);
    }
  }

  // The scores again, now as probabilities, times the states.
  void add_item_gradients(const OpContext& context, const Saved& saved, const Scratch& s,
                          std::int32_t chunk) const {
    const Kernels& k = kernels();
    const std::int32_t d = at_.width, n = saved.tiles.items(chunk);
    const std::int32_t count = at_.count(*context.layout);
    const std::int32_t block = CatalogueTiles::even_rows(count, (count + kRows - 1) / kRows);
    const float scale = scale_of(*context.layout);
    float* ditems = is_drawn_ ? saved.drawn + floats(saved.tiles.begin(chunk), d) : s.vectors;
    std::fill_n(ditems, floats(n, d), 0.0f);
    for (std::int32_t first = 0; first < count; first += block) {
      const std::int32_t rows = std::min(block, count - first);
      const float* states = saved.states + floats(first, d);
      saved.tiles.scores(chunk, states, rows, s.tile);
      leave_out_positives(saved.tiles, chunk, saved.keys + first, rows, s.tile);
      k.exp_rows(s.tile, kItems, saved.log_sum + first, scale, rows, n);
      k.gemm_tn(s.tile, kItems, states, d, ditems, d, rows, n, d);
    }
    if (is_drawn_) return;
    const Matrix dtable = context.dtables[table_];
    k.scatter_add_rows(ditems, d, saved.tiles.keys(chunk), dtable.data, dtable.stride, n, d);
  }

  static void leave_out_positives(const CatalogueTiles& tiles, std::int32_t chunk,
                                  const std::uint32_t* positives, std::int32_t rows, float* tile) {
    const std::uint32_t* __restrict keys = tiles.keys(chunk);
    const std::int32_t n = tiles.items(chunk);
    for (std::int32_t r = 0; r < rows; ++r) {
      float* __restrict x = tile + floats(r, kItems);
      for (std::int32_t i = 0; i < n; ++i) {
        x[i] = keys[i] == positives[r] ? -std::numeric_limits<float>::infinity() : x[i];
      }
    }
  }

  static void scale_rows(const float* scale, float* rows, std::int32_t count, std::int32_t width) {
    for (std::int32_t r = 0; r < count; ++r) {
      if (scale[r] == 1) continue;
      float* row = rows + floats(r, width);
      for (std::int32_t j = 0; j < width; ++j) row[j] *= scale[r];
    }
  }

  float scale_of(const Layout& layout) const {
    return 1.0f / static_cast<float>(at_.count(layout));
  }

  std::string name_;
  Positions at_;
  std::int32_t table_;
  bool is_drawn_;
};

}  // namespace

void next_softmax_loss(Graph& graph, std::string name, TensorId states, std::int32_t slot,
                       NextSoftmaxOptions options) {
  const TensorSpec spec = graph.spec(states);
  const SlotSpec& items = graph.slots().at(slot);
  CHECK(spec.rows == Rows::kHistory || spec.rows == Rows::kGroup) << name;
  CHECK(items.in_history) << name << ": " << items.name;
  CHECK_EQ(spec.width, items.width) << name;
  CHECK(!items.frozen) << name << ": " << items.name;
  CHECK(options.catalogue != Graph::CatalogueUse::kNone) << name;
  graph.use_catalogue(items.table, true, options.catalogue);
  const bool every = spec.rows == Rows::kHistory && !options.last_only;
  graph.add(std::make_unique<NextSoftmax>(
      std::move(name), Positions{states, spec.rows, every, slot, spec.width}, items.table,
      options.catalogue == Graph::CatalogueUse::kDrawn));
}

}  // namespace meander::nn
