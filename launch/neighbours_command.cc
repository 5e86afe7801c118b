// SPDX-License-Identifier: Apache-2.0
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <CLI/Validators.hpp>
#include <boost/json/array.hpp>
#include <charconv>
#include <chrono>
#include <numeric>
#include <thread>

#include "common/thread_executor.h"
#include "data/schema.h"
#include "launch/cli.h"
#include "launch/neighbours.h"
#include "launch/text.h"

namespace meander::launch {
namespace {

constexpr std::size_t kNeighboursMax = 10'000;

struct Flags {
  std::string directory, of = "users", id, at, out;
  std::size_t k = 10;
};

struct Question {
  const Vectors& vectors;
  std::vector<std::uint32_t> rows;  // of whom
  std::size_t k;
  std::vector<nn::Neighbour> out;
  std::vector<std::int32_t> found;

  Question(const Vectors& v, std::vector<std::uint32_t> of, std::size_t k_of)
      : vectors(v), rows(std::move(of)), k(k_of), out(rows.size() * k), found(rows.size()) {}
  std::span<const nn::Neighbour> answer(std::size_t q) const {
    return std::span(out).subspan(q * k, found[q]);
  }
};

std::string name_of(const serve::Artefact& artefact, const Flags& flags, std::uint64_t id) {
  if (flags.of == "users") return "user " + std::to_string(id);
  const artefact::Item* item = artefact.find_item(id);
  return item != nullptr && !item->title.empty() ? item->title : "item " + std::to_string(id);
}

void answer_one(Context& context, const serve::Artefact& artefact, const Flags& flags,
                const Question& question) {
  const Vectors& vectors = question.vectors;
  const std::uint64_t id = vectors.ids[question.rows[0]];
  boost::json::array neighbours;
  context.summary = name_of(artefact, flags, id) + ", most alike of " +
                    grouped(vectors.ids.size() - 1) + " " + flags.of + ":\n";
  for (const nn::Neighbour& n : question.answer(0)) {
    const std::uint64_t other = vectors.ids[n.row];
    boost::json::object& of = neighbours.emplace_back(boost::json::object()).as_object();
    of["id"] = other;
    of["similarity"] = n.similarity;
    const std::string name = name_of(artefact, flags, other);
    if (flags.of == "items") of["title"] = name;
    context.summary += "  " + fixed(n.similarity, 4) + "  " + name + "\n";
  }
  context.result["id"] = id;
  context.result["neighbours"] = std::move(neighbours);
}

// id,neighbour,similarity
Status write_all(Context& context, const Flags& flags, const Question& question) {
  const Vectors& vectors = question.vectors;
  std::string text = "id,neighbour,similarity\n";
  std::size_t lines = 0;
  char line[80];
  for (std::size_t q = 0; q < question.rows.size(); ++q) {
    for (const nn::Neighbour& n : question.answer(q)) {
      std::snprintf(line, sizeof line, "%llu,%llu,%.6f\n",
                    static_cast<unsigned long long>(vectors.ids[question.rows[q]]),
                    static_cast<unsigned long long>(vectors.ids[n.row]),
                    static_cast<double>(n.similarity));
      text += line;
      ++lines;
    }
  }
  RETURN_IF_ERROR(context.storage->write_atomic(flags.out, text.data(), text.size()));
  context.result["out"] = flags.out;
  context.result["lines"] = lines;
  context.summary = flags.out + ": " + grouped(lines) + " neighbours of " +
                    grouped(question.rows.size()) + " " + flags.of;
  return {};
}

Result<std::int64_t> moment(const serve::Artefact& artefact, const Flags& flags) {
  if (flags.at.empty()) return artefact.description().newest_ms;
  auto at = data::parse_time_ms(flags.at);
  if (!at.ok()) return std::move(at).status().context("--at");
  return at;
}

std::uint64_t id_of(const std::string& text) {
  std::uint64_t id = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
  return error == std::errc() && end == text.data() + text.size() ? id : data::hash_id(text);
}

Status run_neighbours(Context& context, const Flags& flags) {
  if (flags.k == 0 || flags.k > kNeighboursMax) {
    return invalid("--k must be 1 to " + std::to_string(kNeighboursMax));
  }
  if (flags.id.empty() == flags.out.empty()) {
    return invalid("say of whom: --id ID, or of all into a file: --out FILE.csv");
  }
  if (!flags.at.empty() && flags.of == "items") return invalid("--at is for --of users");
  ASSIGN_OR_RETURN(const auto artefact, serve::Artefact::load(*context.storage, flags.directory));
  ASSIGN_OR_RETURN(const std::int64_t at_ms, moment(*artefact, flags));
  ThreadPool pool(std::thread::hardware_concurrency());
  ThreadExecutor executor(pool, [](std::function<void()> done) { done(); });
  const auto began = std::chrono::steady_clock::now();
  auto vectors = flags.of == "users" ? vectors_of_users(artefact, at_ms, executor)
                                     : vectors_of_items(*artefact);
  if (!vectors.ok()) return std::move(vectors).status().context(flags.directory);
  std::vector<std::uint32_t> rows(flags.id.empty() ? vectors.value().ids.size() : 1);
  std::iota(rows.begin(), rows.end(), 0u);
  if (!flags.id.empty()) {
    auto row = vectors.value().row_of(id_of(flags.id));
    if (!row.ok()) return std::move(row).status().context(flags.directory + ": --id");
    rows[0] = row.value();
  }
  Question question(vectors.value(), std::move(rows), flags.k);
  nn::nearest(vectors.value().view(), question.rows, static_cast<std::int32_t>(flags.k),
              question.out, question.found, executor);
  context.result = {{"of", flags.of},
                    {"k", flags.k},
                    {"compared", vectors.value().ids.size()},
                    {"width", vectors.value().width}};
  if (flags.of == "users" && at_ms != 0) context.result["at_ms"] = at_ms;
  context.result["seconds"] =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  if (!flags.out.empty()) return write_all(context, flags, question);
  answer_one(context, *artefact, flags, question);
  return {};
}

}  // namespace

void add_neighbours(CLI::App& app, Context& context) {
  CLI::App& command = add_command(
      app, context, "neighbours",
      "Says which users, or items, of an export are most alike, by the cosine of their vectors: a "
      "user's is what time has left of the interest, where the model lets it decay, else the row.",
      "meander neighbours exports/globo-decay --of users --id 42 --k 10");
  auto flags = std::make_shared<Flags>();
  command.add_option("export", flags->directory, "directory written by meander export")->required();
  command.add_option("--of", flags->of, "users or items (default users)")
      ->check(CLI::IsMember({"users", "items"}));
  command.add_option("--id", flags->id, "of whom");
  command.add_option("--out", flags->out, "of everyone: a file to write, id,neighbour,similarity");
  command.add_option("--k", flags->k, "how many neighbours (default 10)");
  command.add_option("--at", flags->at,
                     "of users: the moment, as 2017-10-12T18:00:00 (UTC) or milliseconds (default: "
                     "that of the newest event)");
  command.callback([&context, flags] {
    context.action = [&context, flags] { return run_neighbours(context, *flags); };
  });
}

}  // namespace meander::launch
