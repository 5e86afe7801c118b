#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of tools/check_includes.py, and the check of this very tree."""
import os
import sys
import tempfile
import unittest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../.."))
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(ROOT, "tools"))
import check_includes  # noqa: E402

TABLE = """Words before.

| folder | what it is | may include | libraries |
| --- | --- | --- | --- |
| common | small things | - | glog, Boost.JSON |
| proto | schemas | - | Protobuf |
| net | transport | common proto | ZeroMQ |
| data | batches | common | zstd (input files) |
| nn | ops | common | SIMD |
| models | models | common nn data/batch.h | - |
| launch | the program | all above | MPI, CLI11 |
| bench, tools | one benchmark per question | | |
| tests | tests | all | GoogleTest |

Words after | with | a | bar.
"""
LICENCE = "// SPDX-License-Identifier: Apache-2.0\n"


class CheckIncludes(unittest.TestCase):
    def wrong(self, path, *includes):
        text = LICENCE + "".join(f"#include {include}\n" for include in includes)
        rows = check_includes.parse_table(TABLE)
        return [what for _, what in check_includes.check_file(path, text, rows)]

    def assert_fine(self, path, *includes):
        self.assertEqual(self.wrong(path, *includes), [])

    def assert_wrong(self, path, include, what):
        found = self.wrong(path, include)
        self.assertEqual(len(found), 1, found)
        self.assertIn(what, found[0])

    def test_this_tree_is_as_its_table_says(self):
        self.assertEqual(list(check_includes.check_tree(ROOT)), [])

    def test_a_folder_may_include_what_its_row_names(self):
        self.assert_fine("net/a.cc", '"net/a.h"', '"common/status.h"', '"proto/wire.pb.h"')
        self.assert_fine("launch/main.cc", '"models/model.h"', '"net/a.h"')
        self.assert_fine("tests/unit/nn/a_test.cc", '"net/a.h"', "<zmq.h>", "<gtest/gtest.h>")
        self.assert_fine("bench/a.cc", '"nn/a.h"', "<benchmark/benchmark.h>")

    def test_a_folder_may_not_include_another(self):
        self.assert_wrong("common/a.h", '"net/transport.h"', 'common may not include "net/transport.h"')
        self.assert_wrong("nn/simd/a.inc", '"data/batch.h"', "nn may not include")
        self.assert_wrong("net/a.cc", '"launch/cli.h"', "net may not include")

    def test_a_row_may_name_a_single_header(self):
        self.assert_fine("models/din.cc", '"data/batch.h"')
        self.assert_wrong("models/din.cc", '"data/stream.h"', "models may not include")

    def test_a_library_stays_in_its_folder(self):
        self.assert_fine("net/a.cc", "<zmq.h>")
        self.assert_fine("launch/a.cc", "<mpi.h>", "<CLI/App.hpp>")
        self.assert_wrong("launch/a.cc", "<zmq.h>", "launch may not use ZeroMQ")
        self.assert_wrong("net/a.cc", "<mpi.h>", "net may not use MPI")
        self.assert_wrong("nn/a.h", "<glog/logging.h>", "nn may not use glog")

    def test_libraries_whose_types_are_handed_on_follow_their_folder(self):
        self.assert_fine("data/a.cc", "<boost/json.hpp>")
        self.assert_fine("net/a.cc", "<google/protobuf/message.h>")
        self.assert_wrong("nn/a.cc", "<google/protobuf/message.h>", "nn may not use Protobuf")

    def test_the_system_may_be_used_and_an_unknown_library_may_not(self):
        self.assert_fine("nn/a.cc", "<vector>", "<sys/mman.h>", "<immintrin.h>", "<poll.h>")
        self.assert_wrong("nn/a.cc", "<folly/dynamic.h>", "does not know")

    def test_includes_are_written_from_the_root(self):
        self.assert_wrong("net/a.cc", '"transport.h"', "not written from the root")
        self.assert_wrong("net/a.cc", '"../common/status.h"', "not written from the root")

    def test_a_folder_needs_a_row(self):
        self.assertEqual(self.wrong("misc/a.cc"), ["its folder has no row in ARCHITECTURE.md"])

    def test_each_source_carries_its_licence(self):
        rows = check_includes.parse_table(TABLE)
        for path in ("nn/a.cc", "tools/a.py", "proto/a.proto", "tests/CMakeLists.txt"):
            found = list(check_includes.check_file(path, "\n", rows))
            self.assertEqual([line for line, _ in found], [1], path)

    def test_a_tree_without_the_table_is_wrong(self):
        with tempfile.TemporaryDirectory() as root:
            with open(os.path.join(root, "ARCHITECTURE.md"), "w", encoding="utf-8") as file:
                file.write("nothing here\n")
            self.assertIn("table", list(check_includes.check_tree(root))[0])


if __name__ == "__main__":
    unittest.main()
