// SPDX-License-Identifier: Apache-2.0
// libFuzzer: event logs of every format, and the files of a prepared log. The first byte picks.
#include "tests/fuzz/data_target.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(bytes) + 1, size - 1);
  switch (bytes[0] % 3) {
    case 0:
      meander::data::fuzz_log(rest);
      break;
    case 1:
      meander::data::fuzz_prepared_log(rest, false);
      break;
    default:
      meander::data::fuzz_prepared_log(rest, true);
  }
  return 0;
}
