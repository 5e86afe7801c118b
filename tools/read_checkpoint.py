#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads a Meander generation (docs/checkpoint-format.md) with NumPy alone.

    tools/read_checkpoint.py checkpoints/gen-000012            what it holds
    tools/read_checkpoint.py checkpoints/gen-000012 item       the first rows of a table

    from read_checkpoint import read_manifest, read_table
    table = read_table(path, "item")    # dict of arrays: key, step, count, admitted, weights, state

A delta is read with all that it stands on, which must lie beside it. Blocks that are compressed need the `zstandard` package or the `zstd` program. Checksums of blocks and
manifest are checked when a `crc32c` package is there; `meander checkpoint verify` checks everything.
"""
import json
import pathlib
import subprocess
import sys

import numpy as np

FILE_MAGIC, BLOCK_MAGIC, END_MAGIC = 0x53574F52444E4D0A, 0x4B4C424D, 0x444E454D
FORMATS = (1, 2)
FILE_HEADER = np.dtype([("magic", "<u8"), ("format", "<u4"), ("table", "<u4"), ("values", "<u4"), ("crc", "<u4")])
BLOCK_HEADER = np.dtype([(name, "<u4") for name in (
    "magic", "codec", "records", "admitted", "first_partition", "last_partition", "raw_bytes",
    "stored_bytes", "payload_crc", "crc")])


def check_crc(data, expected, what):
    try:
        from crc32c import crc32c
    except ImportError:
        return
    if crc32c(bytes(data)) != expected:
        raise ValueError(f"{what}: damaged")


def unzstd(data, size):
    try:
        import zstandard
        raw = zstandard.ZstdDecompressor().decompress(bytes(data), max_output_size=size)
    except ImportError:
        raw = subprocess.run(["zstd", "-dcq"], input=bytes(data), stdout=subprocess.PIPE, check=True).stdout
    if len(raw) != size:
        raise ValueError("a block unpacks to another size than it says")
    return raw


def read_manifest(generation):
    path = pathlib.Path(generation) / "MANIFEST"
    text, _, last = path.read_bytes().rstrip(b"\n").rpartition(b"\n")
    if not last.startswith(b"crc32c "):
        raise ValueError(f"{path}: torn")
    check_crc(text + b"\n", int(last[7:], 16), path)
    manifest = json.loads(text)
    if manifest["format"] not in FORMATS:
        raise ValueError(f"{path}: format {manifest['format']} is not known")
    return manifest


def read_chain(generation):
    """[(path, manifest)] of the generation and of what it stands on, the newest first."""
    chain = [(pathlib.Path(generation), read_manifest(generation))]
    while base := int(chain[-1][1].get("base", 0)):
        path, manifest = chain[-1]
        if base >= int(manifest["generation"]):
            raise ValueError(f"{path}: a delta on generation {base}, which is not older")
        below = path.absolute().parent / f"gen-{base:06}"
        chain.append((below, read_manifest(below)))
    return chain


def read_block(raw, records, admitted, values):
    """The columns of one block's payload."""
    columns, offset = {}, 0
    for name, dtype, count in (("key", "<u8", records), ("step", "<u8", records), ("count", "<u4", records),
                               ("values", "<f4", admitted * values), ("admitted", "u1", records)):
        columns[name] = np.frombuffer(raw, dtype, count, offset)
        offset += columns[name].nbytes
    if offset != len(raw):
        raise ValueError("a block's columns do not fill it")
    columns["values"] = columns["values"].reshape(admitted, values)
    return columns


def read_rows(path):
    """Yields the columns of each block of a rows file."""
    data = np.fromfile(path, np.uint8)
    header = data[:FILE_HEADER.itemsize].view(FILE_HEADER)[0]
    if header["magic"] != FILE_MAGIC or header["format"] not in FORMATS:
        raise ValueError(f"{path}: not a rows file of a known format")
    offset = FILE_HEADER.itemsize
    while data[offset:offset + 4].view("<u4")[0] != END_MAGIC:
        block = data[offset:offset + BLOCK_HEADER.itemsize].view(BLOCK_HEADER)[0]
        if block["magic"] != BLOCK_MAGIC:
            raise ValueError(f"{path}: no block at byte {offset}")
        offset += BLOCK_HEADER.itemsize
        stored = data[offset:offset + int(block["stored_bytes"])]
        offset += len(stored)
        check_crc(stored, block["payload_crc"], f"{path}: block before byte {offset}")
        raw = unzstd(stored, int(block["raw_bytes"])) if block["codec"] == 1 else stored.tobytes()
        yield read_block(raw, int(block["records"]), int(block["admitted"]), int(header["values"]))


def read_link(path, manifest, index):
    """The columns of what one generation's own files hold of a table."""
    table = manifest["tables"][index]
    blocks = [block for file in manifest["files"] if file["table"] == index for block in read_rows(path / file["name"])]
    blocks = blocks or [read_block(b"", 0, 0, table["width"] + table["state_width"])]
    return {column: np.concatenate([block[column] for block in blocks]) for column in blocks[0]}


def select(columns, wanted):
    admitted = columns["admitted"].astype(bool)
    values = columns["values"][wanted[admitted]]
    return {**{name: columns[name][wanted] for name in ("key", "step", "count", "admitted")}, "values": values}


def read_table(generation, name):
    """One table of a generation: weights and state (rows, width) follow the keys that are admitted."""
    chain = read_chain(generation)
    names = [table["name"] for table in chain[0][1]["tables"]]
    index = names.index(name)
    table = chain[0][1]["tables"][index]
    step, expire, keep = (int(table.get(key, 0)) for key in ("step", "expire_steps", "keep_count"))
    parts, newer = [], np.empty(0, np.uint64)  # keys that a newer link has
    for path, manifest in chain:
        columns = read_link(path, manifest, index)
        wanted = ~np.isin(columns["key"], newer)
        if expire:  # gone: untouched for so long, and not touched often enough to be spared
            spared = (columns["count"] >= keep) if keep else np.zeros(len(wanted), bool)
            wanted &= spared | (step < columns["step"] + np.uint64(expire))
        newer = np.concatenate([newer, columns["key"]])
        parts.append(select(columns, wanted))
    joined = {column: np.concatenate([part[column] for part in parts]) for column in parts[0]}
    values, width = joined.pop("values"), table["width"]
    joined["admitted"] = joined["admitted"].astype(bool)
    return {**joined, "weights": values[:, :width], "state": values[:, width:]}


def main(generation, name=None):
    manifest = read_manifest(generation)
    base = int(manifest.get("base", 0))
    kind = f"a delta on generation {base}" if base else f"digest {manifest['digest']}"
    print(f"generation {manifest['generation']} of {manifest['model']}, {kind}")
    for table in manifest["tables"]:
        print(f"  {table['name']}: {table['rows']} rows of {table['width']} + {table['state_width']}, step {table['step']}")
    if name is not None:
        table = read_table(generation, name)
        for key, row in zip(table["key"][table["admitted"]][:5], table["weights"][:5]):
            print(key, row)


if __name__ == "__main__":
    main(*sys.argv[1:])
