// SPDX-License-Identifier: Apache-2.0
#include "launch/bench/workload.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <numeric>

#include "common/rng.h"
#include "data/prepare.h"
#include "launch/bench/flop.h"
#include "launch/job.h"

namespace meander::launch::bench {
namespace {

constexpr std::uint64_t kSeed = 1;
constexpr std::uint32_t kLongest = 100;  // of full and mean25
constexpr double kMean = 25;
constexpr std::uint32_t kLengthMax = 2000, kContextsMax = 64;
const char* const kLog = "bench/log";
const char* const kEvents = "bench/events.csv";
const char* const kJob = "bench/job.yaml";

// 0 when it is not a number.
std::uint32_t fixed_length(const std::string& lengths) {
  std::uint32_t length = 0;
  const char* const end = lengths.data() + lengths.size();
  const auto [stopped, error] = std::from_chars(lengths.data(), end, length);
  return error == std::errc() && stopped == end ? length : 0;
}

std::uint32_t longest(const Workload& workload) {
  const std::uint32_t length = fixed_length(workload.lengths);
  return length != 0 ? length : kLongest;
}

bool is_lstm(const Workload& workload) { return workload.model == "lstm"; }
std::uint32_t layers(const Workload& workload) {
  return workload.layers != 0 ? workload.layers : is_lstm(workload) ? 2 : 1;
}
bool has_category(const Workload& workload) { return !is_lstm(workload); }

// Zipf's law with exponent 1, by the inverse of its continuous form: P(item <= r) = ln r / ln n.
std::uint64_t zipf(Rng& rng, std::uint32_t n) {
  return std::min<std::uint64_t>(
      n, static_cast<std::uint64_t>(std::pow(static_cast<double>(n) + 1, rng.uniform())));
}

void append(std::string& text, std::uint64_t number, char behind) {
  char digits[24];
  const auto [end, error] = std::to_chars(digits, digits + sizeof digits, number);
  text.append(digits, end);
  text += behind;
}

std::string context_name(std::uint32_t context) { return "context" + std::to_string(context); }

// One user after another, so that users' targets come in their order, and no two share a batch's
// work. A user has one target, its last event.
std::string events_csv(const Workload& workload) {
  Rng rng(kSeed);
  std::string text = "time,user,item,category";
  for (std::uint32_t c = 0; c < workload.contexts; ++c) text += "," + context_name(c);
  text += '\n';
  std::uint64_t time = 0, user = 0;
  for (const std::uint32_t length : history_lengths(workload)) {
    ++user;
    for (std::uint32_t i = 0; i <= length; ++i) {
      const std::uint64_t item = zipf(rng, workload.items);
      append(text, ++time, ',');
      append(text, user, ',');
      append(text, item, ',');
      append(text, mix64(item) % workload.categories + 1, ',');
      for (std::uint32_t c = 0; c < workload.contexts; ++c) {
        append(text, zipf(rng, workload.items), ',');
      }
      text.back() = '\n';
    }
  }
  return text;
}

std::string slots(const Workload& workload) {
  std::string names = has_category(workload) ? "item, category" : "item";
  for (std::uint32_t c = 0; c < workload.contexts; ++c) names += ", " + context_name(c);
  return names;
}

// What some models have besides, as the jobs of examples/ have it.
std::string more(const Workload& w) {
  if (w.model == "bst") return "\n  heads: 4";
  if (w.model == "decay") return "\n  decay: learned";
  return "";
}

std::string job_yaml(const Workload& w) {
  const std::uint32_t width = is_lstm(w) ? 64 : 18, hidden = is_lstm(w) ? 64 : 36;
  const auto text = [](std::uint32_t value) { return std::to_string(value); };
  return "name: bench\ndata:\n  path: " + std::string(kLog) + "\n  history: " + text(longest(w)) +
         "\n  negatives: {kind: " + (w.candidates == 1 ? "none" : "popular") +
         "}\n  test: {part: none}\nmodel:\n  kind: " + w.model +
         "\n  embedding: " + text(w.embedding != 0 ? w.embedding : width) +
         "\n  hidden: " + text(w.hidden != 0 ? w.hidden : hidden) +
         "\n  layers: " + text(layers(w)) + more(w) + "\n  slots: [" + slots(w) +
         "]\ntrain:\n  batch: " + text(w.batch) + "\n";
}

}  // namespace

Status check(const Workload& w) {
  if (w.lengths != "full" && w.lengths != "mean25" &&
      (fixed_length(w.lengths) < 1 || fixed_length(w.lengths) > kLengthMax)) {
    return invalid("--lengths must be full, mean25 or a number from 1 to " +
                   std::to_string(kLengthMax) + ", not '" + w.lengths + "'");
  }
  if (w.candidates < 1 || w.candidates > 2) return invalid("--candidates must be 1 or 2");
  if (w.items < 2 || w.categories < 1) return invalid("--items must be 2 at least");
  if (w.contexts > kContextsMax) {
    return invalid("--contexts must be at most " + std::to_string(kContextsMax));
  }
  if (w.samples < w.batch) return invalid("--samples must be a batch at least");
  return {};
}

std::vector<std::uint32_t> history_lengths(const Workload& workload) {
  Rng rng(kSeed);
  std::vector<std::uint32_t> lengths(workload.samples / workload.candidates, longest(workload));
  if (workload.lengths != "mean25") return lengths;
  for (std::uint32_t& length : lengths) {
    const double drawn = -kMean * std::log(1 - rng.uniform());
    length = static_cast<std::uint32_t>(std::clamp(drawn, 1.0, double{kLongest}));
  }
  return lengths;
}

Status write_log(Storage& storage, const Workload& workload) {
  RETURN_IF_ERROR(storage.make_directories("bench"));
  const std::string csv = events_csv(workload), job = job_yaml(workload);
  RETURN_IF_ERROR(storage.write_atomic(kEvents, csv.data(), csv.size()));
  RETURN_IF_ERROR(storage.write_atomic(kJob, job.data(), job.size()));
  data::PrepareOptions options;
  options.format = data::Format::kCsv;
  options.in = {kEvents};
  options.out = kLog;
  options.schema.columns = {{"time", data::ColumnRole::kTime, data::ColumnType::kInt},
                            {"user", data::ColumnRole::kUser, data::ColumnType::kInt},
                            {"item", data::ColumnRole::kItem, data::ColumnType::kInt},
                            {"category", data::ColumnRole::kCategory, data::ColumnType::kInt}};
  for (std::uint32_t c = 0; c < workload.contexts; ++c) {
    options.schema.columns.push_back(
        {context_name(c), data::ColumnRole::kContext, data::ColumnType::kInt});
  }
  options.holdout = data::HoldoutSpec{data::Holdout::kNone, 0};
  options.targets_last = 1;
  ASSIGN_OR_RETURN(const data::PrepareReport report, data::prepare(storage, options));
  CHECK_EQ(report.train_targets, workload.samples / workload.candidates);
  return storage.remove(kEvents);
}

Result<Plan> plan_of(Storage& storage, const Workload& workload,
                     const std::vector<std::string>& sets) {
  std::vector<std::string> all = sets;
  if (workload.precision != "f32") all.push_back("train.precision=" + workload.precision);
  if (workload.parts != 0) all.push_back("train.parts=" + std::to_string(workload.parts));
  ASSIGN_OR_RETURN(LoadedJob job, load_job(storage, kJob, all));
  return make_plan(storage, std::move(job));
}

double flop_per_sample(const Workload& workload, const nn::Graph& graph) {
  const std::vector<std::uint32_t> lengths = history_lengths(workload);
  nn::Layout all;
  all.groups = static_cast<std::int32_t>(lengths.size());
  all.candidates = static_cast<std::int32_t>(workload.candidates);
  all.history_rows = std::accumulate(lengths.begin(), lengths.end(), 0);
  all.batch_negatives = all.history_rows - all.groups;
  return training_flop(graph, all) / all.samples();
}

void add_workload(CLI::App& command, Workload& w) {
  command.add_option("--model", w.model, kWorkloadModels)->capture_default_str();
  command
      .add_option("--lengths", w.lengths,
                  "of histories: full (100), mean25 (exponential, mean 25), or a number")
      ->capture_default_str();
  command.add_option("--batch", w.batch, "samples of a batch")->capture_default_str();
  command.add_option("--parts", w.parts, "of a batch; as train.parts has it by default");
  command
      .add_option("--candidates", w.candidates,
                  "samples that share a history: 1, or 2 (a target and a negative)")
      ->capture_default_str();
  command.add_option("--precision", w.precision, "as train.precision")->capture_default_str();
  command.add_option("--embedding", w.embedding, "floats of a row; 18, of the LSTM 64 by default");
  command.add_option("--hidden", w.hidden, "recurrent state; 36, of the LSTM 64 by default");
  command.add_option("--layers", w.layers, "recurrent layers; of the LSTM 2 by default");
  command.add_option("--items", w.items, "different items")->capture_default_str();
  command.add_option("--categories", w.categories, "their categories")->capture_default_str();
  command
      .add_option("--contexts", w.contexts,
                  "further slots of a sample, each with a table of as many values as items")
      ->capture_default_str();
  command.add_option("--samples", w.samples, "in the log; passes repeat them")
      ->capture_default_str();
}

}  // namespace meander::launch::bench
