// SPDX-License-Identifier: Apache-2.0
#include "nn/simd/kernels.h"

#include <cstdlib>
#include <cstring>
#include <utility>

#include "common/check.h"
#include "nn/simd/mixed.h"

namespace meander::nn {

// One per compilation of kernels.inc.
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
  if (const char* asked = std::getenv("MEANDER_ISA")) {
    if (const Kernels* table = kernels_for(asked)) return table;
    LOG(WARNING) << "MEANDER_ISA=" << asked << " is unknown or not run by this machine; ignored";
  }
  for (const char* isa : {"v4", "v3"}) {
    if (const Kernels* table = kernels_for(isa)) return table;
  }
  return &v2::kTable;
}

}  // namespace

namespace {

const Kernels& of_machine() {
  static const Kernels* const table = choose();
  return *table;
}

const Kernels& of_machine_mixed() {
  static const Kernels table = [] {
    Kernels mixed = of_machine();
    const mixed::Products* products =
        &of_machine() == kernels_for("v4") ? mixed::products() : nullptr;
    return products == nullptr ? mixed : with_products(mixed, *products);
  }();
  return table;
}

thread_local const Kernels* scoped = nullptr;

}  // namespace

Kernels with_products(Kernels table, const mixed::Products& products) {
  table.isa = products.name;
  table.packed_floats = products.packed_floats;
  table.pack = products.pack;
  table.pack_add_rows = products.pack_add_rows;
  table.pack_add_columns = products.pack_add_columns;
  table.gemm = products.gemm;
  table.gemm_from = products.gemm_from;
  table.gemm_tn = products.gemm_tn;
  return table;
}

const Kernels& kernels() { return scoped == nullptr ? of_machine() : *scoped; }

const Kernels& kernels(Precision precision) {
  return precision == Precision::kMixed ? of_machine_mixed() : of_machine();
}

PrecisionScope::PrecisionScope(Precision precision)
    : before_(std::exchange(scoped, &kernels(precision))) {}
PrecisionScope::~PrecisionScope() { scoped = before_; }

}  // namespace meander::nn
