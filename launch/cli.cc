// SPDX-License-Identifier: Apache-2.0
#include "launch/cli.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <boost/json/serialize.hpp>
#include <cstdio>
#include <exception>

#include "checkpoint/open_storage.h"
#include "common/log.h"
#include "launch/signals.h"
#include "launch/suggest.h"
#include "launch/version.h"

namespace meander::launch {
namespace {

// Help leads with the example, which is kept as the footer.
class ExampleFirst final : public CLI::Formatter {
 public:
  std::string make_description(const CLI::App* app) const override {
    const std::string example = app->get_footer();
    return (example.empty() ? "" : "Example:\n  " + example + "\n\n") + app->get_description() +
           "\n";
  }
  std::string make_footer(const CLI::App*) const override { return ""; }
};

// Every flag has an environment variable: --every-s is MEANDER_EVERY_S.
void name_environment(CLI::App& command) {
  for (CLI::Option* option : command.get_options()) {
    if (option->get_lnames().empty() || !option->get_envname().empty()) continue;
    const std::string& name = option->get_lnames().front();
    if (name == "help") continue;
    std::string variable = "MEANDER_" + name;
    for (char& c : variable) c = c == '-' ? '_' : static_cast<char>(std::toupper(c));
    option->envname(variable);
  }
  for (CLI::App* inner : command.get_subcommands({})) name_environment(*inner);
}

std::vector<std::string> command_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  return names;
}

std::vector<std::string> option_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

// The innermost command that the arguments name, and how many of them name it.
const CLI::App* chosen_command(const CLI::App& app, const std::vector<std::string>& arguments,
                               std::size_t& used) {
  const CLI::App* command = &app;
  for (used = 0; used < arguments.size(); ++used) {
    const auto found = command->get_subcommands(
        [&](const CLI::App* inner) { return inner->check_name(arguments[used]); });
    if (found.empty()) break;
    command = found.front();
  }
  return command;
}

// What was wrong with the command line, in one line with the nearest known name.
std::string explain(const CLI::App& app, const std::vector<std::string>& arguments,
                    const std::string& what) {
  std::size_t used = 0;
  const CLI::App& command = *chosen_command(app, arguments, used);
  const std::vector<std::string> words(arguments.begin(),
                                       arguments.begin() + static_cast<long>(used));
  const std::string help = "; see meander " + join(words, " ") + " --help";
  const std::vector<std::string> commands = command_names(command);
  if (!commands.empty()) {
    if (used >= arguments.size()) return "which command? " + join(commands);
    const std::string& word = arguments[used];
    if (word.empty() || word.front() != '-') {
      const std::string hint = did_you_mean(word, commands);
      return "unknown command '" + word + "'" +
             (hint.empty() ? "; known: " + join(commands) : hint);
    }
  }
  for (std::size_t i = used; i < arguments.size(); ++i) {
    const std::string name = arguments[i].substr(0, arguments[i].find('='));
    if (name.size() < 3 || name.substr(0, 2) != "--") continue;
    if (command.get_option_no_throw(name) != nullptr) continue;
    const std::string hint = did_you_mean(name, option_names(command));
    return "unknown option " + name + (hint.empty() ? help : hint);
  }
  return what + help;
}

void print_result(const Context& context) {
  if (context.json) {
    std::printf("%s\n", boost::json::serialize(context.result).c_str());
  } else if (!context.summary.empty()) {
    std::printf("%s%s", context.summary.c_str(), context.summary.back() == '\n' ? "" : "\n");
  }
  std::fflush(stdout);
}

int finish(const Context& context, const Status& status) {
  const bool has_succeeded = status.ok() && context.child_code.value_or(0) == 0;
  if (has_succeeded || !context.result.empty()) print_result(context);
  if (!status.ok()) std::fprintf(stderr, "meander: %s\n", status.message().c_str());
  return status.ok() ? context.child_code.value_or(0) : exit_code(status);
}

// libraries that throw where no folder caught it: a failure of this run, not a crash.
Status guarded(const std::function<Status()>& action) {
  try {
    return action();
  } catch (const std::bad_alloc&) {
    return {Code::kExhausted, "out of memory"};
  } catch (const std::exception& e) {
    return failed(e.what());
  }
}

void add_version(CLI::App& app, Context& context) {
  CLI::App& command =
      add_command(app, context, "version", "Prints the version.", "meander version --json");
  command.callback([&context] {
    context.action = [&context]() -> Status {
      context.result = {{"version", kVersion}};
      context.summary = std::string("meander ") + kVersion;
      return {};
    };
  });
}

constexpr AddCommand kCommands[] = {
    add_quickstart, add_generate, add_prepare,        add_train,      add_launch,  add_roles,
    add_scale,      add_evaluate, add_cross_validate, add_checkpoint, add_export,  add_recommend,
    add_neighbours, add_doctor,   add_bench,          add_completion, add_version,
};

}  // namespace

void Context::note(const std::string& line) const {
  if (!quiet) std::fprintf(stderr, "%s\n", line.c_str());
}

int exit_code(const Status& status) {
  switch (status.code()) {
    case Code::kOk:
      return 0;
    case Code::kInvalid:
    case Code::kNotFound:
      return 2;
    case Code::kCorrupt:
      return 5;
    case Code::kUnavailable:
      return 170;
    case Code::kInterrupted:
      return interrupt_exit_code();
    case Code::kExhausted:
    case Code::kFailed:
      return 1;
  }
  return 1;
}

CLI::App& add_command(CLI::App& app, Context& context, const std::string& name,
                      const std::string& description, const std::string& example) {
  CLI::App& command = *app.add_subcommand(name, description);
  command.footer(example);
  command.add_flag("--json", context.json, "print the result as JSON, the last line of the output");
  command.add_flag("-q,--quiet", context.quiet, "errors only");
  command.add_flag("-v,--verbose", context.verbose, "say more; twice: much more");
  return command;
}

std::string why_not_folder(const std::string& path) {
  if (!checkpoint::is_s3_path(path)) return "";
  return path + " is no folder: only checkpoints go to s3://; write to a folder and copy it there";
}

int run(int argc, char** argv) {
  Context context;
  context.program = argv[0];
  context.storage = checkpoint::open_storage();
  const std::vector<std::string> arguments(argv + 1, argv + argc);

  CLI::App app("Trains models of evolving user interest on behaviour logs.", "meander");
  app.formatter(std::make_shared<ExampleFirst>());
  app.footer("meander train examples/ml1m-dien.yaml");
  app.require_subcommand(1);
  for (const AddCommand add : kCommands) add(app, context);
  name_environment(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {  // help
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    return finish(context, invalid(explain(app, arguments, e.what())));
  }
  init_log(argv[0], context.quiet ? -1 : context.verbose);
  return finish(context, guarded(context.action));
}

}  // namespace meander::launch
