// SPDX-License-Identifier: Apache-2.0
#include "launch/prepare.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <cmath>
#include <cstring>
#include <filesystem>

#include "launch/cli.h"
#include "launch/folder_lock.h"
#include "launch/suggest.h"
#include "launch/text.h"
#include "launch/yaml.h"
#include "proto/log_schema.pb.h"

namespace meander::launch {
namespace {

Result<data::Schema> read_schema(Storage& storage, const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, read_text(storage, path));
  job::LogSchema written;
  Origins origins;
  RETURN_IF_ERROR(read_yaml(text, path, written, origins));
  data::Schema schema;
  schema.delimiter = written.delimiter();
  schema.header = written.header();
  ASSIGN_OR_RETURN(schema.time_unit, data::parse_time_unit(written.time_unit()));
  for (int i = 0; i < written.columns_size(); ++i) {
    const job::LogSchema::Column& column = written.columns(i);
    const std::string at = "columns[" + std::to_string(i) + "].";
    data::ColumnSpec spec;
    spec.name = column.name();
    auto role = data::parse_role(column.role());
    if (!role.ok()) {
      return std::move(role).status().context(origin_of(origins, at + "role") + ": " + at + "role");
    }
    auto type = data::parse_type(column.type());
    if (!type.ok()) {
      return std::move(type).status().context(origin_of(origins, at + "type") + ": " + at + "type");
    }
    spec.role = role.value();
    spec.type = type.value();
    schema.columns.push_back(std::move(spec));
  }
  Status status = data::check_schema(schema);
  if (!status.ok()) return std::move(status).context(path);
  return schema;
}

Result<data::PrepareOptions> to_options(Storage& storage, const PrepareFlags& flags) {
  data::PrepareOptions options;
  ASSIGN_OR_RETURN(options.format, data::parse_format(flags.format));
  options.in = flags.in;
  options.test_in = flags.test_in;
  options.out = flags.out;
  options.attributes = flags.attributes;
  options.test_negatives = flags.test_negatives;
  options.test_seed = flags.test_seed;
  options.history = flags.history;
  options.streams = flags.streams;
  options.memory_bytes = std::uint64_t{flags.memory_mb} << 20;
  options.refused_share_max = flags.refused_max;
  options.refusals_kept = flags.refusals;
  if (!std::isnan(flags.label_min)) options.label_min = flags.label_min;
  options.stay_s = flags.stay;
  if (!std::isnan(flags.stay_filled)) options.stay_filled_s = flags.stay_filled;
  if (flags.min_history >= 0) options.min_history = flags.min_history;
  if (flags.targets_last >= 0) options.targets_last = flags.targets_last;
  if (!flags.test_draw.empty()) {
    ASSIGN_OR_RETURN(options.test_draw, data::parse_negatives(flags.test_draw));
  }
  if (!flags.holdout.empty()) {
    ASSIGN_OR_RETURN(options.holdout, data::parse_holdout(flags.holdout));
  }
  const bool needs_schema = options.format == data::Format::kCsv ||
                            options.format == data::Format::kTsv ||
                            options.format == data::Format::kJsonl;
  if (needs_schema && flags.schema.empty()) {
    return invalid("format " + flags.format +
                   " needs --schema FILE: which column is the user, the item, the time");
  }
  if (!flags.schema.empty()) {
    ASSIGN_OR_RETURN(options.schema, read_schema(storage, flags.schema));
  }
  return options;
}

void note_report(const Context& context, const data::PrepareReport& report, double seconds) {
  context.note("prepared " + grouped(report.events) + " events of " + grouped(report.users) +
               " users on " + grouped(report.items) + " items: " + grouped(report.train_targets) +
               " training and " + grouped(report.test_targets) + " test targets, " +
               fixed(seconds, 1) + " s");
  if (report.labels_known > 0) {
    context.note("second label: known of " + grouped(report.labels_known) + " events, 1 of " +
                 grouped(report.labels_positive));
  }
  if (report.refused == 0) return;
  context.note("refused " + grouped(report.refused) + " of " + grouped(report.records) +
               " records:");
  for (const auto& [reason, count] : report.refused_by_reason) {
    context.note("  " + grouped(count) + "  " + reason);
  }
  for (const std::string& refusal : report.refusals) context.note("  " + refusal);
}

}  // namespace

