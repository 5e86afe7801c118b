// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "checkpoint/s3_client.h"
#include "common/storage.h"

namespace meander::checkpoint {

struct S3Sizes {
  std::size_t part_bytes = 8 << 20;  // a larger file goes, and is read, in parts of so many
  std::size_t parts_in_flight = 3;   // of one file; it holds one part more in memory
};

// Files on an S3-compatible store, by paths "s3://bucket/key" (docs/stores.md). Further errors:
// kUnavailable, the store did not answer in time.
//
// A store has no directories: one is there when something is in it, so create() makes them as it
// goes and make_directories() does nothing. A file appears, whole, with close(); written without,
// it leaves nothing. There is no rename (kInvalid): write_atomic() is one PUT, write_exclusive() a
// conditional one.
std::unique_ptr<Storage> make_s3_storage(S3Options options, S3World world, S3Sizes sizes = {});

}  // namespace meander::checkpoint
