// SPDX-License-Identifier: Apache-2.0
#include "launch/bench/bench.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <boost/json/array.hpp>
#include <limits>

#include "launch/report.h"
#include "launch/text.h"

namespace meander::launch {
namespace bench {
namespace {

constexpr AddBenchmark kBenchmarks[] = {
    add_table, add_ops, add_step, add_train, add_checkpoint, add_cut, add_serve, add_data, add_wire,
};

double ratio(const Row& row) {
  return row.limit > 0 ? row.figure / row.limit : std::numeric_limits<double>::quiet_NaN();
}

boost::json::object to_json(const Row& row) {
  return {{"name", row.name},
          {"figure", json_number(row.figure)},
          {"limit", row.limit > 0 ? json_number(row.limit) : nullptr},
          {"limit_name", row.limit_name},
          {"ratio", json_number(ratio(row))},
          {"unit", row.unit},
          {"threads", row.threads}};
}

// Three or more significant digits.
std::string short_number(double value) {
  if (value >= 10'000) return grouped(static_cast<std::uint64_t>(value));
  return fixed(value, value >= 100 ? 0 : value >= 10 ? 1 : value >= 1 ? 2 : 3);
}

std::string padded(const std::string& text, std::size_t width, bool to_the_right = false) {
  const std::string space(width > text.size() ? width - text.size() : 0, ' ');
  return to_the_right ? space + text : text + space;
}

std::string table(const std::vector<Row>& rows) {
  std::size_t width = 4;
  for (const Row& row : rows) width = std::max(width, row.name.size());
  std::string text = padded("what", width) + "  threads      figure       limit  ratio  unit\n";
  for (const Row& row : rows) {
    const bool limited = row.limit > 0;
    text += padded(row.name, width) + padded(std::to_string(row.threads), 9, true) +
            padded(short_number(row.figure), 12, true) +
            padded(limited ? short_number(row.limit) : "-", 12, true) +
            padded(fixed(ratio(row), 2), 7, true) + "  " + row.unit +
            (limited ? " (limit: " + row.limit_name + ")" : "") + "\n";
  }
  return text;
}

Status run(Context& context, const Settings& settings, const Measure& measure) {
  if (settings.repetitions < 5) return invalid("--repetitions must be at least 5");
  ASSIGN_OR_RETURN(const std::vector<Row> rows, measure(settings));
  CHECK(!rows.empty());
  context.result = to_json(rows.front());
  boost::json::array all;
  for (const Row& row : rows) all.push_back(to_json(row));
  context.result["rows"] = std::move(all);
  context.summary = table(rows);
  return {};
}

}  // namespace

CLI::App& add_benchmark(CLI::App& family, Context& context, const std::string& name,
                        const std::string& question, const std::string& example, Measure measure) {
  CLI::App& command = add_command(family, context, name, question, example);
  auto settings = std::make_shared<Settings>();
  command
      .add_option("--repetitions", settings->repetitions,
                  "measurements of each figure and limit, in turns; the median counts")
      ->capture_default_str();
  command.add_flag("--quick", settings->quick, "a smoke test: the figures mean nothing");
  command.callback([&context, settings, measure = std::move(measure)] {
    context.action = [&context, settings, measure] { return run(context, *settings, measure); };
  });
  return command;
}

}  // namespace bench

void add_bench(CLI::App& app, Context& context) {
  CLI::App& family = *app.add_subcommand(
      "bench", "Measures this machine: each figure beside the limit that the machine sets to it.");
  family.footer("meander bench ops");
  family.require_subcommand(1);
  for (const bench::AddBenchmark add : bench::kBenchmarks) add(family, context);
}

}  // namespace meander::launch
