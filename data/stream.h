// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "common/partition.h"
#include "common/status.h"
#include "data/batch.h"
#include "data/content.h"
#include "data/negatives.h"
#include "data/neighbours.h"
#include "data/prepared_log.h"

namespace meander::data {

enum class LogPart { kTrain, kTest, kAll };
enum class StreamOrder { kTime, kShuffle, kHashed, kUsers };

// One slot of a sample: where its key comes from, and the table that the key is looked up in.
struct SlotSpec {
  std::string name;
  SlotSource source = SlotSource::kItem;
  std::uint32_t table = 0;
  std::string column;  // of kContext: the log's context column
};

// Whether batches carry a catalogue of a table: all keys that its slot may have, or draws.
enum class CatalogueKind { kNone, kDrawn, kAll };

struct StreamSpec {
  // Shard s of the log belongs to stream s % count. One stream has the whole log.
  std::uint32_t index = 0, count = 1;

  // Targets: of this part, and of it those with from <= time < until.
  LogPart part = LogPart::kTrain;
  std::int64_t from_ms = std::numeric_limits<std::int64_t>::min();
  std::int64_t until_ms = std::numeric_limits<std::int64_t>::max();

  // Training targets only: users are dealt into `folds` by a hash of their id (0: all are served).
  // The stream has fold `fold` alone, or all the others. Costs 16 bytes for each of its targets.
  std::uint32_t folds = 0, fold = 0;
  bool is_fold = false;

  // kTime: in the log's order. kShuffle, kHashed: permutations that depend on `shuffle` and the
  // epoch alone, so runs with different seeds see the same order (what a protocol's figures
  // compare). kShuffle is NumPy's (TargetOrder) and costs 4 bytes a target; kHashed costs nothing.
  // kUsers: draws of the same kind, not a permutation: a user of the stream that has targets, then
  // one of his targets, each with equal chances, as many an epoch as there are targets.
  StreamOrder order = StreamOrder::kTime;
  std::uint32_t epochs = 1;
  std::uint64_t samples_max = 0;  // over all streams together, each an equal share; 0: all

  std::uint64_t seed = 1;      // of negatives, auxiliary ones too
  std::uint64_t shuffle = 0;   // which shuffle, or which draws
  std::uint32_t batch = 128;   // samples: targets and their negatives
  std::uint32_t parts = 4;     // of every batch; a short batch may leave some empty
  std::uint32_t history = 50;  // events of it at most, the newest; 0: none are looked at
  std::vector<SlotSpec> slots;
  std::uint32_t tables = 1;                // each slot's table is below
  std::shared_ptr<const Content> content;  // of slots of kContent, which share no table with others
  NegativesSpec negatives;
  // Whether to draw auxiliary negatives: kRecent draws from the window before each history event,
  // kUniform from all items but those that negatives.exclude names, all other kinds by popularity.
  bool auxiliary = false;
  bool second_label = false;  // whether to say the second label; the log must have one
  bool age = false;           // whether to say how old each behaviour is
  bool seen = false;          // whether to list what each user has had; needs a catalogue of items
  // By table; kAll is of the items or of the users of the log, by id.
  std::vector<CatalogueKind> catalogues;
  // Neighbours to draw of the targets, of those, ... (null: none). In training, edges between a
  // user and his target are not there.
  std::shared_ptr<const NeighbourGraph> neighbours;
  std::vector<std::uint32_t> fanout;  // by hop
  // Of kDrawn: items of the log, each in proportion to its training events to this power; 0:
  // evenly.
  std::uint32_t drawn = 0;
  double drawn_power = 1;
};

// The batches of one stream of a prepared log.
//
// A batch holds batch/(1 + negatives) groups (at least one) and is a pure function of (log, spec,
// seq): whoever builds it, in whatever order, gets the same bytes. Test targets have the negatives
// stored in the log, which must be as many as are asked for; training targets draw theirs by
// hash64(seed and epoch, target's row, try).
//
// Not thread-safe (it keeps scratch memory); opening one is cheap, so give each thread its own.
class Stream {
 public:
  // kInvalid: a slot or range that the log cannot serve, a batch below one group, no such stream,
  // more targets than can be shuffled (2^32).
  static Result<std::unique_ptr<Stream>> open(std::shared_ptr<const PreparedLog> log,
                                              const StreamSpec& spec);
  ~Stream();

  // Over all epochs. 0 when no target falls in the range.
  std::uint64_t batches() const;
  // Samples in all batches.
  std::uint64_t samples() const;
  // Numbers of a sample (columns of Part::numeric).
  std::uint32_t numerics() const;

  // Fills `batch`, reusing its memory; its keys are grouped by the lanes of `lanes`. Any seq below
  // batches(); rising ones are fastest.
  void build(std::uint64_t seq, const PartitionMap& lanes, Batch& batch);

 private:
  class Impl;
  explicit Stream(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace meander::data
