// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include <algorithm>
#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>
#include <cstdio>

#include "common/log.h"
#include "common/partition.h"
#include "launch/layout.h"
#include "launch/role.h"
#include "launch/signals.h"
#include "launch/train.h"

namespace meander::launch {
namespace {

struct RoleFlags {
  TrainFlags train;  // of the scheduler: --resume, --fresh
  int index = -1;
  std::vector<std::uint32_t> lanes;  // of a ps; empty: by its index
  std::string scheduler, listen, advertise;
  bool is_led = false;  // a scheduler: by a launcher, who tells of deaths
};

Result<std::string> scheduler_address(const RoleFlags& flags, const job::Cluster& cluster) {
  if (!flags.scheduler.empty()) return flags.scheduler;
  if (!cluster.scheduler().empty()) return cluster.scheduler();
  return invalid(
      "where is the scheduler? give --scheduler tcp://host:port, MEANDER_SCHEDULER or "
      "cluster.scheduler in the job");
}

// On loopback, at the port that the others are told.
std::string default_listen(const job::Cluster& cluster) {
  const std::size_t colon = cluster.scheduler().rfind(':');
  const bool has_port = colon != std::string::npos && colon > 5;
  return "tcp://127.0.0.1:" + (has_port ? cluster.scheduler().substr(colon + 1) : "7077");
}

// Where this run can be reached, in its checkpoint directory while it is reachable: for `meander
// scale`.
class Address {
 public:
  Address(Storage& storage, const std::string& dir, const std::string& endpoint)
      : storage_(storage), path_(dir.empty() ? "" : cluster_file(dir)) {
    if (path_.empty()) return;
    Status written = storage_.make_directories(dir);
    const std::string text = boost::json::serialize(boost::json::object{{"scheduler", endpoint}});
    if (written.ok()) written = storage_.write_atomic(path_, text.data(), text.size());
    LOG_IF(WARNING, !written.ok()) << written.message();
  }
  ~Address() {
    if (path_.empty()) return;
    const Status removed = storage_.remove(path_);
    LOG_IF(WARNING, !removed.ok()) << removed.message();
  }

 private:
  Storage& storage_;
  const std::string path_;
};

// Names of peers that have died, a line each, on standard input.
class Obituaries {
 public:
  explicit Obituaries(bool are_told) : are_told_(are_told) {
    if (are_told) fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
  }
  void pass_on(SchedulerThread& thread) {
    char bytes[1024];
    ssize_t count = 0;
    while (are_told_ && (count = read(STDIN_FILENO, bytes, sizeof bytes)) > 0) {
      line_.append(bytes, static_cast<std::size_t>(count));
    }
    for (std::size_t end; (end = line_.find('\n')) != std::string::npos;) {
      thread.peer_died(line_.substr(0, end));
      line_.erase(0, end + 1);
    }
  }

