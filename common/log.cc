// SPDX-License-Identifier: Apache-2.0
#include "common/log.h"

#include <algorithm>

#include "common/check.h"

namespace meander {

void init_log(const char* program, int verbosity) {
  FLAGS_logtostderr = true;
  FLAGS_minloglevel = verbosity < 0 ? google::GLOG_ERROR : google::GLOG_INFO;
  FLAGS_v = std::max(verbosity, 0);
  if (!google::IsGoogleLoggingInitialized()) google::InitGoogleLogging(program);
}

}  // namespace meander
