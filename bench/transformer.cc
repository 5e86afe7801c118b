// SPDX-License-Identifier: Apache-2.0
// How many histories does the transformer encoder train in a second: forward, and back to rows and
// parameters? bench/transformer_vs_pytorch runs it beside PyTorch. Prints JSON.
//   bench_transformer LENGTHS --threads 2 --seconds 3 --dropout 0.2 --positions 200 --width 50
// LENGTHS: one batch a line, the length of each history.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cstdio>
#include <deque>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/thread_executor.h"
#include "nn/ops/embedding.h"
#include "nn/ops/transformer.h"
#include "tests/jagged_batch.h"

namespace meander {
namespace {

constexpr std::uint32_t kItems = 3416;

// loss = the sum of w x, over all rows, w fixed: what a head would send back.
class Sum final : public nn::Op {
 public:
  Sum(nn::TensorId x, nn::TensorId logits) : x_(x), logits_(logits) {}
  std::string name() const override { return "sum"; }
  std::vector<nn::TensorId> inputs() const override { return {x_}; }
  std::vector<nn::TensorId> outputs() const override { return {logits_}; }
  void forward(const nn::OpContext& context) const override {
    const nn::Matrix logits = context.value(logits_);
    for (std::int32_t r = 0; r < logits.rows; ++r) *logits.row(r) = 0;
  }
  void backward(const nn::OpContext& context) const override {
    const nn::Matrix dx = context.grad(x_);
    for (std::int32_t r = 0; r < dx.rows; ++r) {
      for (std::int32_t c = 0; c < dx.cols; ++c) dx.row(r)[c] += (c & 1) == 0 ? 1e-3f : -1e-3f;
    }
  }
  void emit_onnx(nn::GraphWriter&) const override {}

 private:
  nn::TensorId x_, logits_;
};

struct Options {
  std::string lengths;
  std::size_t threads = 1, parts = 4;
  double seconds = 3, dropout = 0;
  nn::TransformerOptions encoder;
  std::int32_t width = 50;
  bool mixed = false;
};

std::vector<std::vector<std::int32_t>> read_lengths(const std::string& path) {
  std::vector<std::vector<std::int32_t>> batches;
  std::ifstream file(path);
  CHECK(file.is_open()) << path;
  for (std::string line; std::getline(file, line);) {
    std::istringstream text(line);
    std::vector<std::int32_t>& lengths = batches.emplace_back();
    for (std::int32_t length = 0; text >> length;) lengths.push_back(length);
  }
  return batches;
}

nn::Graph encoder(const Options& options) {
  nn::Graph graph({{"item", 0, options.width, true}}, 0);
  const nn::TensorId history = nn::embedding(graph, "history", nn::Source::kHistory, {0});
  const nn::TensorId states = nn::transformer(graph, "encoder", history, options.encoder);
  const nn::TensorId logits = graph.tensor(nn::Rows::kSample, 1);
  graph.set_logits(logits);
  graph.add(std::make_unique<Sum>(states, logits));
  graph.finish();
  return graph;
}

// Histories cut into parts as a batch is: neighbours stay together.
std::vector<std::vector<JaggedGroup>> parts_of(const std::vector<std::int32_t>& lengths,
                                               std::size_t parts, Rng& rng) {
  std::vector<std::vector<JaggedGroup>> cut;
  for (std::size_t p = 0; p < parts; ++p) {
    const std::size_t first = lengths.size() * p / parts, end = lengths.size() * (p + 1) / parts;
    cut.push_back(
        random_groups(rng, {lengths.begin() + first, lengths.begin() + end}, 1, {kItems}, 1));
  }
  return cut;
}

int run(Options options) {
  options.encoder.dropout = static_cast<float>(options.dropout);
  const nn::Graph graph = encoder(options);
  Rng rng(1);
  std::deque<JaggedBatch> batches;
  for (const auto& lengths : read_lengths(options.lengths)) {
    batches.emplace_back(parts_of(lengths, options.parts, rng));
  }
  const std::size_t width = options.width;
  std::vector<float> dense = graph.initial_dense(1), ddense(dense.size());
  std::vector<float> rows(kItems * width), drows(rows.size()), logits;
  for (float& x : rows) x = static_cast<float>(0.1 * (2 * rng.uniform() - 1));
  const nn::ConstMatrix table{rows.data(), kItems, options.width, options.width};
  const nn::Matrix dtable{drows.data(), kItems, options.width, options.width};
  nn::Session session(graph, options.mixed ? nn::Precision::kMixed : nn::Precision::kF32);
  ThreadPool pool(std::max<std::size_t>(1, options.threads - 1));  // and this thread
  ThreadExecutor threaded(pool, [](std::function<void()> work) { work(); });
  InlineExecutor alone;
  Executor& executor = options.threads == 1 ? static_cast<Executor&>(alone) : threaded;
  const SystemClock clock;
  std::vector<double> took;
  auto begin = clock.now();
  for (std::size_t step = 0; took.empty() || seconds(clock.now() - begin) < options.seconds;
       ++step) {
    if (step == batches.size()) begin = clock.now();  // memory has grown by now
    const JaggedBatch& batch = batches[step % batches.size()];
    std::size_t groups = 0;
    for (const nn::PartInput& part : batch.inputs()) groups += part.layout.groups;
    logits.resize(groups);
    nn::StepOutput output{std::span(&dtable, 1), ddense, logits};
    const auto before = clock.now();
    session.train({batch.inputs(), std::span(&table, 1), dense, {}, step}, executor, output);
    if (step >= batches.size()) took.push_back(seconds(clock.now() - before) / groups);
  }
  std::ranges::nth_element(took, took.begin() + took.size() / 2);
  std::printf("{\"histories_per_s\": %.1f, \"steps\": %zu}\n", 1 / took[took.size() / 2],
              took.size());
  return 0;
}

}  // namespace
}  // namespace meander

int main(int argc, char** argv) {
  meander::Options options;
  CLI::App app("The transformer encoder's training speed");
  app.add_option("lengths", options.lengths)->required();
  app.add_option("--threads", options.threads);
  app.add_option("--parts", options.parts);
  app.add_option("--seconds", options.seconds);
  app.add_option("--dropout", options.dropout);
  app.add_option("--positions", options.encoder.positions);
  app.add_option("--blocks", options.encoder.blocks);
  app.add_option("--heads", options.encoder.heads);
  app.add_option("--width", options.width);
  app.add_flag("--mixed", options.mixed);
  CLI11_PARSE(app, argc, argv);
  return meander::run(options);
}
