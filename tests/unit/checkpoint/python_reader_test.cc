// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <string>

#include "checkpoint/generation.h"
#include "common/partition.h"
#include "tests/unit/checkpoint/run_model.h"

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

// What the Python reader and this one see of a table: number of keys, and sums that are exact.
std::string sums_by_python(const std::string& dir, const std::string& table) {
  return output_of(
      "PYTHONDONTWRITEBYTECODE=1 python3 -c \"import sys; sys.path.insert(0, 'tools'); "
      "import read_checkpoint as r; t = r.read_table('" +
      dir + "', '" + table +
      "'); print(len(t['key']), int(t['key'].sum()), int(t['step'].sum()), int(t['count'].sum()), "
      "int(t['admitted'].sum()), int(t['weights'].view('u4').sum(dtype='u8')), "
      "int(t['state'].view('u4').sum(dtype='u8')))\"");
}
std::string sums_by_us(Storage& storage, const std::string& dir, std::uint32_t table) {
  const Chain chain = open_chain(storage, dir).value();
  const std::uint32_t width = chain.back().manifest.tables(static_cast<int>(table)).width();
  std::uint64_t n = 0, key = 0, step = 0, count = 0, admitted = 0, weights = 0, state = 0;
  for (const auto& [k, record] : contents_of(storage, chain, table).value()) {
    ++n;
    key += k;
    step += record.step;
    count += record.count;
    admitted += record.admitted ? 1 : 0;
    for (std::size_t i = 0; i < record.values.size(); ++i) {
      (i < width ? weights : state) += std::bit_cast<std::uint32_t>(record.values[i]);
    }
  }
  std::string text;
  for (const std::uint64_t sum : {n, key, step, count, admitted, weights, state}) {
    if (!text.empty()) text += ' ';
    text += std::to_string(sum);
  }
  text += '\n';
  return text;
}

TEST(PythonReader, SeesTheSameRowsOfChainsAndOfFormatOne) {
  if (output_of("python3 -c 'import numpy; print(1)' 2>/dev/null") != "1\n") {
    GTEST_SKIP() << "python3 without numpy";
  }
  auto storage = make_posix_storage();
  const std::string golden = "tests/golden/checkpoint/format-1/gen-000001";
  for (std::uint32_t t = 0; t < 3; ++t) {
    const char* names[] = {"item", "category", "user"};
    EXPECT_EQ(sums_by_python(golden, names[t]), sums_by_us(*storage, golden, t));
  }
  char dir[] = "/tmp/meander-test-XXXXXX";
  ASSERT_NE(mkdtemp(dir), nullptr);
  RunModel run(*storage, std::string(dir) + "/c");
  run.tables[0].admit_count = 2;
  run.tables[0].expire_steps = 5;
  run.tables[0].keep_count = 6;
  run.tables[1].expire_steps = 4;
  Rng rng(8);
  for (std::uint64_t number = 1; number <= 4; ++number) {
    run.train(rng, 3, 60);
    run.write(number, number > 1, 2);
  }
  for (std::uint64_t number = 1; number <= 4; ++number) {
    for (std::uint32_t t = 0; t < 2; ++t) {
      EXPECT_EQ(sums_by_python(run.dir_of(number), run.tables[t].name),
                sums_by_us(*storage, run.dir_of(number), t));
    }
  }
  ASSERT_TRUE(storage->remove(dir).ok());
}

}  // namespace
}  // namespace meander::checkpoint
