// SPDX-License-Identifier: Apache-2.0
#include "scheduler/evaluation.h"

#include <algorithm>

namespace meander::scheduler {

void Evaluation::reset() {
  slices_.clear();
  held_out_.clear();
}

bool Evaluation::is_done() const {
  return !slices_.empty() &&
         std::ranges::all_of(slices_, [](const Slice& slice) { return slice.is_done; });
}

bool Evaluation::is_busy(std::uint32_t worker) const {
  return std::ranges::any_of(
      slices_, [&](const Slice& slice) { return !slice.is_done && slice.worker == worker; });
}

void Evaluation::assign(Slice& slice, const std::vector<WorkerMember>& workers,
                        std::uint64_t setup) {
  if (slice.worker && workers[*slice.worker].is_ready(setup)) return;
  slice.worker.reset();
  for (std::uint32_t worker = 0; worker < workers.size() && !slice.worker; ++worker) {
    if (!workers[worker].is_ready(setup) || is_busy(worker)) continue;
    slice.worker = worker;
    slice.next_ask = {};
  }
}

void Evaluation::drive(Post& post, const std::vector<WorkerMember>& workers, std::uint64_t setup) {
  if (slices_.empty()) {
    slices_.resize(std::ranges::count_if(
        workers, [&](const WorkerMember& worker) { return worker.is_ready(setup); }));
  }
  for (std::uint32_t number = 0; number < slices_.size(); ++number) {
    Slice& slice = slices_[number];
    if (slice.is_done) continue;
    assign(slice, workers, setup);
    if (!slice.worker || !post.due(slice.next_ask)) continue;
    wire::Header header;
    wire::Evaluate& body = *header.mutable_evaluate();
    body.set_slice(number);
    body.set_slices(slices_.size());
    body.set_setup(setup);
    post.send(workers[*slice.worker].name, std::move(header));
  }
}

void Evaluation::on_evaluated(const wire::Evaluated& evaluated, const Accumulator& scores) {
  if (evaluated.slices() != slices_.size() || evaluated.slice() >= slices_.size()) return;
  Slice& slice = slices_[evaluated.slice()];
  if (slice.is_done) return;
  slice.is_done = true;
  held_out_.merge(scores);
}

}  // namespace meander::scheduler
