// SPDX-License-Identifier: Apache-2.0
#pragma once

// CHECK, CHECK_EQ, ... and LOG: on in every build type. A CHECK is for what only a bug can cause.
#include <glog/logging.h>
