// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/partition.h"
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

// Records of one table by column: those of a block, as far as they were asked for. Record i has
// keys[i], steps[i], counts[i] and admitted[i] (1 or 0); `values` has `width` floats of each that
// is admitted, one after the other. What it points to is valid until the visitor returns.
struct Records {
  std::span<const std::uint64_t> keys, steps;
  std::span<const std::uint32_t> counts;
  std::span<const std::uint8_t> admitted;
  std::span<const float> values;
  std::uint32_t width = 0;
  std::size_t size() const { return keys.size(); }
};
using RecordVisitor = std::function<Status(const Record&)>;
using RecordsVisitor = std::function<Status(const Records&)>;  // some 10 ns a record cheaper
// Calls `visit` for each of the records in turn.
Status visit_each(const Records& records, const RecordVisitor& visit);

// Floats of optimizer state behind the weights of a row.
std::uint32_t state_width(wire::Optimizer::Kind kind, std::uint32_t width);
// The optimizer's word in a manifest, such as "rowwise_adagrad".
std::string optimizer_name(wire::Optimizer::Kind kind);
// Whether rows that the named optimizer left are ones that `kind` can go on from. Adam and AdamW
// keep the same; others may be as wide and mean something else.
bool is_state_of(wire::Optimizer::Kind kind, const std::string& name);

// Hash of a record; a generation's digest adds these up, so it does not depend on their order.
std::uint64_t record_digest(std::uint32_t table, const Record& record);
// The sum of the records' digests.
std::uint64_t records_digest(std::uint32_t table, const Records& records);
// The manifest's digest: rows (the sum over all lanes), positions and clocks.
std::string final_digest(std::uint64_t record_sum, const manifest::Manifest& manifest);

// Writes one file of records of one table, which come in any order, in blocks with a crc each
// (docs/checkpoint-format.md). Partitions first ... last are cut into `groups` of equal size, and a
// block holds records of one group: a reader of some partitions skips most others. Holds up to a
// block of each group. Nothing is promised before finish().
class RowsWriter {
 public:
  struct Cutting {
    std::uint32_t first_partition = 0, last_partition = kPartitions - 1, groups = 1;
  };
  static Result<std::unique_ptr<RowsWriter>> create(Storage& storage, const std::string& path,
                                                    std::uint32_t table, std::uint32_t values,
                                                    const Cutting& cutting);
  ~RowsWriter();
  Status add(const Record& record);
  Result<manifest::File> finish();  // `name` is the last part of the path

 private:
  struct Impl;
  explicit RowsWriter(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Calls `visit` for every record whose partition lies in [first, last]; skips blocks that hold
// none. Reads the file in pieces of 8 MiB. kCorrupt: names the file and the block; records of
// earlier blocks have been visited then.
Status read_rows(Storage& storage, const std::string& path, const manifest::File& file,
                 std::uint32_t first_partition, std::uint32_t last_partition,
                 const RecordsVisitor& visit);
Status read_rows(Storage& storage, const std::string& path, const manifest::File& file,
                 std::uint32_t first_partition, std::uint32_t last_partition,
                 const RecordVisitor& visit);

// A checkpoint directory holds generations: gen-000012/ with row files and MANIFEST, which is
// written last: a directory without one is not a generation.
std::string generation_name(std::uint64_t generation);  // "gen-000012"
// kInvalid: there is one already. It is never replaced.
Status write_manifest(Storage& storage, const std::string& dir, const manifest::Manifest& manifest);
Result<manifest::Manifest> read_manifest(Storage& storage, const std::string& dir);
// Newest complete generation's directory. kNotFound: none. Nobody falls back to an older one when
// the newest is damaged, or what it stands on is missing: open_chain says so.
Result<std::string> newest_generation(Storage& storage, const std::string& checkpoint_dir);
// The highest number of any generation there, complete or not; 0: none, or no such directory.
Result<std::uint64_t> highest_generation(Storage& storage, const std::string& checkpoint_dir);
// All complete generations, oldest first, as directory paths.
Result<std::vector<std::string>> list_generations(Storage& storage, const std::string& dir);
// `path` may be a generation or a checkpoint directory (then: its newest).
Result<std::string> resolve_generation(Storage& storage, const std::string& path);

// What stays when all but the newest `keep` complete generations, and what these stand on, go; and
// what goes: directory paths, in the order in which to remove them. An incomplete generation goes
// when it is older than the newest complete one: a newer one may be in writing. When the manifest
// of one that stays is damaged, nobody knows what it needs, and all older ones stay. `pinned`: a
// generation's directory that stays whatever its age; empty: none.
struct Retention {
  std::vector<std::string> kept, removed;
};
Result<Retention> plan_prune(Storage& storage, const std::string& checkpoint_dir,
                             std::uint32_t keep, const std::string& pinned = "");
// Removes them. Wherever it is interrupted, every complete generation can be read.
Status prune(Storage& storage, const std::string& checkpoint_dir, std::uint32_t keep,
             const std::string& pinned = "");
// Wherever it is interrupted, what is left is no generation. Ok when absent.
Status remove_generation(Storage& storage, const std::string& dir);
// What runs that died have left: incomplete generations, and what drop_unfinished() frees. For the
// one who is about to write there.
Status remove_unfinished(Storage& storage, const std::string& checkpoint_dir);

// A generation and all that it stands on: a full one first, then deltas, each on the one before.
struct Link {
  std::string dir;
  manifest::Manifest manifest;
};
using Chain = std::vector<Link>;
// `path` as in resolve_generation. kCorrupt: names the link that is missing or does not fit.
Result<Chain> open_chain(Storage& storage, const std::string& path);
// Whether a delta may stand on `base`: the same model, and tables alike in name, width, state,
// optimizer and expiry. If not, write a full generation.
bool may_stand_on(const manifest::Manifest& delta, const manifest::Manifest& base);
// Every record of `table` whose partition lies in [first, last], as the chain's last generation has
// it, each once; none that has expired there. Remembers the keys of the deltas (16-32 bytes each).
Status read_table(Storage& storage, const Chain& chain, std::uint32_t table,
                  std::uint32_t first_partition, std::uint32_t last_partition,
                  const RecordsVisitor& visit);
Status read_table(Storage& storage, const Chain& chain, std::uint32_t table,
                  std::uint32_t first_partition, std::uint32_t last_partition,
                  const RecordVisitor& visit);
// The digest of the chain's last generation; of a full one as its manifest has it, else from the
// records of all.
Result<std::string> read_digest(Storage& storage, const Chain& chain);
// Whether a record is there at the table's step: a function of its last touch and touches alone.
inline bool is_present(std::uint64_t expire_steps, std::uint32_t keep_count, std::uint64_t step,
                       std::uint32_t count, std::uint64_t table_step) {
  if (expire_steps == 0 || (keep_count > 0 && count >= keep_count)) return true;
  return table_step < step + expire_steps;
}

struct Verification {
  std::uint64_t generations = 0, files = 0, rows = 0;  // looked at
  std::vector<std::string> errors;
};
// Reads every byte of the generation and of all that it stands on: sizes, block crcs, file crcs,
// row counts, the full one's digest, and that each link fits the next.
Result<Verification> verify(Storage& storage, const std::string& generation_dir);

}  // namespace meander::checkpoint
