// SPDX-License-Identifier: Apache-2.0
// How near to the processor's peak are the products, the functions and whole ops of the models?
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <vector>

#include "launch/bench/bench.h"
#include "launch/bench/flop.h"
#include "launch/bench/measure.h"
#include "launch/bench/op_step.h"
#include "launch/bench/peak.h"
#include "launch/suggest.h"
#include "models/model.h"
#include "nn/simd/kernels.h"

namespace meander::launch::bench {
namespace {

constexpr double kGiga = 1e9;

struct Options {
  std::int32_t rows = 32;  // of a part: a batch of 128 in its 4 parts
  std::int32_t length = 100;
  std::int32_t candidates = 1;
  std::string isa;
  std::string only;  // products, functions, ops; empty: all
};

// How long one measurement takes.
double probe_seconds(const Settings& settings) { return settings.quick ? 1e-4 : 5e-3; }

struct Shape {
  std::int32_t m, k, n;
  const char* where;
};
constexpr Shape kShapes[] = {
    {6400, 36, 108, "GRU input"},       {16, 36, 72, "GRU gates, 16 rows"},
    {32, 36, 72, "GRU gates, 32 rows"}, {32, 36, 36, "GRU candidate"},
    {32, 72, 36, "GRU gates back"},     {9, 36, 72, "GRU gates, 9 rows"},
    {128, 64, 256, "LSTM 64"},          {128, 256, 64, "LSTM 64 back"},
    {96, 36, 80, "attention 1"},        {96, 80, 40, "attention 2"},
    {96, 80, 36, "attention 1 back"},   {96, 36, 100, "auxiliary 1"},
    {96, 100, 50, "auxiliary 2"},       {96, 100, 36, "auxiliary 1 back"},
    {128, 144, 200, "head 1"},          {128, 200, 80, "head 2"},
    {12800, 144, 80, "large"},
};

// The operands of one thread's products, at cache lines.
class Operands {
 public:
  Operands(const nn::Kernels& kernels, const Shape& s) {
    const std::size_t sizes[] = {std::size_t(s.m) * s.k, std::size_t(s.m) * s.n,
                                 std::size_t(s.k) * s.n, std::size_t(s.k) * s.n,
                                 kernels.packed_floats(s.k, s.n)};
    std::size_t all = kLine;
    for (const std::size_t size : sizes) all += size + kLine;
    memory_.assign(all, 0.01f);
    const std::size_t off = reinterpret_cast<std::uintptr_t>(memory_.data()) / sizeof(float);
    float* next = memory_.data() + (kLine - off % kLine) % kLine;
    float** const places[] = {&a, &c, &w, &dw, &packed};
    for (std::size_t i = 0; i < std::size(sizes); ++i) {
      *places[i] = next;
      next += (sizes[i] + kLine - 1) / kLine * kLine;
    }
    kernels.pack(w, s.n, s.k, s.n, false, packed);
  }
  float *a, *c, *w, *dw, *packed;

