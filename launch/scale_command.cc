// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <cstdio>
#include <optional>

#include "common/partition.h"
#include "launch/layout.h"
#include "launch/roles.h"
#include "launch/signals.h"
#include "launch/train.h"

namespace meander::launch {
namespace {

constexpr Duration kAskEvery = std::chrono::milliseconds(200);
constexpr Duration kAnswerWait = std::chrono::seconds(20);  // a scheduler may be started again

struct ScaleFlags {
  std::string job, scheduler;
  std::vector<std::string> sets;
  std::uint32_t lanes = 0;
};

Result<std::string> find_scheduler(const Context& context, const ScaleFlags& flags) {
  if (!flags.scheduler.empty()) return flags.scheduler;
  ASSIGN_OR_RETURN(const LoadedJob job, load_job(*context.storage, flags.job, flags.sets));
  if (!job.spec.cluster().scheduler().empty()) return job.spec.cluster().scheduler();
  const std::string& dir = job.spec.checkpoint().dir();
  const Status none = not_found("no run of " + flags.job +
                                " that can be given lanes: it has to be one of meander launch (or "
                                "of scheduler, ps and worker: "
                                "then give --scheduler tcp://host:port) with this checkpoint.dir");
  if (dir.empty() || !context.storage->exists(cluster_file(dir))) return none;
  ASSIGN_OR_RETURN(const Buffer bytes, context.storage->read(cluster_file(dir)));
  boost::system::error_code error;
  const boost::json::value file = boost::json::parse(
      std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()), error);
  const boost::json::object* const object = error ? nullptr : file.if_object();
  const boost::json::value* const scheduler = object ? object->if_contains("scheduler") : nullptr;
  if (scheduler == nullptr || !scheduler->is_string()) {
    return corrupt(cluster_file(dir) + " does not say where the scheduler is");
  }
  return std::string(scheduler->as_string());
}

// A conversation with the scheduler: asks until it is answered.
class Asker {
 public:
  static Result<std::unique_ptr<Asker>> open(const Clock& clock, const std::string& scheduler) {
    auto asker = std::unique_ptr<Asker>(new Asker(clock, scheduler));
    ASSIGN_OR_RETURN(asker->transport_, net::ZmqTransport::create(
                                            asker->zmq_, "scale/" + std::to_string(draw_id()), ""));
    RETURN_IF_ERROR(asker->transport_->connect(net::kSchedulerName, scheduler));
    return asker;
  }

  // `lanes`: 0 to hear only how things are.
  Result<wire::Scaled> ask(std::uint32_t lanes) {
    const TimePoint deadline = clock_.now() + kAnswerWait;
    const std::uint64_t request = ++last_request_;
    std::optional<wire::Scaled> answer;
    while (!answer) {
      if (interrupted()) return Status(Code::kInterrupted, "the lanes go on changing without us");
      if (clock_.now() >= deadline) {
        return unavailable("no answer from " + scheduler_ + ": is the run going on?");
      }
      wire::Header header;
      header.set_request(request);
      header.mutable_scale()->set_lanes(lanes);
      transport_->send(net::kSchedulerName, header);
      const TimePoint next = clock_.now() + kAskEvery;
      while (!answer && clock_.now() < next) {
        transport_->poll(next - clock_.now(), [&](const net::Message& message) {
          if (message.header.request() != request || !message.header.has_scaled()) return;
          answer = message.header.scaled();
        });
      }
    }
    return *answer;
  }

 private:
  Asker(const Clock& clock, std::string scheduler)
      : clock_(clock), scheduler_(std::move(scheduler)) {}

  const Clock& clock_;
  const std::string scheduler_;
  net::ZmqContext zmq_;
  std::unique_ptr<net::ZmqTransport> transport_;
  std::uint64_t last_request_ = 0;
};

void report(Context& context, std::uint32_t before, const wire::Scaled& end) {
  context.result = {{"lanes_before", before},
                    {"lanes", end.lanes()},
                    {"copy_s", end.copy_s()},
                    {"pause_s", end.pause_s()},
                    {"pause_batches", end.pause_batches()}};
  if (before == end.lanes()) {
    context.summary = std::to_string(before) + " lanes, as before";
    return;
  }
  char text[200];
  std::snprintf(
      text, sizeof text,
      "%u lanes, there were %u: copied in %.2f s beside training, which paused for %.1f ms "
      "(%.1f batches)",
      end.lanes(), before, end.copy_s(), 1e3 * end.pause_s(), end.pause_batches());
  context.summary = text;
}

// Until the lanes have changed.
Status scale(Context& context, const ScaleFlags& flags) {
  ASSIGN_OR_RETURN(const std::string scheduler, find_scheduler(context, flags));
  catch_interrupts();
  ASSIGN_OR_RETURN(const std::unique_ptr<Asker> asker, Asker::open(context.clock, scheduler));
  ASSIGN_OR_RETURN(const wire::Scaled before, asker->ask(0));
  ASSIGN_OR_RETURN(wire::Scaled now, asker->ask(flags.lanes));
  std::string said;
  while (now.wanted() == flags.lanes && !now.is_refused()) {
    if (now.message() != said && !now.message().empty()) context.note(now.message());
    said = now.message();
    usleep(100'000);
    ASSIGN_OR_RETURN(now, asker->ask(0));
  }
  if (now.is_refused()) return failed("the lanes stay as they are: " + now.message());
  if (now.lanes() != flags.lanes) {
    return failed("somebody else has asked for " + std::to_string(now.wanted()) + " lanes");
  }
  report(context, before.lanes(), now);
  return {};
}

}  // namespace

void add_scale(CLI::App& app, Context& context) {
  CLI::App& command =
      add_command(app, context, "scale",
                  "Changes the number of lanes of a run of meander launch while it trains on.",
                  "meander scale examples/ml1m-dien.yaml --lanes 4");
  auto flags = std::make_shared<ScaleFlags>();
  add_job_flags(command, flags->job, flags->sets);
  command.add_option("--lanes", flags->lanes, "how many there are to be")
      ->required()
      ->check(CLI::Range(1u, kPartitions));
  command.add_option("--scheduler", flags->scheduler,
                     "tcp://host:port of the scheduler; else cluster.scheduler of the job, or what "
                     "meander launch has left in checkpoint.dir");
  command.callback(
      [&context, flags] { context.action = [&context, flags] { return scale(context, *flags); }; });
}

}  // namespace meander::launch
