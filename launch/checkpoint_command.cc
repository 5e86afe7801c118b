// SPDX-License-Identifier: Apache-2.0
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <boost/json/array.hpp>
#include <cstdio>
#include <filesystem>

#include "checkpoint/generation.h"
#include "common/partition.h"
#include "launch/cli.h"
#include "launch/suggest.h"
#include "launch/text.h"

namespace meander::launch {
namespace {

std::uint64_t total_rows(const manifest::Manifest& manifest) {
  std::uint64_t rows = 0;
  for (const manifest::Table& table : manifest.tables()) rows += table.rows();
  return rows;
}

std::uint64_t total_bytes(const manifest::Manifest& manifest) {
  std::uint64_t bytes = 0;
  for (const manifest::File& file : manifest.files()) bytes += file.bytes();
  return bytes;
}

boost::json::object describe(const std::string& dir, const manifest::Manifest& manifest) {
  return {{"checkpoint", dir},
          {"generation", manifest.generation()},
          {"digest", manifest.digest()},  // empty: a delta
          {"base", manifest.base()},      // 0: a full one
          {"model", manifest.model()},
          {"written_ms", manifest.written_ms()},
          {"lanes", manifest.lanes()},
          {"rows", total_rows(manifest)},
          {"files", manifest.files_size()},
          {"bytes", total_bytes(manifest)}};
}

// "full", or "delta on gen-000011".
std::string kind_of(const manifest::Manifest& manifest) {
  if (manifest.base() == 0) return "full";
  return "delta on " + checkpoint::generation_name(manifest.base());
}

Status list(Context& context, const std::string& path) {
  ASSIGN_OR_RETURN(const std::vector<std::string> dirs,
                   checkpoint::list_generations(*context.storage, path));
  if (dirs.empty()) return not_found("no complete checkpoint in " + path);
  boost::json::array generations;
  for (const std::string& dir : dirs) {
    ASSIGN_OR_RETURN(const manifest::Manifest manifest,
                     checkpoint::read_manifest(*context.storage, dir));
    generations.push_back(describe(dir, manifest));
    const std::string digest = manifest.base() == 0 ? "  " + manifest.digest() : "";
    context.summary += dir + "  " + kind_of(manifest) + digest + "  " +
                       grouped(total_rows(manifest)) + " rows  " +
                       bytes_text(total_bytes(manifest)) + "  " + manifest.model() + "\n";
  }
  context.result = {{"generations", generations}};
  return {};
}

Status inspect(Context& context, const std::string& path) {
  ASSIGN_OR_RETURN(const checkpoint::Chain chain, checkpoint::open_chain(*context.storage, path));
  const manifest::Manifest& manifest = chain.back().manifest;
  context.result = describe(chain.back().dir, manifest);
  boost::json::array tables, streams, links;
  for (const checkpoint::Link& link : chain) links.emplace_back(link.dir);
  context.result["chain"] = links;
  context.summary = chain.back().dir + "\nmodel   " + manifest.model() + "\nkind    " +
                    kind_of(manifest) +
                    (chain.size() > 2 ? ", of " + std::to_string(chain.size()) + " links" : "") +
                    (manifest.base() == 0 ? "\ndigest  " + manifest.digest() : "") + "\nlanes   " +
                    std::to_string(manifest.lanes()) + "\n";
  for (const manifest::Table& table : manifest.tables()) {
    tables.push_back({{"name", table.name()},
                      {"width", table.width()},
                      {"state_width", table.state_width()},
                      {"optimizer", table.optimizer()},
                      {"step", table.step()},
                      {"rows", table.rows()},
                      {"expire_steps", table.expire_steps()},
                      {"keep_count", table.keep_count()}});
    context.summary += "table   " + table.name() + ": " + grouped(table.rows()) + " rows of " +
                       std::to_string(table.width()) + " + " + std::to_string(table.state_width()) +
                       " (" + table.optimizer() + "), step " + grouped(table.step()) + "\n";
  }
  for (const manifest::Stream& stream : manifest.streams()) {
    streams.push_back(
        {{"stream", stream.stream()}, {"next", stream.next()}, {"ended", stream.ended()}});
    context.summary += "stream  " + std::to_string(stream.stream()) + ": next batch " +
                       grouped(stream.next()) + (stream.ended() ? ", ended" : "") + "\n";
  }
  context.result["tables"] = tables;
  context.result["streams"] = streams;
  if (context.verbose > 0) context.summary += manifest.job();
  return {};
}

Status verify(Context& context, const std::string& path) {
  ASSIGN_OR_RETURN(const std::string dir, checkpoint::resolve_generation(*context.storage, path));
  ASSIGN_OR_RETURN(const checkpoint::Verification found, checkpoint::verify(*context.storage, dir));
  const bool ok = found.errors.empty();
  context.result = {{"ok", ok},
                    {"checkpoint", dir},
                    {"generations", found.generations},
                    {"files", found.files},
                    {"rows", found.rows},
                    {"errors", boost::json::array(found.errors.begin(), found.errors.end())}};
  const std::string links =
      found.generations < 2 ? "" : std::to_string(found.generations) + " generations in a chain, ";
  context.summary = dir + ": " + links + std::to_string(found.files) + " files, " +
                    grouped(found.rows) + " rows, " + (ok ? "all good" : "DAMAGED");
  if (ok) return {};
  return corrupt(dir + ": " + found.errors.front() +
                 (found.errors.size() > 1
                      ? " (and " + std::to_string(found.errors.size() - 1) + " more)"
                      : ""));
}

Status digest(Context& context, const std::string& path) {
  ASSIGN_OR_RETURN(const checkpoint::Chain chain, checkpoint::open_chain(*context.storage, path));
  ASSIGN_OR_RETURN(const std::string digest, checkpoint::read_digest(*context.storage, chain));
  context.result = {{"digest", digest}, {"checkpoint", chain.back().dir}};
  context.summary = digest;
  return {};
}

using KeyDigests = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

// Key and digest of every record of table `table`, by key.
Result<KeyDigests> key_digests(Storage& storage, const checkpoint::Chain& chain,
                               std::uint32_t table) {
  KeyDigests digests;
  RETURN_IF_ERROR(checkpoint::read_table(
      storage, chain, table, 0, kPartitions - 1, [&](const checkpoint::Record& record) -> Status {
        digests.emplace_back(record.key, checkpoint::record_digest(table, record));
        return {};
      }));
  std::sort(digests.begin(), digests.end());
  return digests;
}

struct Difference {
  std::uint64_t same = 0, changed = 0, added = 0, removed = 0;
};

Difference compare(const KeyDigests& before, const KeyDigests& after) {
  Difference difference;
  auto a = before.begin();
  auto b = after.begin();
  while (a != before.end() || b != after.end()) {
    if (b == after.end() || (a != before.end() && a->first < b->first)) {
      ++difference.removed;
      ++a;
    } else if (a == before.end() || b->first < a->first) {
      ++difference.added;
      ++b;
    } else {
      ++(a->second == b->second ? difference.same : difference.changed);
      ++a, ++b;
    }
  }
  return difference;
}

Status diff(Context& context, const std::string& before, const std::string& after) {
  ASSIGN_OR_RETURN(const checkpoint::Chain a, checkpoint::open_chain(*context.storage, before));
  ASSIGN_OR_RETURN(const checkpoint::Chain b, checkpoint::open_chain(*context.storage, after));
  const manifest::Manifest &of_a = a.back().manifest, &of_b = b.back().manifest;
  if (of_a.model() != of_b.model() || of_a.tables_size() != of_b.tables_size()) {
    return invalid("checkpoints of different models: " + a.back().dir + " is of " + of_a.model() +
                   ", " + b.back().dir + " of " + of_b.model());
  }
  boost::json::array tables;
  bool equal = true;
  for (int t = 0; t < of_a.tables_size(); ++t) {
    ASSIGN_OR_RETURN(const KeyDigests rows_a, key_digests(*context.storage, a, t));
    ASSIGN_OR_RETURN(const KeyDigests rows_b, key_digests(*context.storage, b, t));
    const Difference d = compare(rows_a, rows_b);
    equal = equal && d.changed + d.added + d.removed == 0;
    const std::string& name = of_a.tables(t).name();
    tables.push_back({{"name", name},
                      {"same", d.same},
                      {"changed", d.changed},
                      {"added", d.added},
                      {"removed", d.removed}});
    context.summary += name + ": " + grouped(d.same) + " rows equal, " + grouped(d.changed) +
                       " changed, " + grouped(d.added) + " added, " + grouped(d.removed) +
                       " removed\n";
  }
  ASSIGN_OR_RETURN(const std::string digest_a, checkpoint::read_digest(*context.storage, a));
  ASSIGN_OR_RETURN(const std::string digest_b, checkpoint::read_digest(*context.storage, b));
  context.result = {
      {"rows_equal", equal}, {"digests_equal", digest_a == digest_b}, {"tables", tables}};
  return {};
}

Status prune(Context& context, const std::string& path, std::uint32_t keep, bool dry_run) {
  ASSIGN_OR_RETURN(const checkpoint::Retention plan,
                   checkpoint::plan_prune(*context.storage, path, keep));
  if (!dry_run) RETURN_IF_ERROR(checkpoint::prune(*context.storage, path, keep));
  context.result = {{"removed", boost::json::array(plan.removed.begin(), plan.removed.end())},
                    {"kept", boost::json::array(plan.kept.begin(), plan.kept.end())},
                    {"dry_run", dry_run}};
  context.summary = (dry_run ? "would remove " : "removed ") + std::to_string(plan.removed.size()) +
                    " checkpoints, " + std::to_string(plan.kept.size()) + " stay";
  return {};
}

using OnPath = Status (*)(Context&, const std::string&);

void add_on_path(CLI::App& family, Context& context, const std::string& name,
                 const std::string& description, OnPath action) {
  CLI::App& command = add_command(family, context, name, description,
                                  "meander checkpoint " + name + " checkpoints/ml1m-dien");
  auto path = std::make_shared<std::string>();
  command.add_option("DIR", *path, "a checkpoint folder (then: its newest), or one generation")
      ->required();
  command.callback([&context, path, action] {
    context.action = [&context, path, action] { return action(context, *path); };
  });
}

void add_diff(CLI::App& family, Context& context) {
  CLI::App& command = add_command(family, context, "diff", "Compares two checkpoints row by row.",
                                  "meander checkpoint diff checkpoints/a checkpoints/b");
  auto paths = std::make_shared<std::pair<std::string, std::string>>();
  command.add_option("BEFORE", paths->first, "a checkpoint")->required();
  command.add_option("AFTER", paths->second, "another")->required();
  command.callback([&context, paths] {
    context.action = [&context, paths] { return diff(context, paths->first, paths->second); };
  });
}

struct RowsFlags {
  std::string path, table = "item";
};

// The rows of a table on standard output: key, times pushed, weights; in the order of the files.
Status print_rows(Context& context, const RowsFlags& flags) {
  ASSIGN_OR_RETURN(const checkpoint::Chain chain,
                   checkpoint::open_chain(*context.storage, flags.path));
  const auto& tables = chain.back().manifest.tables();
  std::vector<std::string> names;
  for (const manifest::Table& table : tables) names.push_back(table.name());
  const auto found = std::find(names.begin(), names.end(), flags.table);
  if (found == names.end()) {
    return invalid(chain.back().dir + " has no table '" + flags.table + "'; it has " + join(names));
  }
  const auto index = static_cast<std::uint32_t>(found - names.begin());
  const std::uint32_t width = tables[static_cast<int>(index)].width();
  std::uint64_t rows = 0;
  RETURN_IF_ERROR(checkpoint::read_table(
      *context.storage, chain, index, 0, kPartitions - 1,
      [&](const checkpoint::Record& record) -> Status {
        if (!record.admitted) return {};
        std::printf("%llu\t%u", static_cast<unsigned long long>(record.key), record.count);
        for (const float weight : record.values.first(width)) std::printf("\t%.9g", weight);
        std::putchar('\n');
        ++rows;
        return {};
      }));
  context.result = {{"table", flags.table}, {"rows", rows}};
  return {};
}

void add_rows(CLI::App& family, Context& context) {
  CLI::App& command =
      add_command(family, context, "rows", "Prints the rows of a table: key, pushes, weights.",
                  "meander checkpoint rows checkpoints/counting --table item");
  auto flags = std::make_shared<RowsFlags>();
  command.add_option("DIR", flags->path, "a checkpoint")->required();
  command.add_option("--table", flags->table, "which table")->capture_default_str();
  command.callback([&context, flags] {
    context.action = [&context, flags] { return print_rows(context, *flags); };
  });
}

struct PruneFlags {
  std::string path;
  std::uint32_t keep = 2;
  bool dry_run = false;
};

void add_prune(CLI::App& family, Context& context) {
  CLI::App& command = add_command(family, context, "prune",
                                  "Removes all but the newest checkpoints and what these stand on.",
                                  "meander checkpoint prune checkpoints/ml1m-dien --keep 1");
  auto flags = std::make_shared<PruneFlags>();
  command.add_option("DIR", flags->path, "a checkpoint folder")->required();
  command.add_option("--keep", flags->keep, "how many stay")->capture_default_str();
  command.add_flag("--dry-run", flags->dry_run, "only say what would be removed");
  command.callback([&context, flags] {
    context.action = [&context, flags]() -> Status {
      if (flags->keep == 0) return invalid("--keep must be at least 1");
      return prune(context, flags->path, flags->keep, flags->dry_run);
    };
  });
}

}  // namespace

void add_checkpoint(CLI::App& app, Context& context) {
  CLI::App& family = *app.add_subcommand("checkpoint", "Looks after checkpoints.");
  family.footer("meander checkpoint verify checkpoints/ml1m-dien");
  family.require_subcommand(1);
  add_on_path(family, context, "ls", "Lists the checkpoints of a folder.", list);
  add_on_path(family, context, "inspect", "Shows what a checkpoint holds.", inspect);
  add_on_path(family, context, "verify",
              "Reads every byte, of all that it stands on too, and checks it.", verify);
  add_on_path(family, context, "digest", "Prints the hash of all that a checkpoint holds.", digest);
  add_diff(family, context);
  add_rows(family, context);
  add_prune(family, context);
}

}  // namespace meander::launch
