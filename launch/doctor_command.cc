// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <boost/json/array.hpp>
#include <fstream>
#include <sstream>
#include <thread>

#include "launch/cli.h"
#include "launch/job.h"
#include "launch/text.h"

namespace meander::launch {
namespace {

// One thing looked at: what was found, and when it is not good, how to mend it.
struct Finding {
  std::string what, found, mend;
  bool ok() const { return mend.empty(); }
};

std::string file_text(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

Finding cpu() {
  __builtin_cpu_init();
  std::string level = "x86-64-v1";
  if (__builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt")) level = "x86-64-v2";
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) level = "x86-64-v3";
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    level = "x86-64-v4";
  }
  Finding finding{
      "cpu", level + ", " + std::to_string(std::thread::hardware_concurrency()) + " threads", ""};
  if (level == "x86-64-v1") finding.mend = "this program needs x86-64-v2 (SSE4.2)";
  if (level == "x86-64-v2") finding.mend = "works, but AVX2 (x86-64-v3) is several times as fast";
  return finding;
}

Finding huge_pages() {
  const std::string text = file_text("/sys/kernel/mm/transparent_hugepage/enabled");
  Finding finding{"huge pages", text.substr(0, text.find('\n')), ""};
  if (text.empty()) finding.found = "not known";
  if (text.find("[never]") != std::string::npos) {
    finding.mend =
        "large tables are up to twice as fast with: "
        "echo madvise >/sys/kernel/mm/transparent_hugepage/enabled";
  }
  return finding;
}

Finding open_files() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  Finding finding{"open files", std::to_string(limit.rlim_cur), ""};
  if (limit.rlim_cur < 1024) finding.mend = "raise it: ulimit -n 4096";
  return finding;
}

Finding memory() {
  const long pages = sysconf(_SC_PHYS_PAGES), free_pages = sysconf(_SC_AVPHYS_PAGES);
  const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  Finding finding{"memory",
                  bytes_text(page * static_cast<std::uint64_t>(pages)) + ", " +
                      bytes_text(page * static_cast<std::uint64_t>(free_pages)) + " free",
                  ""};
  const std::string group = file_text("/sys/fs/cgroup/memory.max");
  if (!group.empty() && group.substr(0, 3) != "max") {
    finding.found += ", limited to " + bytes_text(std::strtoull(group.c_str(), nullptr, 10));
  }
  return finding;
}

Finding clock_source(const Context& context) {
  const std::string path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
  const std::string name = file_text(path);
  const TimePoint start = context.clock.now();
  constexpr int kReads = 10'000;
  for (int i = 0; i < kReads; ++i) (void)context.clock.now();
  const double each = seconds(context.clock.now() - start) / kReads * 1e9;
  Finding finding{"clock",
                  name.substr(0, name.find('\n')) + ", " + fixed(each, 0) + " ns a reading", ""};
  if (each > 1000) finding.mend = "readings are slow: use the tsc clock source";
  if (context.clock.wall_ms() < 1'600'000'000'000) finding.mend = "the date is wrong: set it";
  return finding;
}

Finding port() {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const bool bound =
      fd >= 0 && bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  if (fd >= 0) close(fd);
  return {"loopback port", bound ? "can be opened" : "cannot be opened",
          bound ? "" : "bring the loopback interface up: ip link set lo up"};
}

Finding host_name() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  addrinfo* found = nullptr;
  const bool known = getaddrinfo(name, nullptr, nullptr, &found) == 0;
  if (found != nullptr) freeaddrinfo(found);
  return {"host name", std::string(name) + (known ? "" : ", which has no address"),
          known ? "" : "other hosts cannot reach lanes here: set MEANDER_ADVERTISE to an address"};
}

Finding storage(const Context& context) {
  const std::string path = ".meander-doctor";
  const std::string text(4096, 'x');
  const TimePoint start = context.clock.now();
  const Status status = context.storage->write_atomic(path, text.data(), text.size());
  const double took = seconds(context.clock.now() - start);
  if (status.ok()) (void)context.storage->remove(path);
  return {"storage here",
          status.ok() ? "a durable file takes " + fixed(took * 1e3, 1) + " ms" : status.message(),
          status.ok() ? "" : "run where files may be written, or set checkpoint.dir and data.path"};
}

Finding data_folder(const Context& context) {
  const std::string folder = resolve_data_folder(*context.storage, "examples/x.yaml");
  Finding finding{"data", folder, ""};
  if (folder.empty() || !context.storage->exists(folder)) {
    finding.found = folder.empty() ? "not found" : folder + " is not there";
    finding.mend = "set MEANDER_DATA to the folder that holds ml1m/, globo/, ...";
  }
  return finding;
}

Status doctor(Context& context) {
  const Finding findings[] = {cpu(),        huge_pages(),          memory(),
                              open_files(), clock_source(context), port(),
                              host_name(),  storage(context),      data_folder(context)};
  boost::json::array checks;
  bool all_ok = true;
  for (const Finding& finding : findings) {
    all_ok = all_ok && finding.ok();
    checks.push_back({{"check", finding.what},
                      {"ok", finding.ok()},
                      {"found", finding.found},
                      {"mend", finding.mend}});
    context.summary += std::string(finding.ok() ? "ok    " : "note  ") + finding.what + ": " +
                       finding.found + (finding.ok() ? "" : "; " + finding.mend) + "\n";
  }
  context.result = {{"ok", all_ok}, {"checks", checks}};
  return {};
}

}  // namespace

void add_doctor(CLI::App& app, Context& context) {
  CLI::App& command = add_command(app, context, "doctor",
                                  "Looks at this machine: what would make training slow or fail.",
                                  "meander doctor");
  command.callback([&context] { context.action = [&context] { return doctor(context); }; });
}

}  // namespace meander::launch
