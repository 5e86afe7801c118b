// SPDX-License-Identifier: Apache-2.0
#include "ps/simd/kernels.h"

#include <cstdlib>
#include <cstring>

#include "common/check.h"

namespace meander::ps {

// One per compilation of optimizers.inc.
namespace v2 {
extern const Kernels kTable;
}
namespace v3 {
extern const Kernels kTable;
}
namespace v4 {
extern const Kernels kTable;
}

const Kernels* kernels_for(const char* isa) {
  __builtin_cpu_init();
  if (std::strcmp(isa, "v2") == 0) return &v2::kTable;
  if (std::strcmp(isa, "v3") == 0 && __builtin_cpu_supports("x86-64-v3")) return &v3::kTable;
  if (std::strcmp(isa, "v4") == 0 && __builtin_cpu_supports("x86-64-v4")) return &v4::kTable;
  return nullptr;
}

namespace {

const Kernels* choose() {
  // A name that is unknown is reported where nn reads the same variable.
  if (const char* asked = std::getenv("MEANDER_ISA")) {
    if (const Kernels* table = kernels_for(asked)) return table;
  }
  for (const char* isa : {"v4", "v3"}) {
    if (const Kernels* table = kernels_for(isa)) return table;
  }
  return &v2::kTable;
}

}  // namespace

const Kernels& kernels() {
  static const Kernels* const table = choose();
  return *table;
}

}  // namespace meander::ps
