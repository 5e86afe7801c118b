// SPDX-License-Identifier: Apache-2.0
// libFuzzer: rows files and manifests. The first byte picks.
#include "tests/fuzz/checkpoint_target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace meander::checkpoint;
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(bytes) + 1, size - 1);
  const bool reseal = bytes[0] & 1;
  if (bytes[0] & 2) {
    fuzz_rows(rest, reseal);
  } else {
    fuzz_manifest(*fuzz_chain(), "c/gen-000001", "c/gen-000002", rest, reseal);
  }
  return 0;
}
