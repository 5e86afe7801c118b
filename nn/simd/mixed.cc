// SPDX-License-Identifier: Apache-2.0
#include "nn/simd/mixed.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

namespace meander::nn::mixed {

// One per compilation of mixed.inc.
namespace bf16 {
extern const Products kTable;
}
namespace amx {
extern const Products kTable;
}

namespace {

constexpr long kRequestPermission = 0x1023;  // arch_prctl: of a state component for this process
constexpr long kTileData = 18;
constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;  // cpuid 7.0, edx
constexpr unsigned kAvx512Bf16 = 1u << 5;                     // cpuid 7.1, eax

struct Registers {
  unsigned a = 0, b = 0, c = 0, d = 0;
};
Registers cpuid(unsigned leaf, unsigned sub) {
  Registers r;
  if (!__get_cpuid_count(leaf, sub, &r.a, &r.b, &r.c, &r.d)) return {};
  return r;
}

// Linux hands out the large tile state only to who asks for it.
bool has_amx() {
  const unsigned wanted = kAmxBf16 | kAmxTile;
  return (cpuid(7, 0).d & wanted) == wanted && (cpuid(7, 1).a & kAvx512Bf16) != 0 &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool has_bf16() { return (cpuid(7, 1).a & kAvx512Bf16) != 0; }

// On AMD the dot product does twice the work of a float32 product; on Intel it is no faster.
bool has_fast_bf16() {
  const Registers vendor = cpuid(0, 0);
  return has_bf16() && vendor.b == signature_AMD_ebx;
}

}  // namespace

const Products* products_for(const char* name) {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("x86-64-v4")) return nullptr;
  if (std::strcmp(name, "amx") == 0 && has_amx()) return &amx::kTable;
  if (std::strcmp(name, "bf16") == 0 && has_bf16()) return &bf16::kTable;
  return nullptr;
}

const Products* products() {
  if (const Products* amx = products_for("amx")) return amx;
  return has_fast_bf16() ? products_for("bf16") : nullptr;
}

}  // namespace meander::nn::mixed
