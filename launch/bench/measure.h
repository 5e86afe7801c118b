// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <vector>

namespace meander::launch::bench {

// Measures once and appends its figures, always the same number of them.
using Probe = std::function<void(std::vector<double>& figures)>;

// Runs all probes in turn, one round to warm up and then `rounds` that count, so that whatever
// disturbs the machine disturbs all of them alike. Returns each figure's median, in the order in
// which a round appends them.
std::vector<double> medians_in_turn(int rounds, const std::vector<Probe>& probes);

// Runs body(0) ... body(threads - 1) at once, each on a thread of its own (one: on this thread);
// returns the seconds from their common start to the last one's end.
double seconds_on_threads(unsigned threads, const std::function<void(unsigned)>& body);

// The rate of `work`, of `units` each time it is called: called for about `seconds` on each thread.
double rate_on_threads(unsigned threads, double seconds, double units,
                       const std::function<void(unsigned)>& work);

unsigned all_threads();
// {1, all_threads()}; {1} on a machine of one core.
std::vector<unsigned> thread_counts();

}  // namespace meander::launch::bench