 private:
  static constexpr std::size_t kLine = 16;
  std::vector<float> memory_;
};

std::string shape_text(const Shape& s) {
  return std::to_string(s.m) + "x" + std::to_string(s.k) + "x" + std::to_string(s.n) + ", " +
         s.where;
}

void add_shape(const nn::Kernels& kernels, const Shape& s, unsigned threads,
               const Settings& settings, std::vector<Row>& rows) {
  std::vector<std::unique_ptr<Operands>> operands;
  for (unsigned t = 0; t < threads; ++t) {
    operands.push_back(std::make_unique<Operands>(kernels, s));
  }
  const double flop = 2.0 * s.m * s.k * s.n, time = probe_seconds(settings);
  const auto product = [&](unsigned t) {
    Operands& o = *operands[t];
    kernels.gemm(o.a, s.k, o.packed, nullptr, o.c, s.n, s.m, s.k, s.n, false);
  };
  const auto gradient = [&](unsigned t) {
    Operands& o = *operands[t];
    kernels.gemm_tn(o.a, s.k, o.c, s.n, o.dw, s.n, s.m, s.k, s.n);
  };
  const std::vector<double> medians = medians_in_turn(
      settings.repetitions,
      {[&](auto& f) { f.push_back(fma_peak(threads, time)); },
       [&](auto& f) { f.push_back(rate_on_threads(threads, time, flop, product)); },
       [&](auto& f) { f.push_back(rate_on_threads(threads, time, flop, gradient)); }});
  const char* const names[] = {"product ", "weight gradient "};
  for (std::size_t i = 0; i < std::size(names); ++i) {
    rows.push_back({names[i] + shape_text(s), medians[1 + i] / kGiga, medians[0] / kGiga,
                    fma_name(), "GFLOP/s", threads});
  }
}

// Values at a time; with the results they stay in the first cache.
constexpr std::size_t kValues = 2048;

void add_functions(const nn::Kernels& kernels, unsigned threads, const Settings& settings,
                   std::vector<Row>& rows) {
  struct Function {
    const char* name;
    void (*run)(const float*, float*, std::size_t);
  };
  const Function functions[] = {
      {"sigmoid", kernels.sigmoid}, {"tanh", kernels.tanh}, {"exp", kernels.exp}};
  std::vector<std::vector<float>> x(threads, std::vector<float>(kValues, 0.3f)), y = x;
  const double time = probe_seconds(settings);
  std::vector<Probe> probes = {[&](auto& f) { f.push_back(fma_peak(threads, time)); }};
  for (const Function& function : functions) {
    probes.push_back([&, run = function.run](auto& f) {
      f.push_back(rate_on_threads(threads, time, kValues,
                                  [&](unsigned t) { run(x[t].data(), y[t].data(), kValues); }));
    });
  }
  const std::vector<double> medians = medians_in_turn(settings.repetitions, probes);
  for (std::size_t i = 0; i < std::size(functions); ++i) {
    // A polynomial good to float32 takes 6 multiply-adds, the exponent and the quotient some more.
    constexpr double kFlopPerValue = 2 * 12;
    rows.push_back({functions[i].name, medians[1 + i] / kGiga, medians[0] / kFlopPerValue / kGiga,
                    "12 FMA a value", "G values/s", threads});
  }
}

struct Model {
  const char* kind;
  std::int32_t width, hidden, layers;
  std::vector<std::string> ops;  // those to show
};

nn::Graph build(const Model& model) {
  models::ModelSpec spec;
  spec.kind = model.kind;
  spec.hidden = model.hidden;
  spec.layers = model.layers;
  spec.slots = {{"item", 0, model.width / 2, true}, {"category", 1, model.width / 2, true}};
  Result<nn::Graph> graph = models::build_model(spec);
  return std::move(graph).value();
}

// Forward and backward of each op, all threads at once, each on a part of its own.
void add_ops_of(const Model& model, unsigned threads, const Options& options,
                const Settings& settings, std::vector<Row>& rows) {
  const nn::Graph graph = build(model);
  std::vector<std::unique_ptr<OpStep>> steps;
  for (unsigned t = 0; t < threads; ++t) {
    steps.push_back(
        std::make_unique<OpStep>(graph, options.rows, options.candidates, options.length));
  }
  const double time = probe_seconds(settings);
  const int times = settings.quick ? 1 : 5;
  const auto& ops = graph.ops();
  // Of every op its rate forward and backward, and the rate of both.
  const Probe probe = [&](std::vector<double>& figures) {
    std::vector<OpStep::Times> took(threads);
    seconds_on_threads(threads, [&](unsigned t) { took[t] = steps[t]->run(times); });
    for (std::size_t op = 0; op < ops.size(); ++op) {
      const double flop = times * forward_flop(graph, *ops[op], steps[0]->layout());
      double forward = 0, backward = 0, both = 0;
      for (const OpStep::Times& own : took) {
        forward += flop / own.forward_s[op];
        backward += 2 * flop / own.backward_s[op];
        both += 3 * flop / (own.forward_s[op] + own.backward_s[op]);
      }
      figures.insert(figures.end(), {forward, backward, both});
    }
  };
  const std::vector<double> medians = medians_in_turn(
      settings.repetitions, {[&](auto& f) { f.push_back(fma_peak(threads, 4 * time)); }, probe});
  const auto add = [&](const std::string& name, double figure) {
    rows.push_back({name, figure / kGiga, medians[0] / kGiga, fma_name(), "GFLOP/s", threads});
  };
  for (std::size_t op = 0; op < ops.size(); ++op) {
    const std::string name = ops[op]->name();
    if (std::ranges::find(model.ops, name) == model.ops.end()) continue;
    const double* figures = &medians[1 + 3 * op];
    add(name + " forward and backward", figures[2]);
    if (name == "auxiliary") continue;  // it does all of its work in forward
    add(name + " forward", figures[0]);
    add(name + " backward", figures[1]);
  }
}

const std::vector<Model>& shown_models() {
  static const std::vector<Model> models = {
      {"dien", 36, 36, 1, {"gru1", "attention", "augru", "auxiliary"}},
      {"lstm", 64, 64, 2, {"lstm1", "lstm2"}}};
  return models;
}

Result<std::vector<Row>> measure_ops(const Options& options, const Settings& settings) {
  const nn::Kernels* kernels =
      options.isa.empty() ? &nn::kernels() : nn::kernels_for(options.isa.c_str());
  if (kernels == nullptr) return invalid("--isa: this machine does not run '" + options.isa + "'");
  const std::vector<std::string> sets = {"ops", "products", "functions"};
  if (!options.only.empty() && std::ranges::find(sets, options.only) == sets.end()) {
    return invalid("--only: no '" + options.only + "'; known: " + join(sets) +
                   did_you_mean(options.only, sets));
  }
  if (options.rows < 1 || options.length < 2 || options.candidates < 1) {
    return invalid("--rows and --candidates must be at least 1, --length 2");
  }
  const auto wants = [&](const char* set) { return options.only.empty() || options.only == set; };
  std::vector<Row> rows;
  for (const unsigned threads : thread_counts()) {
    for (const Model& model : shown_models()) {
      if (wants("ops")) add_ops_of(model, threads, options, settings, rows);
    }
    for (const Shape& shape : kShapes) {
      if (wants("products")) add_shape(*kernels, shape, threads, settings, rows);
    }
    if (wants("functions")) add_functions(*kernels, threads, settings, rows);
  }
  return rows;
}

}  // namespace

void add_ops(CLI::App& family, Context& context) {
  auto options = std::make_shared<Options>();
  CLI::App& command = add_benchmark(
      family, context, "ops",
      "How near to the processor's peak are the products, functions and ops of the models?",
      "meander bench ops --only ops --rows 32 --length 100",
      [options](const Settings& settings) { return measure_ops(*options, settings); });
  command.add_option("--only", options->only, "ops, products or functions; all by default");
  command.add_option("--rows", options->rows, "histories of a part")->capture_default_str();
  command.add_option("--length", options->length, "behaviours of each history")
      ->capture_default_str();
  command.add_option("--candidates", options->candidates, "samples that share a history")
      ->capture_default_str();
  command.add_option("--isa", options->isa,
                     "of products and functions: v2, v3 or v4; the best by default");
}

}  // namespace meander::launch::bench
