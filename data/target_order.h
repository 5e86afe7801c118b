// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "data/numpy_random.h"
#include "data/prepared_log.h"
#include "data/stream.h"

namespace meander::data {

// One of the n targets of a stream.
struct TargetRef {
  const Shard* shard = nullptr;
  Target target;
  bool is_test = false;
  std::uint64_t test_index = 0;  // in the shard's test targets
};

// A permutation of [0, n) that is computed, not stored: a Feistel network of four rounds on the
// next even number of bits, walked until it falls inside [0, n) (Black and Rogaway, "Ciphers with
// Arbitrary Finite Domains", CT-RSA 2002).
class Permutation {
 public:
  Permutation(std::uint64_t n, std::uint64_t key);
  std::uint64_t operator()(std::uint64_t i) const;  // i < n

 private:
  std::uint64_t once(std::uint64_t i) const;
  std::uint64_t n_, key_;
  std::uint32_t half_bits_;
};

// The targets of a stream in the order in which it serves them; holds a few words for each of the
// stream's shards and, shuffled or by users, 4 bytes for each target. Not thread-safe.
//
// kShuffle: with the stream's n targets numbered by row, pass e serves number p[0], p[1], ... where
// p is the (e+1)th rng.permutation(n) of rng = numpy.random.default_rng(spec.shuffle).
// kHashed: by class Permutation over the targets as they lie in the shards.
// kUsers: number i of an epoch is a function of (spec.shuffle, epoch, i) and of the targets.
class TargetOrder {
 public:
  TargetOrder(const PreparedLog& log, const StreamSpec& spec);

  std::uint64_t size() const { return offsets_.back(); }
  // Targets [from, from + out.size()) of an epoch. Ranges that follow one another are fastest.
  void get(std::uint32_t epoch, std::uint64_t from, std::vector<TargetRef>& out);

 private:
  // The targets of a shard's part that fall in the range of time, in order of row.
  struct Run {
    const Shard* shard;
    std::span<const Target> targets;
    bool is_test;
    std::uint64_t first_index;  // of targets[0] in the part
  };
  // Those of a shard's training targets that the stream has.
  std::span<const Target> dealt(const Shard& shard, const StreamSpec& spec);
  void add_run(const Shard& shard, std::span<const Target> part, bool is_test,
               const StreamSpec& spec);
  TargetRef ref(const Run& run, std::uint64_t i) const;
  void seek(std::uint64_t place);  // sets next_ to the first `place` targets in order of row
  void get_by_time(std::uint64_t from, std::vector<TargetRef>& out);
  void get_hashed(std::uint32_t epoch, std::uint64_t from, std::vector<TargetRef>& out) const;
  void get_shuffled(std::uint32_t epoch, std::uint64_t from, std::vector<TargetRef>& out);
  void shuffle(std::uint32_t epoch);
  void group_by_user();
  void get_of_users(std::uint32_t epoch, std::uint64_t from, std::vector<TargetRef>& out) const;
  std::size_t take_next();  // the run with the least row of all that are next, which moves on
  TargetRef ref_at(std::uint64_t place) const;

  StreamOrder order_;
  std::uint64_t shuffle_;
  std::uint64_t rows_;                      // of the log
  std::vector<std::vector<Target>> dealt_;  // what runs_ point to where there are folds
  std::vector<Run> runs_;
  std::vector<std::uint64_t> offsets_{
      0};                            // of each run in the concatenation of all; size at the end
  std::vector<std::uint64_t> next_;  // by run: targets before place_
  std::uint64_t place_ = 0;
  NumpyRandom random_;                   // after the shuffle of pass `shuffled_epoch_`
  std::vector<std::uint32_t> shuffled_;  // places in the concatenation; empty before the first pass
  std::uint32_t shuffled_epoch_ = 0;
  std::vector<std::uint32_t> by_user_;     // places in the concatenation, those of a user together
  std::vector<std::uint32_t> user_begin_;  // in by_user_, of each user with targets; its size
};

}  // namespace meander::data
