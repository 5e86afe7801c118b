#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Scores an export's samples with onnxruntime and compares with what the trainer said of them.

    meander export JOB --checkpoint DIR --out EXPORT --samples 10000
    tools/check_onnx.py EXPORT

Reads EXPORT/export.json, the model it names, and EXPORT/samples.safetensors: raw 64-bit ids, and the
logits of the trainer's own forward pass from the checkpoint's rows. Prints one JSON object; exit 0
when the largest difference of a score is within the tolerance, else 1.
Needs numpy, onnxruntime and safetensors.
"""
import argparse
import json
import os
import sys
import time

import numpy
import onnxruntime
from safetensors.numpy import load_file

# float32 sums in another order; scores lie in (0, 1).
TOLERANCE = 1e-5


def sigmoid(x):
    return 1 / (1 + numpy.exp(-x.astype(numpy.float64)))


def feeds_of(session, samples, first, groups, padding=None):
    """The model's inputs for groups [first, first + groups); padded steps hold ids of `padding`."""
    feeds = {i.name: samples[i.name][first : first + groups] for i in session.get_inputs()}
    if padding is not None:
        length = samples["history_length"][first : first + groups, None]
        for name, ids in feeds.items():
            if name.startswith("history_") and ids.ndim == 2:
                padded = numpy.arange(ids.shape[1])[None, :] >= length
                feeds[name] = numpy.where(padded, padding.choice(ids.ravel(), ids.shape), ids)
    return feeds


def check(directory, samples_file):
    with open(os.path.join(directory, "export.json")) as f:
        description = json.load(f)
    session = onnxruntime.InferenceSession(
        os.path.join(directory, description["model_file"]), providers=["CPUExecutionProvider"]
    )
    samples = load_file(samples_file)
    padding = numpy.random.default_rng(1)
    score_diff = logit_diff = padding_diff = 0.0
    tasks = [task for task in ("", "second_") if task + "logit" in samples]
    scores_of = [task + "score" for task in tasks]
    seconds, first = 0.0, 0
    for groups in samples["batches"].tolist():
        started = time.perf_counter()
        logits_of = [task + "logit" for task in tasks]
        found = session.run(logits_of + scores_of, feeds_of(session, samples, first, groups))
        seconds += time.perf_counter() - started
        padded = session.run(scores_of, feeds_of(session, samples, first, groups, padding))
        for name, logit, score, other in zip(logits_of, found, found[len(tasks) :], padded):
            expected = samples[name][first : first + groups]
            logit_diff = max(logit_diff, float(numpy.abs(logit - expected).max()))
            score_diff = max(score_diff, float(numpy.abs(score - sigmoid(expected)).max()))
            padding_diff = max(padding_diff, float(numpy.abs(other - score).max()))
        first += groups
    if first != len(samples["logit"]):
        raise SystemExit(f"{samples_file}: batches hold {first} groups, logit {len(samples['logit'])}")
    return {
        "samples": int(samples["logit"].size),
        "max_abs_diff": score_diff,
        "score_deviation": round(float(sigmoid(samples["logit"]).std()), 6),
        "max_abs_diff_logit": logit_diff,
        "max_abs_diff_of_padding": padding_diff,
        "inputs": [i.name for i in session.get_inputs()],
        "samples_per_s": round(samples["logit"].size / max(seconds, 1e-9)),
        "dice": description["model"]["dice"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("export", help="directory written by meander export")
    parser.add_argument("--samples", help="default: EXPORT/samples.safetensors")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    arguments = parser.parse_args()
    samples = arguments.samples or os.path.join(arguments.export, "samples.safetensors")
    if not os.path.exists(samples):
        print(f"check_onnx: {samples}: not there; export with --samples N", file=sys.stderr)
        return 2
    report = check(arguments.export, samples)
    report["ok"] = max(report["max_abs_diff"], report["max_abs_diff_of_padding"]) <= arguments.tolerance
    print(json.dumps(report))
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
