// SPDX-License-Identifier: Apache-2.0
#include "scheduler/generations.h"

#include <algorithm>

#include "checkpoint/generation.h"
#include "common/crc32c.h"
#include "common/planted_bug.h"

namespace meander::scheduler {
namespace {

constexpr char kMetricsFile[] = "metrics";

Result<Accumulator> read_metrics(Storage& storage, const std::string& generation_dir) {
  const std::string path = join_path(generation_dir, kMetricsFile);
  ASSIGN_OR_RETURN(const bool is_there, storage.has(path));
  if (!is_there) return Accumulator();
  ASSIGN_OR_RETURN(const Buffer bytes, storage.read(path));
  Result<Accumulator> metrics = Accumulator::decode(bytes);
  if (!metrics.ok()) return std::move(metrics).status().context(path);
  return metrics;
}

}  // namespace

Status Generations::restore(const std::string& path, const std::string& model,
                            std::uint32_t streams, bool with_positions, bool go_on) {
  ASSIGN_OR_RETURN(const checkpoint::Chain chain, checkpoint::open_chain(storage_, path));
  dir_ = chain.back().dir;
  manifest_ = chain.back().manifest;
  chain_ = static_cast<std::uint32_t>(chain.size());
  has_positions_ = with_positions;
  if (manifest_.model() != model) {
    return invalid("checkpoint " + dir_ + " is of model " + manifest_.model() + ", the job's is " +
                   model + ": use the job it was trained with, or another checkpoint");
  }
  if (!with_positions) return {};
  if (manifest_.streams_size() != static_cast<int>(streams)) {
    const std::string had = std::to_string(manifest_.streams_size());
    return invalid("checkpoint " + dir_ + " was trained by " + had + " workers, the job has " +
                   std::to_string(streams) + ": set cluster.workers to " + had +
                   " to go on with it, or start anew from its rows with train.init_from");
  }
  for (int s = 0; go_on && s < manifest_.streams_size(); ++s) {
    manifest_.mutable_streams(s)->set_ended(false);
  }
  ASSIGN_OR_RETURN(metrics_, read_metrics(storage_, dir_));
  // Who wrote it may have died before it was durable, and deltas are to stand on it.
  const bool is_base = is_in_place() && !is_planted(PlantedBug::kRestoredNotSynced);
  return is_base ? storage_.sync_directory(dir_) : Status();
}

bool Generations::is_in_place() const {
  return dir_ == join_path(checkpoint_dir_, checkpoint::generation_name(manifest_.generation()));
}

bool Generations::is_final() const {
  return !dir_.empty() && has_positions_ && manifest_.base() == 0 &&
         std::ranges::all_of(manifest_.streams(),
                             [](const manifest::Stream& stream) { return stream.ended(); });
}

Status Generations::find_next() {
  begun_ = has_positions_ ? manifest_.generation() : 0;
  if (!is_writing()) return {};
  // Half ones too: one that keeps a higher number would never be older than a complete one, and
  // somebody may still be writing there.
  ASSIGN_OR_RETURN(const std::uint64_t highest,
                   checkpoint::highest_generation(storage_, checkpoint_dir_));
  begun_ = std::max(begun_, highest);
  const Status removed = checkpoint::remove_unfinished(storage_, checkpoint_dir_);
  LOG_IF(WARNING, !removed.ok()) << removed.message();
  return {};
}

void Generations::abandon_begun(std::uint64_t generation) {
  if (generation <= begun_) return;
  begun_ = generation;
  abandon();
}

std::string Generations::begun_dir() const {
  return join_path(checkpoint_dir_, checkpoint::generation_name(begun_));
}

Status Generations::begin() {
  ++begun_;
  ASSIGN_OR_RETURN(const bool is_taken, storage_.has(join_path(begun_dir(), "MANIFEST")));
  if (is_taken) {
    return invalid(begun_dir() + " is complete already, so another run writes to " +
                   checkpoint_dir_ + ": give each run its own checkpoint.dir");
  }
  RETURN_IF_ERROR(storage_.remove(begun_dir()));
  return storage_.make_directories(begun_dir());
}

const manifest::Manifest* Generations::base(std::uint32_t full_every) const {
  const bool may_be = !dir_.empty() && has_positions_ && is_in_place() && chain_ < full_every;
  return may_be ? &manifest_ : nullptr;
}

void Generations::abandon() {
  const Status removed = checkpoint::remove_generation(storage_, begun_dir());
  LOG_IF(WARNING, !removed.ok()) << removed.message();
}

Status Generations::complete(manifest::Manifest manifest, const Accumulator& metrics) {
  const Buffer sums = metrics.encode();
  RETURN_IF_ERROR(
      storage_.write_atomic(join_path(begun_dir(), kMetricsFile), sums.data(), sums.size()));
  manifest::Extra& extra = *manifest.add_extras();
  extra.set_name(kMetricsFile);
  extra.set_bytes(sums.size());
  extra.set_crc32c(crc32c(sums.data(), sums.size()));
  RETURN_IF_ERROR(checkpoint::write_manifest(storage_, begun_dir(), manifest));
  dir_ = begun_dir();
  chain_ = manifest.base() == 0 ? 1 : chain_ + 1;
  manifest_ = std::move(manifest);
  has_positions_ = true;
  metrics_ = metrics;
  // The generation is complete whatever becomes of older ones; the next one tries again.
  const Status pruned = checkpoint::prune(storage_, checkpoint_dir_, keep_, pinned_);
  LOG_IF(WARNING, !pruned.ok()) << pruned.message();
  return {};
}

}  // namespace meander::scheduler
