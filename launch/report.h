// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <boost/json/value.hpp>

#include "launch/cli.h"
#include "launch/run.h"

namespace meander::launch {

// Puts what a training run found out into the result and the summary of `context`.
void report_training(Context& context, const Plan& plan, const Outcome& outcome);
// The same of an evaluation of `checkpoint`.
void report_evaluation(Context& context, const Plan& plan, const Outcome& outcome,
                       const std::string& checkpoint);

// JSON has no NaN: null then.
boost::json::value json_number(double value);

}  // namespace meander::launch
