// SPDX-License-Identifier: Apache-2.0
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <boost/json/array.hpp>

#include "launch/prepare.h"
#include "launch/text.h"

namespace meander::launch {
namespace {

Status prepare(Context& context, const PrepareFlags& flags) {
  ASSIGN_OR_RETURN(const data::PrepareReport report, prepare_log(context, flags));
  boost::json::object reasons;
  for (const auto& [reason, count] : report.refused_by_reason) reasons[reason] = count;
  context.result = {
      {"users", report.users},
      {"items", report.items},
      {"categories", report.categories},
      {"events", report.events},
      {"refused", report.refused},
      {"streams", report.streams},
      {"records", report.records},
      {"refused_by_reason", reasons},
      {"refusals", boost::json::array(report.refusals.begin(), report.refusals.end())},
      {"train_targets", report.train_targets},
      {"test_targets", report.test_targets},
      {"second_labels", report.labels_known},
      {"second_labels_positive", report.labels_positive},
      {"test_negatives_listed", report.test_negatives_listed},
      {"bytes_read", report.bytes_read}};
  context.summary =
      flags.out + ": " + grouped(report.events) + " events, " + std::to_string(report.streams) +
      " streams; train on it with `path: " + flags.out + "` under data: in a job file";
  return {};
}

}  // namespace

void add_prepare(CLI::App& app, Context& context) {
  CLI::App& command =
      add_command(app, context, "prepare",
                  "Checks, cleans and splits an event log into streams; says what it refused.",
                  "meander prepare --format ml-1m --in ../shared/data/ml1m --out prepared/ml1m");
  auto flags = std::make_shared<PrepareFlags>();
  add_prepare_flags(command, *flags);
  command.callback([&context, flags] {
    context.action = [&context, flags] { return prepare(context, *flags); };
  });
}

}  // namespace meander::launch
