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
  std::uint32_t* keys = nullptr;  // (G) of the targets
  float* states = nullptr;        // (G, d)
};

// Of one task.
struct Scratch {
  float* tile;                  // (kRows, kItems)
  float* vectors;               // (kItems, d)
  float* packed;                // of the block's targets
  float* score;                 // (kRows) of the target
  std::int32_t *better, *same;  // (kRows)
};

// Where one group's items that do not count lie in the catalogue.
std::span<const std::uint32_t> seen_of(const PartInput& part, std::int32_t g) {
  if (part.seen_begin.empty()) return {};
  return part.seen.subspan(part.seen_begin[g], part.seen_begin[g + 1] - part.seen_begin[g]);
}

class RankTarget final : public Op {
 public:
  RankTarget(std::string name, Positions positions, std::int32_t table, TensorId out)
      : name_(std::move(name)), at_(positions), table_(table), out_(out) {}

  std::string name() const override { return name_; }
  Scope scope() const override { return Scope::kBatch; }
  std::vector<TensorId> inputs() const override { return {at_.states}; }
  std::vector<TensorId> outputs() const override { return {out_}; }
  std::size_t saved_floats(const Layout& layout) const override {
    Carve carve(nullptr);
    carve_saved(layout, carve);
    return carve.floats();
  }
  std::size_t scratch_floats(const Layout&) const override {
    return CatalogueTiles::kTasks * task_floats();
  }

  void forward(const OpContext& context) const override {
    if (context.training || static_cast<std::size_t>(table_) >= context.catalogues.size()) return;
    const Catalogue& catalogue = context.catalogues[table_];
    if (catalogue.empty()) return;
    Carve carve(context.saved);
    Saved saved = carve_saved(*context.layout, carve);
    saved.tiles.bind(catalogue);
    at_.gather(context, saved.states, saved.keys);
    CatalogueTiles::for_each(
        *context.executor, saved.tiles.chunks(), [&](std::int32_t task, std::int32_t chunk) {
          saved.tiles.pack(chunk, context.tables[table_], scratch_of(context, task).vectors);
        });
    const std::int32_t groups = context.layout->groups;
    const std::int32_t block = CatalogueTiles::block_rows(groups);
    CatalogueTiles::for_each(*context.executor, (groups + block - 1) / block,
                             [&](std::int32_t task, std::int32_t i) {
                               rank_block(context, saved, scratch_of(context, task), i * block,
                                          std::min(block, groups - i * block));
                             });
  }
  void backward(const OpContext&) const override {}
  void emit_onnx(GraphWriter&) const override {}  // a catalogue is not part of a served model

 private:
  Saved carve_saved(const Layout& layout, Carve& carve) const {
    Saved saved{.tiles = CatalogueTiles(layout, at_.width, false, carve)};
    saved.keys = reinterpret_cast<std::uint32_t*>(carve.take(layout.batch_groups));
    saved.states = carve.take(layout.batch_groups, at_.width);
    return saved;
  }
  Scratch carve_scratch(Carve& carve) const {
    Scratch scratch;
    scratch.tile = carve.take(kRows, kItems);
    scratch.vectors = carve.take(kItems, at_.width);
    scratch.packed = carve.take(kernels().packed_floats(at_.width, kItems));
    scratch.score = carve.take(kRows);
    scratch.better = reinterpret_cast<std::int32_t*>(carve.take(kRows));
    scratch.same = reinterpret_cast<std::int32_t*>(carve.take(kRows));
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

  void rank_block(const OpContext& context, const Saved& saved, const Scratch& s,
                  std::int32_t first, std::int32_t rows) const {
    score_targets(context, saved, s, first, rows);
    std::fill_n(s.better, rows, 0);
    std::fill_n(s.same, rows, 0);
    for (std::int32_t chunk = 0; chunk < saved.tiles.chunks(); ++chunk) {
      saved.tiles.scores(chunk, saved.states + floats(first, at_.width), rows, s.tile);
      leave_out_seen(context, saved.tiles, chunk, first, rows, s.tile);
      for (std::int32_t r = 0; r < rows; ++r) {
        count(s.tile + floats(r, kItems), saved.tiles.keys(chunk), saved.tiles.items(chunk),
              saved.keys[first + r], s.score[r], s.better[r], s.same[r]);
      }
    }
    const Matrix out = context.value(out_);
    for (std::int32_t r = 0; r < rows; ++r) {
      *out.row(first + r) = static_cast<float>(s.better[r] + s.same[r] / 2);
    }
  }

  // In a product like that of the tiles, so that equal vectors have equal scores.
  void score_targets(const OpContext& context, const Saved& saved, const Scratch& s,
                     std::int32_t first, std::int32_t rows) const {
    const Kernels& k = kernels();
    const ConstMatrix table = context.tables[table_];
    const std::int32_t d = at_.width;
    k.gather_rows(table.data, table.stride, saved.keys + first, s.vectors, d, rows, d);
    std::fill_n(s.vectors + floats(rows, d), floats(kItems - rows, d), 0.0f);
    k.pack(s.vectors, d, d, kItems, true, s.packed);
    k.gemm(saved.states + floats(first, d), d, s.packed, nullptr, s.tile, kItems, rows, d, kItems,
           false);
    for (std::int32_t r = 0; r < rows; ++r) s.score[r] = s.tile[floats(r, kItems) + r];
  }

  static void leave_out_seen(const OpContext& context, const CatalogueTiles& tiles,
                             std::int32_t chunk, std::int32_t first, std::int32_t rows,
                             float* tile) {
    const auto begin = static_cast<std::uint32_t>(tiles.begin(chunk));
    const auto end = begin + static_cast<std::uint32_t>(tiles.items(chunk));
    std::int32_t group = 0;
    for (const PartInput& part : context.parts) {
      const std::int32_t from = std::max(first, group);
      const std::int32_t to = std::min(first + rows, group + part.layout.groups);
      for (std::int32_t g = from; g < to; ++g) {
        float* row = tile + floats(g - first, kItems);
        for (const std::uint32_t place : seen_of(part, g - group)) {
          if (place >= begin && place < end) {
            row[place - begin] = -std::numeric_limits<float>::infinity();
          }
        }
      }
      group += part.layout.groups;
    }
  }

  // Scores that are not numbers, the target's or another's, count as better.
  static void count(const float* __restrict x, const std::uint32_t* __restrict keys, std::int32_t n,
                    std::uint32_t target, float score, std::int32_t& better, std::int32_t& same) {
    std::int32_t above = 0, equal = 0;
    for (std::int32_t i = 0; i < n; ++i) {
      const std::int32_t other = keys[i] != target ? 1 : 0;
      above += x[i] <= score ? 0 : other;
      equal += x[i] == score ? other : 0;
    }
    better += above;
    same += equal;
  }

  std::string name_;
  Positions at_;
  std::int32_t table_;
  TensorId out_;
};

}  // namespace

TensorId rank_target(Graph& graph, std::string name, TensorId states, std::int32_t slot) {
  const TensorSpec spec = graph.spec(states);
  const SlotSpec& items = graph.slots().at(slot);
  CHECK(spec.rows == Rows::kHistory || spec.rows == Rows::kGroup) << name;
  CHECK_EQ(spec.width, items.width) << name;
  graph.use_catalogue(items.table, false, Graph::CatalogueUse::kAll);
  const TensorId out = graph.tensor(Rows::kGroup, 1, false);
  graph.add(std::make_unique<RankTarget>(
      std::move(name), Positions{states, spec.rows, false, slot, spec.width}, items.table, out));
  graph.set_ranks(out);
  return out;
}

}  // namespace meander::nn
