#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads a Meander generation (docs/checkpoint-format.md) with NumPy alone.

    tools/read_checkpoint.py checkpoints/gen-000012            what it holds
    tools/read_checkpoint.py checkpoints/gen-000012 item       the first rows of a table

    from read_checkpoint import read_manifest, read_table
    table = read_table(path, "item")    # dict of arrays: key, step, count, admitted, weights, state

A delta is read with all that it stands on, which must lie beside it. Blocks that are compressed need the `zstd` program.
Checksums are checked when a `crc32c` package is there; `meander checkpoint verify` checks everything.
"""
import json
import pathlib
import struct
import subprocess
import sys

import numpy as np
try:
    from crc32c import crc32c
except ImportError:
    crc32c = None

FILE_MAGIC, BLOCK_MAGIC, END_MAGIC = 0x53574F52444E4D0A, 0x4B4C424D, 0x444E454D
FILE_HEADER, BLOCK_HEADER = struct.Struct("<QIIII"), struct.Struct("<10I")
RECORD = [("key", "<u8"), ("step", "<u8"), ("count", "<u4"), ("admitted", "?")]


def check(holds, what):
    if not holds:
        raise ValueError(what)


def read_manifest(generation):
    path = pathlib.Path(generation) / "MANIFEST"
    text, _, last = path.read_bytes().rstrip(b"\n").rpartition(b"\n")
    check(last.startswith(b"crc32c "), f"{path}: torn")
    check(crc32c is None or crc32c(text + b"\n") == int(last[7:], 16), f"{path}: damaged")
    manifest = json.loads(text)
    check(manifest["format"] in (1, 2), f"{path}: format {manifest['format']} is not known")
    return manifest


def read_rows(path):
    """Yields the records of each block of a rows file; who is not admitted has zeros."""
    data, offset = path.read_bytes(), FILE_HEADER.size
    magic, form, _, floats, _ = FILE_HEADER.unpack_from(data)
    check(magic == FILE_MAGIC and form in (1, 2), f"{path}: not a rows file of a known format")
    while struct.unpack_from("<I", data, offset)[0] != END_MAGIC:
        magic, codec, n, admitted, _, _, size, stored, crc, _ = BLOCK_HEADER.unpack_from(data, offset)
        check(magic == BLOCK_MAGIC, f"{path}: no block at byte {offset}")
        offset += BLOCK_HEADER.size + stored
        raw = data[offset - stored:offset]
        check(crc32c is None or crc32c(raw) == crc, f"{path}: the block before byte {offset} is damaged")
        raw = subprocess.run(["zstd", "-dcq"], input=raw, stdout=subprocess.PIPE, check=True).stdout if codec == 1 else raw
        check(len(raw) == size == 21 * n + 4 * admitted * floats, f"{path}: a block's columns do not fill it")
        rows = np.zeros(n, RECORD + [("values", "<f4", (floats,))])
        for (column, dtype), at in zip(RECORD, (0, 8 * n, 16 * n, size - n)):
            rows[column] = np.frombuffer(raw, dtype, n, at)
        rows["values"][rows["admitted"]] = np.frombuffer(raw, "<f4", admitted * floats, 20 * n).reshape(-1, floats)
        yield rows


def read_table(generation, name):
    """One table of a generation: weights and state (rows, width) follow the keys that are admitted."""
    path, manifest = pathlib.Path(generation).absolute(), read_manifest(generation)
    index, table = next((i, table) for i, table in enumerate(manifest["tables"]) if table["name"] == name)
    step, expire, keep = (int(table.get(key, 0)) for key in ("step", "expire_steps", "keep_count"))
    parts = [np.empty(0, RECORD + [("values", "<f4", (table["width"] + table["state_width"],))])]
    while manifest:  # the generation, then what it stands on: of a key, the newest record counts
        newer = np.concatenate([part["key"] for part in parts])
        for file in manifest["files"]:
            if file["table"] == index:
                parts += [rows[~np.isin(rows["key"], newer)] for rows in read_rows(path / file["name"])]
        base = int(manifest.get("base", 0))
        check(base == 0 or base < int(manifest["generation"]), f"{path}: stands on generation {base}, which is not older")
        path = path.parent / f"gen-{base:06}"
        manifest = read_manifest(path) if base else None
    rows = np.concatenate(parts)
    if expire:  # gone: untouched for so long, and not touched often enough to be spared
        rows = rows[(step < rows["step"] + np.uint64(expire)) | ((keep > 0) & (rows["count"] >= keep))]
    weights, state = np.split(rows["values"][rows["admitted"]], [table["width"]], axis=1)
    return {**{column: rows[column] for column, _ in RECORD}, "weights": weights, "state": state}


def main(generation, name=None):
    manifest = read_manifest(generation)
    kind = manifest.get("digest") or f"on {manifest['base']}"
    print(f"generation {manifest['generation']} of {manifest['model']}, {kind}")
    for table in manifest["tables"]:
        print(f"  {table['name']}: {table['rows']} rows of {table['width']} + {table['state_width']}, step {table['step']}")
    if name is not None:
        table = read_table(generation, name)
        print(*zip(table["key"][table["admitted"]][:5], table["weights"]), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
