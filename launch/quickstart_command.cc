// SPDX-License-Identifier: Apache-2.0
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <boost/json/array.hpp>
#include <cmath>

#include "data/generate.h"
#include "launch/export.h"
#include "launch/job.h"
#include "launch/recommend.h"
#include "launch/report.h"
#include "launch/text.h"
#include "launch/train.h"
#include "serve/ranker.h"

namespace meander::launch {
namespace {

constexpr std::size_t kUsersShown = 3, kItemsShown = 5, kHistoryShown = 6, kHistoryMin = 8;

struct Flags {
  std::string in, format, out = "quickstart-run";
};

// What to train on: the words of a job's data.source, and how its log is read best.
struct Source {
  std::string what;  // for people
  std::string format, in;
  std::vector<std::string> options;
  bool is_news = false;  // freshness matters: order of time, negatives of the hour before
};

bool holds(Storage& storage, const std::string& dir, const std::string& part) {
  const auto names = storage.list(dir);
  if (!names.ok()) return false;
  for (const std::string& name : names.value()) {
    if (name.find(part) != std::string::npos) return true;
  }
  return false;
}

Result<Source> source_of(Storage& storage, const Flags& flags) {
  const std::string& in = flags.in;
  if (!storage.exists(in)) return not_found("--in " + in + ": there is nothing of that name");
  if (!flags.format.empty()) return Source{in, flags.format, in, {}, flags.format == "globo"};
  if (holds(storage, in, "clicks-")) return Source{"news clicks in " + in, "globo", in, {}, true};
  if (holds(storage, in, ".inter")) return Source{"MovieLens-100K in " + in, "ml-100k", in, {}};
  if (holds(storage, in, "movies.dat")) return Source{"MovieLens-1M in " + in, "ml-1m", in, {}};
  return invalid("--in " + in +
                 ": cannot tell what log this is; add --format (see meander prepare --help)");
}

Result<Source> generated_source(Context& context, const Flags& flags) {
  const std::string dir = join_path(flags.out, "log");
  if (!context.storage->exists(dir)) {
    data::GenerateOptions options;
    options.out = dir;
    options.users = 3000;
    options.items = 2000;
    options.events = 300'000;
    options.shift_at = 0.5;
    ASSIGN_OR_RETURN(const data::GenerateReport report, data::generate(*context.storage, options));
    context.note("generated " + grouped(report.events) + " events of " + grouped(report.users) +
                 " users; who knows their interests reaches an AUC of " +
                 fixed(report.oracle_auc, 4));
  }
  return Source{"generated users",
                "csv",
                join_path(dir, "events.csv"),
                {"--schema", join_path(dir, "schema.yaml"), "--targets-last", "50"}};
}

Result<Source> choose_source(Context& context, const Flags& flags) {
  if (!flags.in.empty()) return source_of(*context.storage, flags);
  const std::string data = resolve_data_folder(*context.storage, "");
  const std::string news = join_path(data, "globo");
  if (!data.empty() && context.storage->exists(news)) {
    return Source{"news clicks in " + news, "globo", news, {}, true};
  }
  return generated_source(context, flags);
}

// The job that the quickstart trains: kept in its folder, to be read, changed and run again.
std::string job_text(const Source& source, const std::string& out) {
  std::string text = "# Written by meander quickstart for " + source.what +
                     ".\n#   meander train " + join_path(out, "job.yaml") +
                     "\nname: quickstart\ndata:\n  path: " + join_path(out, "prepared") +
                     "\n  source:\n    format: " + source.format + "\n    in: ['" + source.in +
                     "']\n";
  if (!source.options.empty()) {
    text += "    options: [";
    for (const std::string& option : source.options) text += "'" + option + "', ";
    text.replace(text.size() - 2, 2, "]\n");
  }
  text += source.is_news ? "  order: time\n  train: {from: 2017-10-08, until: 2017-10-13}\n"
                           "  test: {from: 2017-10-13, until: 2017-10-14}\n"
                           "  negatives: {kind: recent, window_s: 3600, exclude: history}\n"
                         : "  order: shuffle\n  negatives: {kind: popular, exclude: user}\n";
  return text + "model:\n  kind: dien\ntrain:\n  batch: 128\ncheckpoint:\n  dir: " +
         join_path(out, "checkpoints") + "\n";
}

// Held-out AUC of an item's number of training events: what a list of favourites reaches.
Result<double> popularity_auc(const Plan& plan) {
  ASSIGN_OR_RETURN(const auto stream, data::Stream::open(plan.log, plan.held_out));
  const auto items = plan.log->items();
  const auto count = [&items](std::uint64_t item) -> std::uint64_t {
    const auto at = std::lower_bound(
        items.begin(), items.end(), item,
        [](const data::ItemEntry& entry, std::uint64_t id) { return entry.item < id; });
    return at != items.end() && at->item == item ? at->count : 0;
  };
  const PartitionMap one_lane = PartitionMap::even(1);
  ScoreSums scores;
  data::Batch batch;
  for (std::uint64_t seq = 0; seq < stream->batches(); ++seq) {
    stream->build(seq, one_lane, batch);
    for (const data::Part& part : batch.parts) {
      for (std::size_t s = 0; s < part.label.size(); ++s) {
        const std::uint64_t item = batch.keys[0][part.target[0][s]];
        scores.add(std::log1p(static_cast<float>(count(item))), part.label[s] > 0.5f);
      }
    }
  }
  return scores.auc();
}

// Held-out AUC of the model before it has seen anything.
Result<double> untrained_auc(const Context& context, const Plan& plan) {
  scheduler::SchedulerOptions options = scheduler_options(plan, draw_id());
  options.train = false;
  options.checkpoint_dir.clear();
  ASSIGN_OR_RETURN(const Outcome outcome, run_in_process(context, plan, std::move(options)));
  RETURN_IF_ERROR(outcome.status);
  return outcome.held_out.head.auc();
}

// Users spread over the export, each with enough of a history to be read.
std::vector<std::uint64_t> users_to_show(const serve::Artefact& artefact) {
  std::vector<std::uint64_t> chosen;
  const auto users = artefact.users();
  for (std::size_t n = 0; n < kUsersShown; ++n) {
    for (std::size_t i = users.size() * (2 * n + 1) / (2 * kUsersShown); i < users.size(); ++i) {
      const auto history = artefact.history(static_cast<std::uint64_t>(users[i]));
      if (!history || history->item.size() < kHistoryMin) continue;
      chosen.push_back(history->user);
      break;
    }
  }
  return chosen;
}

Status recommend_some(Context& context, const std::string& dir) {
  ASSIGN_OR_RETURN(const auto artefact, serve::Artefact::load(*context.storage, dir));
  ASSIGN_OR_RETURN(const auto ranker, serve::Ranker::create(artefact));
  serve::RankOptions options;
  options.k = kItemsShown;
  boost::json::array users;
  for (const std::uint64_t user : users_to_show(*artefact)) {
    ASSIGN_OR_RETURN(Answer answer, recommend(*artefact, *ranker, user, options, kHistoryShown));
    users.push_back(std::move(answer.result));
    context.summary += "\n" + answer.text;
  }
  context.result["users"] = std::move(users);
  return {};
}

Status quickstart(Context& context, const Flags& flags) {
  RETURN_IF_ERROR(context.storage->make_directories(flags.out));
  ASSIGN_OR_RETURN(const Source source, choose_source(context, flags));
  context.note("training on " + source.what);
  const std::string job = join_path(flags.out, "job.yaml"), text = job_text(source, flags.out);
  RETURN_IF_ERROR(context.storage->write_atomic(job, text.data(), text.size()));
  ASSIGN_OR_RETURN(const Plan plan, plan_job(context, job, {}));

  ASSIGN_OR_RETURN(const double popularity, popularity_auc(plan));
  ASSIGN_OR_RETURN(const double untrained, untrained_auc(context, plan));
  RETURN_IF_ERROR(train_in_process(context, plan, {}));
  ExportOptions options;
  options.out = join_path(flags.out, "export");
  ASSIGN_OR_RETURN(const ExportReport report, export_plan(context, plan, options));

  context.result["source"] = source.what;
  context.result["auc_popularity"] = json_number(popularity);
  context.result["auc_untrained"] = json_number(untrained);
  context.result["export"] = options.out;
  context.summary += "\nheld-out AUC (0.5 is a coin, 1 is perfect):\n  by popularity   " +
                     fixed(popularity, 4) + "\n  untrained DIEN  " + fixed(untrained, 4) +
                     "\n  trained DIEN    " + fixed(context.result["auc"].as_double(), 4) +
                     "\njob " + job + ", serving export " + options.out + "\n";
  return recommend_some(context, options.out);
}

}  // namespace

void add_quickstart(CLI::App& app, Context& context) {
  CLI::App& command = add_command(
      app, context, "quickstart",
      "Trains DIEN on the first log it finds (the one given, news clicks, generated users), sets "
      "its AUC beside two baselines, and shows what it recommends to three users.",
      "meander quickstart --in ../shared/data/ml1m");
  auto flags = std::make_shared<Flags>();
  command.add_option("--in", flags->in, "an event log, or a folder of one");
  command.add_option("--format", flags->format, "as meander prepare --format; told by the files");
  command.add_option("--out", flags->out, "folder for all that it writes")
      ->capture_default_str()
      ->check(why_not_folder);
  command.callback([&context, flags] {
    context.action = [&context, flags] { return quickstart(context, *flags); };
  });
}

}  // namespace meander::launch
