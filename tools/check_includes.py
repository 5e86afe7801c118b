#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks that a folder includes only what its row of the table in ARCHITECTURE.md names.

    tools/check_includes.py [ROOT]     prints each violation; exit 1 when there is one

Of the project, a row names folders or single headers ("data/batch.h"); of libraries, it names those of
the folder. Protobuf and Boost, whose types the headers of proto and common hand on, may go wherever
these go; every other library stays in its folder. A test may include anything. Each source carries
its licence in its first two lines.
"""
import os
import re
import sys

SOURCES = (".h", ".cc", ".inc")
LICENSED = SOURCES + (".py", ".sh", ".proto", ".cmake", "CMakeLists.txt")
LICENCE = "SPDX-License-Identifier: Apache-2.0"
# How an include of a library begins: the library's name in the table.
LIBRARIES = {
    "zmq": "ZeroMQ", "google/protobuf/": "Protobuf", "glog/": "glog", "boost/": "Boost",
    "zstd": "zstd", "onnx/": "ONNX", "mpi.h": "MPI", "yaml-cpp/": "yaml-cpp", "CLI/": "CLI11",
    "Eigen/": "Eigen", "librdkafka/": "Kafka", "hnswlib/": "hnswlib", "curl/": "libcurl", "openssl/": "OpenSSL",
    "hwy/": "Highway", "xxhash": "xxHash", "arrow/": "Arrow", "parquet/": "Parquet",
    "gtest/": "GoogleTest", "hiredis/": "hiredis", "gmock/": "GoogleTest", "benchmark/": "GoogleBenchmark",
}
PASSED_ON = {"Protobuf": "proto", "Boost": "common"}  # library: whoever includes this folder may use it
SYSTEM = re.compile(r"[a-z0-9_]+(\.h)?$|(sys|net|netinet|arpa|linux)/[a-z0-9_]+\.h$")
INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')


class Row:
    """What one folder may include; `anything`: whatever it likes."""

    def __init__(self, folder, includes, libraries, anything=False):
        self.folder, self.includes, self.libraries = folder, includes, libraries
        self.anything = anything

    def may_include(self, path):
        folder = path.split("/")[0]
        return self.anything or folder in self.includes | {self.folder} or path in self.includes

    def may_use(self, library):
        if self.anything or any(name.startswith(library) for name in self.libraries):
            return True
        passes = PASSED_ON.get(library)
        return passes is not None and self.may_include(passes + "/")


def parse_table(text):
    """The rows of the table of folders in ARCHITECTURE.md, by folder."""
    rows = {}
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("| folder |"):
            break
    next(lines, None)  # the rule under the header
    for line in lines:
        if not line.startswith("|"):
            break
        folders, _, includes, libraries = [cell.strip() for cell in line.split("|")[1:5]]
        may = set(includes.split()) - {"-"}
        if includes == "all above":
            may = set(rows)
        names = [name.strip() for name in libraries.split(",")]
        for folder in re.split(r",\s*", folders):
            rows[folder] = Row(folder, may, names, anything=includes in ("all", ""))
    return rows


def check_file(path, text, rows):
    """Yields (line, what is wrong) for one source."""
    lines = text.splitlines()
    if path.endswith(LICENSED) and not any(LICENCE in line for line in lines[:2]):
        yield 1, f"no '{LICENCE}' in the first two lines"
    if not path.endswith(SOURCES):
        return
    row = rows.get(path.split("/")[0])
    if row is None:
        yield 1, "its folder has no row in ARCHITECTURE.md"
        return
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if match is None:
            continue
        ours, theirs = match.groups()
        if ours is not None:
            if ours.split("/")[0] not in rows or "/" not in ours:
                yield number, f'"{ours}" is not written from the root of the project'
            elif not row.may_include(ours):
                yield number, f'{row.folder} may not include "{ours}"'
            continue
        known = [name for prefix, name in LIBRARIES.items() if theirs.startswith(prefix)]
        if known and not row.may_use(known[0]):
            yield number, f"{row.folder} may not use {known[0]} (<{theirs}>)"
        elif not known and not SYSTEM.match(theirs):
            yield number, f"<{theirs}> is of a library that tools/check_includes.py does not know"


def check_tree(root):
    """Yields "path:line: what is wrong" for each violation under `root`."""
    with open(os.path.join(root, "ARCHITECTURE.md"), encoding="utf-8") as file:
        rows = parse_table(file.read())
    if "common" not in rows:
        yield "ARCHITECTURE.md:1: the table of folders is gone"
        return
    for folder, folders, names in os.walk(root):
        if folder == root:
            folders[:] = [f for f in folders if f != "build"]
        folders[:] = sorted(f for f in folders if not f.startswith((".", "__")))
        for name in sorted(names):
            path = os.path.relpath(os.path.join(folder, name), root)
            if not name.endswith(LICENSED):
                continue
            with open(os.path.join(root, path), encoding="utf-8") as file:
                text = file.read()
            for line, what in check_file(path, text, rows):
                yield f"{path}:{line}: {what}"


def main():
    root = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "..")
    violations = list(check_tree(root))
    print("\n".join(violations) if violations else "includes: all as the table says")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
