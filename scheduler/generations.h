// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "common/metrics.h"
#include "common/storage.h"
#include "proto/manifest.pb.h"

namespace meander::scheduler {

// The generations of a run on storage: the one that it goes on from, and those that it writes. The
// training metrics lie beside the rows (file `metrics`; not part of the digest), so that the
// progressive figures of a resumed run cover the whole run.
class Generations {
 public:
  // checkpoint_dir: where to write; empty: nowhere. pinned: one of it that stays however old.
  Generations(Storage& storage, std::string checkpoint_dir, std::uint32_t keep,
              std::string pinned = "")
      : storage_(storage),
        checkpoint_dir_(std::move(checkpoint_dir)),
        keep_(keep),
        pinned_(std::move(pinned)) {}

  // Starts from a generation, or a checkpoint directory's newest. kInvalid: it is of another model,
  // or (with_positions) has another number of streams; kNotFound, kCorrupt.
  // `go_on`: streams that had ended there have not any more.
  Status restore(const std::string& path, const std::string& model, std::uint32_t streams,
                 bool with_positions, bool go_on = false);
  // Finds the number that the next generation gets, and removes what runs that died have left.
  Status find_next();
  // A predecessor had begun this one: if it did not get done, what there is of it goes.
  void abandon_begun(std::uint64_t generation);

  bool is_writing() const { return !checkpoint_dir_.empty(); }
  // The last complete one; empty: none yet.
  const std::string& dir() const { return dir_; }
  const manifest::Manifest& manifest() const { return manifest_; }
  bool has_positions() const { return has_positions_; }  // streams go on where it stands
  // The run goes on where it stands, every stream has ended there, and it is a full one.
  bool is_final() const;
  const Accumulator& metrics() const { return metrics_; }  // up to it

  // Makes an empty directory for the next generation. Numbers are never used twice: kInvalid, when
  // somebody else has.
  Status begin();
  // The generation that the next one may stand on as a delta; null: it must be full.
  const manifest::Manifest* base(std::uint32_t full_every) const;
  std::uint64_t begun() const { return begun_; }
  std::string begun_dir() const;
  // Its files are there: writes metrics and manifest, and removes what is not to be kept.
  Status complete(manifest::Manifest manifest, const Accumulator& metrics);
  // It could not be written: removes what there is of it, as far as that works.
  void abandon();

 private:
  bool is_in_place() const;  // the last complete one lies in checkpoint_dir

  Storage& storage_;
  const std::string checkpoint_dir_;
  const std::uint32_t keep_;
  const std::string pinned_;
  std::string dir_;
  manifest::Manifest manifest_;
  std::uint32_t chain_ = 0;  // generations that the last complete one is made of
  bool has_positions_ = true;
  Accumulator metrics_;
  std::uint64_t begun_ = 0;
};

}  // namespace meander::scheduler
