// SPDX-License-Identifier: Apache-2.0
// How long does a training step of LightGCN take, forward and backward without the optimizer? The
// batches are uniform users, a uniform item of each and one that he does not have. Prints JSON,
// with the seconds of a pass over as many triples as there are edges. bench/light_gcn_torch.py does
// the same with torch.sparse.mm.
//   bench_light_gcn FILE [layers = 3] [threads = 2] [batch = 2048] [width = 64] [repeats = 15]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <string>
#include <vector>

#include "bench/user_item_graph.h"
#include "common/clock.h"
#include "common/rng.h"
#include "common/thread_executor.h"
#include "nn/ops/light_gcn.h"
#include "tests/jagged_batch.h"

namespace meander {
namespace {

constexpr std::size_t kParts = 4;

// Histories without behaviours; the first candidate an item of the user, the second another.
std::vector<std::vector<JaggedGroup>> draw_batch(const nn::SparseMatrix& graph, Rng& rng,
                                                 int histories) {
  std::vector<std::vector<JaggedGroup>> parts(kParts);
  for (int g = 0; g < histories; ++g) {
    std::uint32_t user = 0;
    do {
      user = static_cast<std::uint32_t>(rng.below(graph.rows));
    } while (graph.begin[user] == graph.begin[user + 1]);
    const auto first = graph.column.begin() + graph.begin[user];
    const auto end = graph.column.begin() + graph.begin[user + 1];
    const std::uint32_t positive = first[rng.below(end - first)];
    std::uint32_t negative = 0;
    do {
      negative = static_cast<std::uint32_t>(rng.below(graph.cols));
    } while (std::binary_search(first, end, negative));
    parts[g % kParts].push_back({.history = {{}, {}},
                                 .negative = {},
                                 .valid = {},
                                 .age = {},
                                 .target = {{positive, negative}, {user, user}},
                                 .label = {1, 0},
                                 .numeric = {}});
  }
  return parts;
}

int run(int argc, char** argv) {
  const auto number = [&](int i, int otherwise) {
    return argc > i ? std::atoi(argv[i]) : otherwise;
  };
  const int layers = number(2, 3), threads = number(3, 2), batch = number(4, 2048);
  const int width = number(5, 64), repeats = number(6, 15);
  const auto adjacency = std::make_shared<const nn::SparseMatrix>(read_user_item_graph(argv[1]));
  if (adjacency->entries() == 0) {
    std::fprintf(stderr, "%s: no edges\n", argv[1]);
    return 2;
  }
  nn::Graph graph({{"item", 0, width, true}, {"user", 1, width, false}}, 0);
  const nn::LightGcn out = nn::light_gcn(graph, "propagation", adjacency, 1, 0, {.layers = layers});
  graph.set_logits(out.logits);
  nn::bpr_loss(graph, "loss", out.logits);
  graph.finish();

  Rng rng(1);
  const std::int32_t rows[] = {adjacency->cols, adjacency->rows};
  std::vector<std::uint32_t> all(std::max(rows[0], rows[1]));
  std::iota(all.begin(), all.end(), 0);
  std::vector<std::vector<float>> tables(2), dtables(2);
  std::vector<nn::ConstMatrix> views;
  std::vector<nn::Matrix> dviews;
  std::vector<nn::Catalogue> catalogues;
  for (int t = 0; t < 2; ++t) {
    tables[t].resize(static_cast<std::size_t>(rows[t]) * width);
    dtables[t].resize(tables[t].size());
    for (float& x : tables[t]) x = static_cast<float>(0.2 * (rng.uniform() - 0.5));
    views.push_back({tables[t].data(), rows[t], width, width});
    dviews.push_back({dtables[t].data(), rows[t], width, width});
    catalogues.push_back({std::span(all).first(rows[t]), {}});
  }
  std::vector<float> logits(2 * batch);
  ThreadPool pool(std::max(1, threads - 1));
  ThreadExecutor many(pool, [](std::function<void()> done) { done(); });
  InlineExecutor one;
  Executor& executor = threads > 1 ? static_cast<Executor&>(many) : one;
  nn::Session session(graph);
  const SystemClock clock;
  std::vector<double> ms;
  double loss = 0;
  for (int r = 0; r < repeats + 1; ++r) {
    const JaggedBatch samples(draw_batch(*adjacency, rng, batch));
    nn::StepOutput output{dviews, {}, logits};
    const TimePoint begin = clock.now();
    session.train({samples.inputs(), views, {}, catalogues, 0}, executor, output);
    const double took = std::chrono::duration<double, std::milli>(clock.now() - begin).count();
    if (r > 0) ms.push_back(took);  // the first one gets its memory
    loss = output.loss;
  }
  std::ranges::sort(ms);
  const double median = ms[ms.size() / 2];
  const auto steps = static_cast<double>((adjacency->entries() + batch - 1) / batch);
  std::printf(
      "{\"users\": %d, \"items\": %d, \"edges\": %zu, \"layers\": %d, \"threads\": %d, "
      "\"batch\": %d, \"width\": %d, \"loss\": %.4f, \"step_ms\": %.2f, \"step_ms_min\": %.2f, "
      "\"pass_s\": %.2f}\n",
      adjacency->rows, adjacency->cols, adjacency->entries(), layers, threads, batch, width, loss,
      median, ms.front(), median * steps * 1e-3);
  return 0;
}

}  // namespace
}  // namespace meander

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr,
                 "usage: bench_light_gcn FILE [layers] [threads] [batch] [width] [repeats]\n");
    return 2;
  }
  return meander::run(argc, argv);
}
