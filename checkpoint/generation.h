// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/status.h"
#include "common/storage.h"
#include "proto/manifest.pb.h"
#include "proto/wire.pb.h"

namespace meander::checkpoint {

// One row as stored: everything of a key in one record.
struct Record {
  std::uint64_t key = 0;
  std::uint64_t step = 0;         // last touched, in pushes applied to the table
  std::uint32_t count = 0;        // times touched, counted to 2^24 - 1
  bool admitted = true;           // false: counted, but has no row of its own yet
  std::span<const float> values;  // weights, then optimizer state; empty when not admitted
};

// Floats of optimizer state behind the weights of a row.
std::uint32_t state_width(wire::Optimizer::Kind kind, std::uint32_t width);
// The optimizer's word in a manifest, such as "rowwise_adagrad".
std::string optimizer_name(wire::Optimizer::Kind kind);
// Whether rows that the named optimizer left are ones that `kind` can go on from. Adam and AdamW
// keep the same; others may be as wide and mean something else.
bool is_state_of(wire::Optimizer::Kind kind, const std::string& name);

// Hash of a record; a generation's digest adds these up, so it does not depend on their order.
std::uint64_t record_digest(std::uint32_t table, const Record& record);
// The manifest's digest: rows (the sum over all lanes), positions and clocks.
std::string final_digest(std::uint64_t record_sum, const manifest::Manifest& manifest);

// Writes one file of records of one table, in rising partition order, in blocks with a crc each
// (docs/checkpoint-format.md). Nothing is promised before finish().
class RowsWriter {
 public:
  static Result<std::unique_ptr<RowsWriter>> create(Storage& storage, const std::string& path,
                                                    std::uint32_t table, std::uint32_t values);
  ~RowsWriter();
  Status add(const Record& record);
  Result<manifest::File> finish();  // `name` is the last part of the path

 private:
  struct Impl;
  explicit RowsWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Calls `visit` for every record whose partition lies in [first, last]; skips blocks that hold
// none. kCorrupt: names the file and the block.
Status read_rows(Storage& storage, const std::string& path, const manifest::File& file,
                 std::uint32_t first_partition, std::uint32_t last_partition,
                 const std::function<Status(const Record&)>& visit);

// A checkpoint directory holds generations: gen-000012/ with row files and MANIFEST, which is
// written last: a directory without one is not a generation.
std::string generation_name(std::uint64_t generation);  // "gen-000012"
// kInvalid: there is one already. It is never replaced.
Status write_manifest(Storage& storage, const std::string& dir, const manifest::Manifest& manifest);
Result<manifest::Manifest> read_manifest(Storage& storage, const std::string& dir);
// Newest complete generation's directory. kNotFound: none.
Result<std::string> newest_generation(Storage& storage, const std::string& checkpoint_dir);
// All complete generations, oldest first, as directory paths.
Result<std::vector<std::string>> list_generations(Storage& storage, const std::string& dir);
// `path` may be a generation or a checkpoint directory (then: its newest).
Result<std::string> resolve_generation(Storage& storage, const std::string& path);
// Removes incomplete generations and all but the newest `keep`.
Status prune(Storage& storage, const std::string& checkpoint_dir, std::uint32_t keep);
// What runs that died have left: incomplete generations, and what drop_unfinished() frees. For the
// one who is about to write there.
Status remove_unfinished(Storage& storage, const std::string& checkpoint_dir);

struct Verification {
  std::uint64_t files = 0, rows = 0;
  std::vector<std::string> errors;
};
// Reads every byte: sizes, block crcs, file crcs, row counts, and the digest.
Result<Verification> verify(Storage& storage, const std::string& generation_dir);

}  // namespace meander::checkpoint
