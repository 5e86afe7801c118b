// SPDX-License-Identifier: Apache-2.0
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>

#include "data/generate.h"
#include "launch/cli.h"

namespace meander::launch {
namespace {

Status generate(Context& context, const data::GenerateOptions& options) {
  ASSIGN_OR_RETURN(const data::GenerateReport report, data::generate(*context.storage, options));
  context.result = {{"users", report.users},
                    {"items", report.items},
                    {"events", report.events},
                    {"oracle_auc", report.oracle_auc}};
  context.summary = std::to_string(report.events) + " events of " + std::to_string(report.users) +
                    " users on " + std::to_string(report.items) + " items in " + options.out +
                    "; who knows the truth reaches an AUC of " + std::to_string(report.oracle_auc);
  return {};
}

}  // namespace

void add_generate(CLI::App& app, Context& context) {
  CLI::App& command = add_command(
      app, context, "generate",
      "Writes an event log of users whose interests drift and shift, with the truth beside it.",
      "meander generate --out gen --users 1000 --items 500 --events 100000 --seed 1");
  auto options = std::make_shared<data::GenerateOptions>();
  command.add_option("--out", options->out, "folder to write")->required()->check(why_not_folder);
  command.add_option("--users", options->users, "users")->capture_default_str();
  command.add_option("--items", options->items, "items")->capture_default_str();
  command.add_option("--events", options->events, "events")->capture_default_str();
  command.add_option("--categories", options->categories, "categories of items")
      ->capture_default_str();
  command.add_option("--seed", options->seed, "the same seed writes the same log")
      ->capture_default_str();
  command.add_option("--shift-at", options->shift_at,
                     "fraction of the log at which interests jump; none by default");
  command.add_option("--drift", options->drift, "how fast interests drift")->capture_default_str();
  command.add_option("--focus", options->focus, "how predictable users are")->capture_default_str();
  command.add_option("--popularity", options->popularity, "Zipf exponent of items in a category")
      ->capture_default_str();
  command.add_flag("--jsonl", options->jsonl, "write events.jsonl in place of events.csv");
  command.callback([&context, options] {
    context.action = [&context, options] { return generate(context, *options); };
  });
}

}  // namespace meander::launch
