// SPDX-License-Identifier: Apache-2.0
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <CLI/Validators.hpp>
#include <charconv>

#include "data/schema.h"
#include "launch/cli.h"
#include "launch/recommend.h"

namespace meander::launch {
namespace {

struct Flags {
  std::string directory, user, candidates;
  std::size_t k = 10, history = 10;
  bool repeats = false;
};

// Ids that are no numbers were hashed when the log was prepared.
std::uint64_t user_id(const std::string& text) {
  std::uint64_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  return error == std::errc() && end == text.data() + text.size() ? id : data::hash_id(text);
}

Status run_recommend(Context& context, const Flags& flags) {
  if (flags.k == 0) return invalid("--k must be at least 1");
  ASSIGN_OR_RETURN(const auto artefact, serve::Artefact::load(*context.storage, flags.directory));
  ASSIGN_OR_RETURN(const auto ranker, serve::Ranker::create(artefact));
  serve::RankOptions options;
  options.k = flags.k;
  if (flags.candidates == "all") options.candidates = serve::Candidates::kAll;
  if (flags.candidates == "recent") options.candidates = serve::Candidates::kRecent;
  if (flags.repeats) options.repeats = serve::RankOptions::kAllow;
  auto answer = recommend(*artefact, *ranker, user_id(flags.user), options, flags.history);
  if (!answer.ok()) return std::move(answer).status().context(flags.directory);
  context.result = std::move(answer.value().result);
  context.summary = std::move(answer.value().text);
  return {};
}

}  // namespace

void add_recommend(CLI::App& app, Context& context) {
  CLI::App& command =
      add_command(app, context, "recommend",
                  "Says what an export recommends to a user, beside the user's history.",
                  "meander recommend exports/ml1m-dien --user 42 --k 5");
  auto flags = std::make_shared<Flags>();
  command.add_option("export", flags->directory, "directory written by meander export")->required();
  command.add_option("--user", flags->user, "the user's id")->required();
  command.add_option("--k", flags->k, "how many items (default 10)");
  command.add_option("--history", flags->history, "behaviours to show (default 10)");
  command.add_option("--candidates", flags->candidates, "all or recent (default: as exported)")
      ->check(CLI::IsMember({"all", "recent"}));
  command.add_flag("--repeats", flags->repeats, "also what the user had");
  command.callback([&context, flags] {
    context.action = [&context, flags] { return run_recommend(context, *flags); };
  });
}

}  // namespace meander::launch