 private:
  const bool are_told_;
  std::string line_;
};

Status scheduler(Context& context, const RoleFlags& flags) {
  ASSIGN_OR_RETURN(const Plan plan, plan_job(context, flags.train.job, flags.train.sets));
  RETURN_IF_ERROR(check_no_averaging(plan));
  StartFlags start = flags.train.start;
  start.keep_journal = true;
  return train_with(
      context, plan, start, [&](scheduler::SchedulerOptions options) -> Result<Outcome> {
        catch_interrupts();
        Process process(context.clock, *context.storage, 1);
        const std::string listen =
            flags.listen.empty() ? default_listen(plan.job.spec.cluster()) : flags.listen;
        ASSIGN_OR_RETURN(auto thread, SchedulerThread::start(process, listen, std::move(options)));
        if (!flags.is_led) context.note("scheduler at " + thread->endpoint());
        const Address address(*context.storage, plan.job.spec.checkpoint().dir(),
                              thread->endpoint());
        Obituaries obituaries(flags.is_led);
        std::uint32_t told = 0;  // lanes that there have to be
        return thread->follow(context, [&] {
          obituaries.pass_on(*thread);
          const scheduler::Progress progress = thread->snapshot().progress;
          const std::uint32_t lanes = std::max(progress.lanes, progress.lanes_wanted);
          if (!flags.is_led || lanes == 0 || lanes == told) return;
          std::printf("@lanes %u\n", lanes);
          std::fflush(stdout);
          told = lanes;
        });
      });
}

Status ps(Context& context, const RoleFlags& flags) {
  ASSIGN_OR_RETURN(const LoadedJob job,
                   load_job(*context.storage, flags.train.job, flags.train.sets));
  const job::Cluster& cluster = job.spec.cluster();
  PsRole role;
  ASSIGN_OR_RETURN(role.scheduler, scheduler_address(flags, cluster));
  Process process(context.clock, *context.storage, cluster.threads(), wants_shm(cluster));
  // More than the job has: of those that join a run (meander scale).
  const std::uint32_t limit = cluster.replicas() == 0 ? kPartitions : 0;
  std::uint32_t index = 0;
  if (flags.lanes.empty() || cluster.replicas() != 0) {
    ASSIGN_OR_RETURN(index, own_index(flags.index, process.host, cluster.ps(), limit));
    role.lanes = lanes_of_ps(index, cluster).all();
    role.backups = backups_of(index, cluster);
  }
  if (!flags.lanes.empty()) role.lanes = flags.lanes;
  if (!flags.listen.empty()) role.listen = flags.listen;
  role.advertise = flags.advertise;
  catch_interrupts();
  return run_ps(context, process, role);
}

Status worker(Context& context, const RoleFlags& flags) {
  ASSIGN_OR_RETURN(LoadedJob job, load_job(*context.storage, flags.train.job, flags.train.sets));
  ASSIGN_OR_RETURN(const Plan plan, make_plan(*context.storage, std::move(job)));
  const job::Cluster& cluster = plan.job.spec.cluster();
  ASSIGN_OR_RETURN(const std::string address, scheduler_address(flags, cluster));
  Process process(context.clock, *context.storage, cluster.threads(), wants_shm(cluster));
  ASSIGN_OR_RETURN(const std::uint32_t index,
                   own_index(flags.index, process.host, cluster.workers()));
  catch_interrupts();
  return run_worker(context, process, plan, index, address);
}

using RunRole = Status (*)(Context&, const RoleFlags&);

CLI::App& add_role(CLI::App& app, Context& context, const std::string& name,
                   const std::string& description, const std::string& example, RunRole run,
                   std::shared_ptr<RoleFlags>& flags) {
  CLI::App& command = add_command(app, context, name, description, example);
  flags = std::make_shared<RoleFlags>();
  command.callback([&context, flags, run] {
    context.action = [&context, flags, run] { return run(context, *flags); };
  });
  return command;
}

void add_member_flags(CLI::App& command, RoleFlags& flags) {
  add_job_flags(command, flags.train.job, flags.train.sets);
  command.add_option("--index", flags.index,
                     "which of its kind; else JOB_COMPLETION_INDEX, or the host name's ordinal");
  command.add_option("--scheduler", flags.scheduler,
                     "tcp://host:port of the scheduler; else cluster.scheduler of the job");
}

}  // namespace

void add_roles(CLI::App& app, Context& context) {
  std::shared_ptr<RoleFlags> flags;
  CLI::App& first =
      add_role(app, context, "scheduler",
               "Runs the scheduler of a job in the foreground, and reports its end.",
               "meander scheduler job.yaml --listen tcp://0.0.0.0:7077", scheduler, flags);
  add_train_flags(first, flags->train);
  first.add_option("--listen", flags->listen,
                   "where lanes and workers connect to; loopback, port 7077 by default");

  first.add_flag("--led", flags->is_led, "by meander launch")->group("");

  CLI::App& second =
      add_role(app, context, "ps", "Runs the lanes of one ps in the foreground.",
               "meander ps job.yaml --index 0 --scheduler tcp://10.0.0.1:7077", ps, flags);
  add_member_flags(second, *flags);
  second.add_option("--listen", flags->listen,
                    "where workers connect to (its further lanes: the ports after that); loopback, "
                    "any port by default");
  second.add_option("--lane", flags->lanes, "serve this lane, not those of --index; repeatable")
      ->allow_extra_args(false);
  second.add_option("--advertise", flags->advertise, "host name or address that workers use");

  CLI::App& third =
      add_role(app, context, "worker", "Runs one worker in the foreground.",
               "meander worker job.yaml --index 0 --scheduler tcp://10.0.0.1:7077", worker, flags);
  add_member_flags(third, *flags);
}

}  // namespace meander::launch
