// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace meander {

// Sets logging up: to stderr, to no file. `verbosity`: -1 errors only (-q), 0 what a user wants to
// know, n > 0 also VLOG of levels up to n (-v). Call it once at the start, before other threads; a
// second call only changes the level. `program` must live as long as the process (argv[0]).
void init_log(const char* program, int verbosity);

}  // namespace meander
