// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "checkpoint/generation.h"
#include "common/partition.h"

namespace meander::checkpoint {
namespace {

// What a shell command prints.
std::string output_of(const std::string& command) {
  std::string text;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return text;
  for (int c = fgetc(pipe); c != EOF; c = fgetc(pipe)) text += static_cast<char>(c);
  pclose(pipe);
  return text;
}

TEST(PythonReader, SeesTheSameRows) {
  if (output_of("python3 -c 'import numpy; print(1)' 2>/dev/null") != "1\n") {
    GTEST_SKIP() << "python3 without numpy";
  }
  char dir[] = "/tmp/meander-test-XXXXXX";
  ASSERT_NE(mkdtemp(dir), nullptr);
  auto storage = make_posix_storage();
  manifest::Manifest manifest;
  manifest::Table& table = *manifest.add_tables();
  table.set_name("item");
  table.set_width(2);
  table.set_state_width(1);
  // Equal values, so that the first file is compressed; then values that are not.
  std::uint64_t key_sum = 0, step_sum = 0;
  double weight_sum = 0, state_sum = 0;
  for (int f = 0; f < 2; ++f) {
    auto writer =
        RowsWriter::create(*storage, std::string(dir) + "/f" + std::to_string(f), 0, 3, {});
    ASSERT_TRUE(writer.ok());
    std::vector<std::uint64_t> keys;
    Rng rng(f);
    for (int i = 0; i < 300; ++i) keys.push_back(rng.next());
    std::sort(keys.begin(), keys.end(),
              [](std::uint64_t a, std::uint64_t b) { return mix64(a) < mix64(b); });
    for (const std::uint64_t key : keys) {
      const float w = f == 0 ? 0.5f : static_cast<float>(key % 1000);
      const float values[] = {w, -2 * w, 3.0f};
      Record record{key, key % 77, 5, key % 3 != 0, values};
      if (!record.admitted) record.values = {};
      ASSERT_TRUE(writer.value()->add(record).ok());
      key_sum += key;
      step_sum += key % 77;
      weight_sum += record.admitted ? -w : 0;
      state_sum += record.admitted ? 3 : 0;
    }
    *manifest.add_files() = writer.value()->finish().value();
  }
  ASSERT_TRUE(write_manifest(*storage, dir, manifest).ok());
  const std::string script =
      "import sys; sys.path.insert(0, 'tools'); import read_checkpoint as r; "
      "t = r.read_table('" +
      std::string(dir) +
      "', 'item'); print(int(t['key'].sum()), int(t['step'].sum()), int(t['count'].sum()), "
      "int(t['weights'].sum()), int(t['state'].sum()), len(t['weights']) == t['admitted'].sum())";
  char expected[200];
  std::snprintf(expected, sizeof(expected), "%llu %llu 3000 %lld %lld True\n",
                static_cast<unsigned long long>(key_sum), static_cast<unsigned long long>(step_sum),
                static_cast<long long>(weight_sum), static_cast<long long>(state_sum));
  EXPECT_EQ(output_of("PYTHONDONTWRITEBYTECODE=1 python3 -c \"" + script + "\""), expected);
  ASSERT_TRUE(storage->remove(dir).ok());
}

}  // namespace
}  // namespace meander::checkpoint
