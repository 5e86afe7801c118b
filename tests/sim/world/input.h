// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "common/partition.h"
#include "proto/manifest.pb.h"
#include "worker/worker.h"

namespace meander::sim {

// What a simulated cluster trains: streams of small batches with keys of two tables. A pure
// function of its fields.
struct Input {
  std::uint64_t seed = 1;
  std::uint32_t streams = 1;
  std::uint32_t batches = 10;  // of stream 0; the others have fewer, or none

  static constexpr std::uint32_t kTables = 2;
  // Streams from here on are slices of the held-out part.
  static constexpr std::uint32_t kSlice = 1000;

  std::uint32_t batches_of(std::uint32_t stream) const;
  // One past the last seq: a stream without batches still has an empty one that ends it.
  std::uint64_t end_of(std::uint32_t stream) const;
  std::uint32_t samples_of(std::uint32_t stream, std::uint64_t seq) const;
  std::uint64_t key_of(std::uint32_t table, std::uint32_t stream, std::uint64_t seq,
                       std::uint32_t sample) const;
  std::unique_ptr<worker::BatchSource> open(std::uint32_t stream) const;

  // Positions by stream: seqs below are trained.
  using Positions = std::vector<std::uint64_t>;
  Positions ends() const;
  std::uint64_t samples_below(const Positions& positions) const;
  // How often a key occurs, and in how many batches.
  struct Count {
    std::uint64_t samples = 0, batches = 0;
  };
  using Counts = std::map<std::pair<std::uint32_t, std::uint64_t>, Count>;  // by table and key
  Counts counts_below(const Positions& positions) const;
  std::uint64_t held_out_samples(std::uint32_t slices) const;
};

}  // namespace meander::sim
