// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "common/executor.h"
#include "common/status.h"
#include "serve/artefact.h"
#include "serve/scorer.h"

namespace meander::serve {

// kDefault: as the export says.   kAll: every item of the export.
// kRecent: those with an event in the last `recent_ms` of the log.
enum class Candidates { kDefault, kAll, kRecent };

struct RankOptions {
  std::size_t k = 10;
  Candidates candidates = Candidates::kDefault;
  std::int64_t recent_ms = 0;  // of kRecent; 0: as the export says
  // May an item of the user's own behaviours be recommended? By default as the export says.
  enum Repeats { kAsExported, kAllow, kExclude } repeats = kAsExported;
};

struct Recommendation {
  std::uint64_t item = 0;
  float score = 0;  // probability that the model gives, in (0, 1)
  // Of its second task, such as that a click turns into a long stay; NaN: it has none.
  float second_score = std::numeric_limits<float>::quiet_NaN();
};

// Scores candidates for a user of an export and keeps the best. One thread at a time.
class Ranker {
 public:
  // kInvalid: the model reads something of a request that nobody is there to say (a context slot).
  static Result<std::unique_ptr<Ranker>> create(std::shared_ptr<const Artefact> artefact);

  // The best k for a user, best first (equal scores by item id). The history is the newest of the
  // user's behaviours, as many as the model was trained to see. kInvalid: the export does not know
  // the user, or there are no candidates.
  Result<std::vector<Recommendation>> rank(std::uint64_t user, const RankOptions& options,
                                           Executor& executor);
  // Candidates scored by the last rank().
  std::size_t scored() const { return scored_; }

 private:
  explicit Ranker(std::shared_ptr<const Artefact> artefact);
  std::vector<const artefact::Item*> candidates(const artefact::UserHistory& history,
                                                const RankOptions& options) const;
  artefact::Samples history_samples(const artefact::UserHistory& history) const;
  void set_candidates(std::span<const artefact::Item* const> items, std::uint64_t user,
                      artefact::Samples& samples) const;

  std::shared_ptr<const Artefact> artefact_;
  Scorer scorer_;
  std::size_t scored_ = 0;
};

}  // namespace meander::serve