void add_prepare_flags(CLI::App& command, PrepareFlags& flags) {
  command.add_option("--format", flags.format,
                     "ml-1m, globo, ml-100k, sequences, pairs, sessions, csv, tsv, jsonl or cora");
  command.add_option("--in", flags.in, "files, or a folder; *.zst too");
  command.add_option("--out", flags.out, "folder of the prepared log; appears whole or not at all")
      ->check(why_not_folder);
  command.add_option("--schema", flags.schema, "YAML that names the columns of csv, tsv, jsonl");
  command.add_option(
      "--holdout", flags.holdout,
      "test part: last (of each user), last+validation, time:2017-10-13, given, none");
  command.add_option("--test-in", flags.test_in, "files whose events are the test targets");
  command.add_option("--attributes", flags.attributes,
                     "JSON {item: [attribute, ...]}: the first is the item's category");
  command.add_option("--min-history", flags.min_history, "events of its user before a target");
  command.add_option("--targets-last", flags.targets_last,
                     "newest training events of a user that are targets; 0: all");
  command.add_option("--stay", flags.stay,
                     "second label of an event: 1 if the user's next one, of the same session, "
                     "comes so many seconds later or more");
  command.add_option(
      "--stay-filled", flags.stay_filled,
      "a stay of exactly so many seconds was filled in and is not known (globo: 30); "
      "0: none was");
  command.add_option("--label-min", flags.label_min,
                     "second label: 1 if the rating (ml-1m, ml-100k) or the schema's column of "
                     "role label is so much or more");
  command.add_option("--test-negatives", flags.test_negatives, "file of fixed test negatives");
  command.add_option("--test-draw", flags.test_draw,
                     "other test negatives: popular, uniform or recent, how many for a target, and "
                     "what they may not be of (history, user, known): uniform:100:known");
  command.add_option("--test-seed", flags.test_seed, "draws the test negatives that no file lists")
      ->capture_default_str();
  command
      .add_option("--history", flags.history, "behaviours that a test negative may not be among")
      ->capture_default_str();
  command.add_option("--streams", flags.streams, "shards at least: so many workers can share it")
      ->capture_default_str();
  command.add_option("--memory-mb", flags.memory_mb, "of a shard while it is sorted")
      ->capture_default_str();
  command
      .add_option("--refused-max", flags.refused_max, "share of refused records that is an error")
      ->capture_default_str();
  command.add_option("--refusals", flags.refusals, "refused records to show")
      ->capture_default_str();
}

Status parse_prepare_flags(std::vector<std::string> words, PrepareFlags& flags) {
  CLI::App app;
  add_prepare_flags(app, flags);
  std::reverse(words.begin(), words.end());  // CLI11 takes them from the back
  try {
    app.parse(words);
  } catch (const CLI::ParseError& e) {
    return invalid(std::string(e.what()) + "; see meander prepare --help");
  }
  return {};
}

namespace {

Result<data::PrepareReport> prepare_locked(const Context& context, const PrepareFlags& flags) {
  ASSIGN_OR_RETURN(const data::PrepareOptions options, to_options(*context.storage, flags));
  context.note("preparing " + join(flags.in) + " (" + flags.format + ") into " + flags.out);
  const TimePoint start = context.clock.now();
  ASSIGN_OR_RETURN(data::PrepareReport report, data::prepare(*context.storage, options));
  note_report(context, report, seconds(context.clock.now() - start));
  return report;
}

// Of one program at a time: two would write into the same unfinished log.
Result<FolderLock> lock_folder_of(const Context& context, const std::string& out) {
  const std::filesystem::path folder = (std::filesystem::path(out) / "").parent_path();
  const std::string above = folder.has_parent_path() ? folder.parent_path().string() : ".";
  RETURN_IF_ERROR(context.storage->make_directories(above));
  return FolderLock::take(
      above, [&] { context.note("waiting: another program prepares a log in " + above); });
}

Status check_given(const PrepareFlags& flags) {
  if (flags.format.empty()) return invalid("say what the input is: --format ml-1m, csv, ...");
  if (flags.in.empty()) return invalid("say what to read: --in FILE or FOLDER");
  if (flags.out.empty()) return invalid("say where to write: --out FOLDER");
  return {};
}

}  // namespace

Result<data::PrepareReport> prepare_log(const Context& context, const PrepareFlags& flags) {
  RETURN_IF_ERROR(check_given(flags));
  ASSIGN_OR_RETURN(const FolderLock lock, lock_folder_of(context, flags.out));
  return prepare_locked(context, flags);
}

Status prepare_if_missing(const Context& context, const PrepareFlags& flags) {
  RETURN_IF_ERROR(check_given(flags));
  ASSIGN_OR_RETURN(const FolderLock lock, lock_folder_of(context, flags.out));
  if (context.storage->exists(flags.out)) return {};
  return prepare_locked(context, flags).status();
}

}  // namespace meander::launch
