// SPDX-License-Identifier: Apache-2.0
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "launch/cli.h"
#include "launch/suggest.h"

namespace meander::launch {
namespace {

// A command by its words ("checkpoint verify"), with what may follow them.
struct Entry {
  std::string words;
  std::vector<std::string> next;  // commands and options
};

void collect(const CLI::App& command, const std::string& words, std::vector<Entry>& entries) {
  Entry entry{words, {}};
  for (const CLI::App* inner : command.get_subcommands({})) entry.next.push_back(inner->get_name());
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) entry.next.push_back("--" + name);
  }
  entries.push_back(std::move(entry));
  for (const CLI::App* inner : command.get_subcommands({})) {
    collect(*inner, words.empty() ? inner->get_name() : words + " " + inner->get_name(), entries);
  }
}

// Completes by the longest known run of leading command words; files elsewhere.
std::string bash_script(const std::vector<Entry>& entries) {
  std::string script =
      "_meander() {\n"
      "  local cur=${COMP_WORDS[COMP_CWORD]} words=\"\" w\n"
      "  for w in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
      "    [[ $w == -* ]] || words+=\"${words:+ }$w\"\n"
      "  done\n"
      "  local list=\"\"\n"
      "  case \"$words\" in\n";
  // Longer runs first: the first pattern that fits wins.
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    script += "    \"" + entry->words + "\"" + (entry->words.empty() ? "" : "*") + ") list=\"" +
              join(entry->next, " ") + "\" ;;\n";
  }
  return script +
         "  esac\n"
         "  COMPREPLY=($(compgen -W \"$list\" -- \"$cur\"))\n"
         "  [[ ${#COMPREPLY[@]} -gt 0 || $cur == -* ]] || COMPREPLY=($(compgen -f -- \"$cur\"))\n"
         "}\n"
         "complete -o filenames -F _meander meander\n";
}

std::string fish_script(const std::vector<Entry>& entries) {
  std::string script = "complete -c meander -f\n";
  for (const Entry& entry : entries) {
    const std::string condition =
        entry.words.empty()
            ? "__fish_use_subcommand"
            : "__fish_seen_subcommand_from " + entry.words.substr(entry.words.rfind(' ') + 1);
    for (const std::string& next : entry.next) {
      const bool is_option = next.substr(0, 2) == "--";
      script += "complete -c meander -n '" + condition + "' " +
                (is_option ? "-l " + next.substr(2) + " -r -F" : "-a " + next) + "\n";
    }
  }
  return script;
}

}  // namespace

Result<std::string> completion_script(const CLI::App& app, const std::string& shell) {
  std::vector<Entry> entries;
  collect(app, "", entries);
  if (shell == "bash") return bash_script(entries);
  if (shell == "zsh") return "autoload -U +X bashcompinit && bashcompinit\n" + bash_script(entries);
  if (shell == "fish") return fish_script(entries);
  return invalid("no completion for '" + shell + "'; known: bash, zsh, fish");
}

void add_completion(CLI::App& app, Context& context) {
  CLI::App& command =
      add_command(app, context, "completion", "Prints a script that completes commands.",
                  "source <(meander completion bash)");
  auto shell = std::make_shared<std::string>();
  command.add_option("SHELL", *shell, "bash, zsh or fish")->required();
  command.callback([&app, &context, shell] {
    context.action = [&app, &context, shell]() -> Status {
      ASSIGN_OR_RETURN(context.summary, completion_script(app, *shell));
      context.result = {{"script", context.summary}};
      return {};
    };
  });
}

}  // namespace meander::launch
