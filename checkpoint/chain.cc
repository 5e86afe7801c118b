// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "checkpoint/generation.h"

namespace meander::checkpoint {

Result<Chain> open_chain(Storage& storage, const std::string& path) {
  ASSIGN_OR_RETURN(std::string dir, resolve_generation(storage, path));
  Chain chain;
  for (;;) {
    ASSIGN_OR_RETURN(manifest::Manifest manifest, read_manifest(storage, dir));
    const std::uint64_t base = manifest.base();
    chain.push_back({dir, std::move(manifest)});
    if (base == 0) break;
    const std::size_t slash = dir.rfind('/');
    dir = join_path(slash == std::string::npos ? "." : dir.substr(0, slash), generation_name(base));
  }
  std::ranges::reverse(chain);
  return chain;
}

}  // namespace meander::checkpoint
