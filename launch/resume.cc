// SPDX-License-Identifier: Apache-2.0
#include "launch/resume.h"

#include <algorithm>
#include <ranges>

#include "checkpoint/generation.h"
#include "launch/text.h"
#include "scheduler/scheduler.h"

namespace meander::launch {
namespace {

// The lines of a YAML text below each path of batch_fields(), to compare two jobs by.
Result<std::vector<std::string>> field_texts(const std::string& yaml) {
  LoadedJob job;
  RETURN_IF_ERROR(read_yaml(yaml, "checkpoint's job", job.spec, job.origins));
  std::vector<std::string> texts;
  for (const std::string& path : batch_fields()) texts.push_back(field_text(job.spec, path));
  return texts;
}

// kInvalid: the job builds other batches than the one that wrote the checkpoint.
Status check_same_batches(const Start& start, const Plan& plan) {
  ASSIGN_OR_RETURN(const auto before, field_texts(start.manifest.job()));
  ASSIGN_OR_RETURN(const auto now, field_texts(write_yaml(plan.job.spec, nullptr)));
  const std::vector<std::string> fields = batch_fields();
  for (std::size_t i = 0; i < fields.size(); ++i) {
    if (before[i] == now[i]) continue;
    return invalid(plan.job.place(fields[i]) + ": is " + now[i] + ", but " + start.restore +
                   " was trained with " + before[i] +
                   "; set it back, use --fresh to start anew, or train.init_from to go on with "
                   "its rows on other data");
  }
  return {};
}

Status check_model(const Start& start, const Plan& plan) {
  if (start.manifest.model() == plan.identity) return {};
  return invalid(start.restore + ": a checkpoint of another model (" + start.manifest.model() +
                 "), the job's is " + plan.identity +
                 "; set checkpoint.dir to another folder, or use --fresh to start anew");
}

bool all_ended(const manifest::Manifest& manifest) {
  return manifest.streams_size() > 0 &&
         std::ranges::all_of(manifest.streams(), [](const auto& s) { return s.ended(); });
}

Result<Start> read_start(Storage& storage, const Plan& plan, const std::string& generation) {
  Start start;
  start.restore = generation;
  ASSIGN_OR_RETURN(start.manifest, checkpoint::read_manifest(storage, generation));
  RETURN_IF_ERROR(check_model(start, plan));
  return start;
}

// From train.init_from: rows only.
Result<Start> start_with_rows(Storage& storage, const Plan& plan) {
  Start start;
  const std::string& from = plan.job.spec.train().init_from();
  if (from.empty()) return start;
  Result<std::string> generation = checkpoint::resolve_generation(storage, from);
  if (!generation.ok()) {
    return std::move(generation).status().context(plan.job.place("train.init_from"));
  }
  ASSIGN_OR_RETURN(start, read_start(storage, plan, generation.value()));
  start.positions = false;
  return start;
}

}  // namespace

Status check_writable(Storage& storage, const std::string& dir) {
  const std::string probe = join_path(dir, ".writable");
  Status status = storage.make_directories(dir);
  if (status.ok()) status = storage.write_atomic(probe, "x", 1);
  if (status.ok()) status = storage.remove(probe);
  if (status.ok()) return {};
  if (status.code() == Code::kUnavailable) return status;
  return invalid("cannot write checkpoints: " + status.message() +
                 "; set checkpoint.dir to a folder that can be written");
}

Result<Start> find_checkpoint(Storage& storage, const Plan& plan, const std::string& path) {
  const std::string& dir = path.empty() ? plan.job.spec.checkpoint().dir() : path;
  if (dir.empty()) {
    return invalid("say which checkpoint: --checkpoint DIR, or checkpoint.dir in the job");
  }
  ASSIGN_OR_RETURN(const std::string generation, checkpoint::resolve_generation(storage, dir));
  return read_start(storage, plan, generation);
}

Result<Start> find_start(const Context& context, const Plan& plan, const StartFlags& flags) {
  Storage& storage = *context.storage;
  const std::string& dir = plan.job.spec.checkpoint().dir();
  if (flags.resume && flags.fresh) return invalid("--resume and --fresh exclude each other");
  if (dir.empty()) {
    if (flags.resume) return invalid("--resume needs checkpoint.dir: where the checkpoints are");
    return start_with_rows(storage, plan);
  }
  Result<std::string> newest = checkpoint::newest_generation(storage, dir);
  if (newest.ok() && !flags.fresh) {
    ASSIGN_OR_RETURN(Start start, read_start(storage, plan, newest.value()));
    RETURN_IF_ERROR(check_same_batches(start, plan));
    start.is_finished = all_ended(start.manifest);
    RETURN_IF_ERROR(check_writable(storage, dir));
    return start;
  }
  // Only where there is none may a run start anew: not knowing is not that.
  if (!newest.ok() && newest.status().code() != Code::kNotFound) {
    return std::move(newest).status().context(plan.job.place("checkpoint.dir"));
  }
  if (flags.resume) return not_found("no complete checkpoint in " + dir + " to go on from");
  RETURN_IF_ERROR(check_writable(storage, dir));
  ASSIGN_OR_RETURN(Start start, start_with_rows(storage, plan));
  if (flags.fresh) {
    ASSIGN_OR_RETURN(const auto generations, checkpoint::list_generations(storage, dir));
    // Newest first: a delta never stays without what it stands on.
    for (const std::string& generation : std::views::reverse(generations)) {
      RETURN_IF_ERROR(checkpoint::remove_generation(storage, generation));
    }
    RETURN_IF_ERROR(storage.remove(scheduler::journal_dir(dir)));
    if (!generations.empty()) {
      context.note("--fresh: removed " + std::to_string(generations.size()) + " checkpoints in " +
                   dir);
    }
  }
  return start;
}

}  // namespace meander::launch
