// SPDX-License-Identifier: Apache-2.0
// How many sessions does the model of the next item (models/next.cc) train in a second: forward,
// and back to rows and parameters? bench/next_vs_pytorch runs it beside PyTorch. Prints JSON.
//   bench_next_item SESSIONS --batch 100 --items 43097 --drawn 0 --threads 2 --seconds 3
// SESSIONS: one a line, items from 0; so many a batch. --drawn: a softmax over so many items drawn
// for the batch, not over all; the step's table then holds the rows of the batch alone.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <deque>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/thread_executor.h"
#include "models/model.h"
#include "tests/jagged_batch.h"

namespace meander {
namespace {

struct Options {
  std::string sessions;
  std::size_t batch = 100, threads = 1, parts = 2;
  std::uint32_t items = 43097, drawn = 0;
  double seconds = 3, dropout = 0.5;
  std::int32_t width = 100;
  bool mixed = false;
};

using Session = std::vector<std::uint32_t>;

std::vector<Session> read_sessions(const std::string& path) {
  std::vector<Session> sessions;
  std::ifstream file(path);
  CHECK(file.is_open()) << path;
  for (std::string line; std::getline(file, line);) {
    std::istringstream text(line);
    Session& session = sessions.emplace_back();
    for (std::uint32_t item = 0; text >> item;) session.push_back(item);
    CHECK_GE(session.size(), 2u) << path;
  }
  return sessions;
}

// The rows of a step: those of the catalogue first, in their order.
class Rows {
 public:
  std::uint32_t of(std::uint32_t item) {
    return rows_.try_emplace(item, static_cast<std::uint32_t>(rows_.size())).first->second;
  }
  std::int32_t size() const { return static_cast<std::int32_t>(rows_.size()); }

 private:
  std::map<std::uint32_t, std::uint32_t> rows_;
};

struct Step {
  std::vector<std::uint32_t> catalogue;
  std::vector<float> log_expected;
  std::int32_t rows = 0;
  std::vector<std::vector<JaggedGroup>> parts;
};

Step step_of(const Options& options, std::span<const Session> sessions, Rng& rng) {
  Step step;
  Rows rows;
  const std::uint32_t listed = options.drawn == 0 ? options.items : options.drawn;
  for (std::uint32_t i = 0; i < listed; ++i) {
    const auto item = options.drawn == 0 ? i : static_cast<std::uint32_t>(rng.below(options.items));
    const std::int32_t before = rows.size();
    if (rows.of(item); rows.size() == before) continue;  // drawn already
    step.catalogue.push_back(static_cast<std::uint32_t>(before));
  }
  if (options.drawn > 0) {
    const auto share = static_cast<double>(step.catalogue.size()) / options.items;
    step.log_expected.assign(step.catalogue.size(), static_cast<float>(std::log(share)));
  }
  step.parts.resize(options.parts);
  for (std::size_t s = 0; s < sessions.size(); ++s) {
    JaggedGroup& group = step.parts[s * options.parts / sessions.size()].emplace_back();
    group.history.resize(1);
    for (const std::uint32_t item : sessions[s]) group.history[0].push_back(rows.of(item));
    group.target = {{group.history[0].back()}};
    group.history[0].pop_back();
    group.label = {1};
  }
  step.rows = rows.size();
  return step;
}

Result<nn::Graph> model(const Options& options) {
  models::ModelSpec spec;
  spec.kind = "next";
  spec.slots = {{"item", 0, options.width, true}};
  spec.hidden = options.width;
  spec.loss = options.drawn == 0 ? "softmax" : "sampled";
  spec.dropout = static_cast<float>(options.dropout);
  return models::build_model(spec);
}

int run(const Options& options) {
  const Result<nn::Graph> graph = model(options);
  CHECK(graph.ok()) << graph.status().message();
  const std::vector<Session> sessions = read_sessions(options.sessions);
  Rng rng(1);
  std::vector<Step> steps;
  for (std::size_t s = 0; s + options.batch <= sessions.size(); s += options.batch) {
    steps.push_back(step_of(options, std::span(sessions).subspan(s, options.batch), rng));
  }
  CHECK(!steps.empty()) << "fewer sessions than a batch has";
  std::deque<JaggedBatch> batches;
  for (const Step& step : steps) batches.emplace_back(step.parts);

  const std::int32_t width = options.width;
  std::vector<float> dense = graph.value().initial_dense(1), ddense(dense.size());
  std::vector<float> rows(static_cast<std::size_t>(options.items) * width), drows(rows.size());
  std::vector<float> logits(options.batch);
  for (float& x : rows) x = static_cast<float>(0.1 * (2 * rng.uniform() - 1));
  nn::Session session(graph.value(), options.mixed ? nn::Precision::kMixed : nn::Precision::kF32);
  ThreadPool pool(std::max<std::size_t>(1, options.threads - 1));  // and this thread
  ThreadExecutor threaded(pool, [](std::function<void()> work) { work(); });
  InlineExecutor alone;
  Executor& executor = options.threads == 1 ? static_cast<Executor&>(alone) : threaded;
  const SystemClock clock;
  std::vector<double> took;
  double loss = 0;
  auto begin = clock.now();
  for (std::size_t n = 0; took.empty() || seconds(clock.now() - begin) < options.seconds; ++n) {
    if (n == steps.size()) begin = clock.now();  // memory has grown by now
    const Step& step = steps[n % steps.size()];
    const nn::ConstMatrix table{rows.data(), step.rows, width, width};
    const nn::Matrix dtable{drows.data(), step.rows, width, width};
    const nn::Catalogue catalogue{step.catalogue, step.log_expected};
    nn::StepOutput output{std::span(&dtable, 1), ddense, logits};
    const auto before = clock.now();
    session.train({batches[n % steps.size()].inputs(), std::span(&table, 1), dense,
                   std::span(&catalogue, 1), n},
                  executor, output);
    if (n >= steps.size()) took.push_back(seconds(clock.now() - before));
    loss = output.loss;
  }
  std::ranges::nth_element(took, took.begin() + took.size() / 2);
  std::printf("{\"sessions_per_s\": %.1f, \"steps\": %zu, \"loss\": %.4f}\n",
              options.batch / took[took.size() / 2], took.size(), loss);
  return 0;
}

}  // namespace
}  // namespace meander

int main(int argc, char** argv) {
  meander::Options options;
  CLI::App app("The training speed of the model of the next item");
  app.add_option("sessions", options.sessions)->required();
  app.add_option("--batch", options.batch);
  app.add_option("--items", options.items);
  app.add_option("--drawn", options.drawn);
  app.add_option("--threads", options.threads);
  app.add_option("--parts", options.parts);
  app.add_option("--seconds", options.seconds);
  app.add_option("--dropout", options.dropout);
  app.add_option("--width", options.width);
  app.add_flag("--mixed", options.mixed);
  CLI11_PARSE(app, argc, argv);
  return meander::run(options);
}
