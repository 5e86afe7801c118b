// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/json/object.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/status.h"
#include "common/storage.h"

namespace CLI {
class App;
}

namespace meander::launch {

// What every command is given: the common flags, the world, and a place for its result.
struct Context {
  bool json = false;   // print the result as one JSON line, the last of standard output
  bool quiet = false;  // errors only
  int verbose = 0;

  std::string program;  // path of this binary, for processes that it starts
  std::unique_ptr<Storage> storage;
  SystemClock clock;

  // Set by the callback of the chosen command, run once the whole command line has been read.
  std::function<Status()> action;
  // What the command found out. Printed when it succeeds, and whenever it is not empty.
  boost::json::object result;
  // The same for people, printed without --json.
  std::string summary;
  // A process that did the command's work left with this code and has said why. For the result.
  std::optional<int> child_code;

  // A line on standard error, unless --quiet.
  void note(const std::string& line) const;
};

// The program: reads the command line, runs the command, prints its result; returns the exit code.
int run(int argc, char** argv);

// The exit code of an outcome (docs/commands.md): 0, 1, 2, 5, 130, 143 or 170.
int exit_code(const Status& status);

// One function per command or family, each in its own file: adds the subcommand to `app`, with a
// callback that sets context.action. The footer of a subcommand is its example.
using AddCommand = void (*)(CLI::App& app, Context& context);
void add_generate(CLI::App& app, Context& context);
void add_prepare(CLI::App& app, Context& context);
void add_train(CLI::App& app, Context& context);
void add_launch(CLI::App& app, Context& context);
void add_roles(CLI::App& app, Context& context);  // scheduler, ps, worker
void add_scale(CLI::App& app, Context& context);
void add_evaluate(CLI::App& app, Context& context);
void add_cross_validate(CLI::App& app, Context& context);
void add_checkpoint(CLI::App& app, Context& context);
void add_export(CLI::App& app, Context& context);
void add_recommend(CLI::App& app, Context& context);
void add_neighbours(CLI::App& app, Context& context);
void add_quickstart(CLI::App& app, Context& context);
void add_doctor(CLI::App& app, Context& context);
void add_bench(CLI::App& app, Context& context);
void add_completion(CLI::App& app, Context& context);

// A subcommand with the flags that all have. `example` leads its help.
CLI::App& add_command(CLI::App& app, Context& context, const std::string& name,
                      const std::string& description, const std::string& example);

// For the check of an option that names a folder to write: why `path` is none, or nothing. Only
// checkpoints go to a store.
std::string why_not_folder(const std::string& path);

// A script that completes commands and options in `shell` (bash, zsh, fish). kInvalid: another.
Result<std::string> completion_script(const CLI::App& app, const std::string& shell);

}  // namespace meander::launch
