// SPDX-License-Identifier: Apache-2.0
#include "data/marks.h"

#include <cstdlib>
#include <cstring>
#include <initializer_list>

namespace meander::data {

// One per compilation of simd/marks.inc.
namespace v2 {
extern const FindMarks kFindMarks;
}
namespace v3 {
extern const FindMarks kFindMarks;
}
namespace v4 {
extern const FindMarks kFindMarks;
}

FindMarks find_marks_for(const char* isa) {
  __builtin_cpu_init();
  if (std::strcmp(isa, "v2") == 0) return v2::kFindMarks;
  if (std::strcmp(isa, "v3") == 0 && __builtin_cpu_supports("x86-64-v3")) return v3::kFindMarks;
  if (std::strcmp(isa, "v4") == 0 && __builtin_cpu_supports("x86-64-v4")) return v4::kFindMarks;
  return nullptr;
}

namespace {

FindMarks choose() {
  // A name that is unknown is reported where nn reads the same variable.
  if (const char* asked = std::getenv("MEANDER_ISA")) {
    if (const FindMarks find = find_marks_for(asked)) return find;
  }
  for (const char* isa : {"v4", "v3"}) {
    if (const FindMarks find = find_marks_for(isa)) return find;
  }
  return v2::kFindMarks;
}

}  // namespace

FindMarks find_marks() {
  static const FindMarks best = choose();
  return best;
}

}  // namespace meander::data
