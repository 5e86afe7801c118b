#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""From a log to recommendations by the program itself: generate, prepare, train, export, score the
held-out samples with onnxruntime, recommend; and what export and recommend refuse.

    MEANDER_PROGRAM=build/release/meander tests/e2e/export_command.py
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("MEANDER_PROGRAM", str(ROOT / "build" / "release" / "meander"))
JOB = """
name: small-dien
data:
  path: prepared
  history: 20
  negatives: {kind: recent, window_s: 86400}
model:
  kind: dien
  embedding: 8
  hidden: 16
  attention: [16, 8]
  head: [32, 16]
train: {batch: 128, samples_max: 20000}
checkpoint: {dir: checkpoints}
"""


class Failure(Exception):
    pass


def meander(*args, expect=0):
    """Runs a command; returns its last line as JSON, or its message when it must fail."""
    done = subprocess.run([PROGRAM, *map(str, args)], capture_output=True, text=True)
    if done.returncode != expect:
        raise Failure(f"meander {' '.join(map(str, args))}: exit {done.returncode}, expected {expect}\n{done.stderr}")
    if expect:
        lines = done.stderr.strip().splitlines()
        if done.stdout or len(lines) != 1:
            raise Failure(f"meander {' '.join(map(str, args))}: not one line of error: {done.stdout}{done.stderr}")
        return lines[0]
    return json.loads(done.stdout.strip().splitlines()[-1]) if "--json" in args else done.stdout


def require(condition, what):
    if not condition:
        raise Failure(what)


def check_scores(export):
    done = subprocess.run([sys.executable, ROOT / "tools" / "check_onnx.py", export], capture_output=True, text=True)
    require(done.returncode == 0, f"check_onnx: {done.stdout}{done.stderr}")
    return json.loads(done.stdout)


def run():
    meander("generate", "--out", "log", "--users", 1500, "--items", 300, "--events", 40000, "--seed", 1)
    meander("prepare", "--format", "csv", "--schema", "log/schema.yaml", "--in", "log/events.csv", "--out", "prepared")
    pathlib.Path("job.yaml").write_text(JOB)
    meander("train", "job.yaml", "-q")

    # Both forms of Dice, both layouts; an export is replaced by the next.
    for dice, layout in (("batch", "triton"), ("moving", "plain")):
        report = meander("export", "job.yaml", "--out", "export", "--samples", 10000, "--dice", dice,
                         "--layout", layout, "--json", "-q")
        require(report["max_abs_diff"] <= 1e-5, f"own check: {report}")
        scores = check_scores("export")
        print(f"dice {dice}, {layout}: {scores['samples']} held-out samples, largest difference of "
              f"onnxruntime's scores {scores['max_abs_diff']:.2g}")
        require(abs(report["auc"] - report["auc_trained"]) < 0.02, f"Dice's statistics cost too much: {report}")
    require(not pathlib.Path("export", "small-dien").exists(), "the older export is still there")

    user = pathlib.Path("log/events.csv").read_text().splitlines()[1].split(",")[
        pathlib.Path("log/events.csv").read_text().splitlines()[0].split(",").index("user")]
    answer = meander("recommend", "export", "--user", user, "--k", 5, "--json")
    scores = [item["score"] for item in answer["items"]]
    require(len(scores) == 5 and scores == sorted(scores, reverse=True), f"not the best five: {answer}")
    require(not {i["item"] for i in answer["items"]} & {h["item"] for h in answer["history"]}, "repeats history")
    text = meander("recommend", "export", "--user", user, "--k", 50)
    require("recommended" in text, "no text for people")
    # The log has categories, and 0 is one of them.
    nameless = [line for line in text.splitlines() if " item " in line and "(category " not in line]
    require(not nameless, f"without a category: {nameless}")

    # Refusals: one line, exit 2, nothing half-written.
    require("999999999" in meander("recommend", "export", "--user", 999999999, expect=2), "unknown user")
    require("export" in meander("recommend", "prepared", "--user", 1, expect=2), "not an export")
    require("int8" in meander("export", "job.yaml", "--out", "e2", "--rows", "int8", expect=2), "rows int8")
    require("prepared" in meander("export", "job.yaml", "--out", "prepared", expect=2), "target in use")
    meander("export", "job.yaml", "--out", "e2", "--checkpoint", "nowhere", expect=2)
    meander("export", "job.yaml", "--out", "e2", "--set", "model.kind=din", expect=2)
    require(not pathlib.Path("e2").exists() and not pathlib.Path("e2.tmp").exists(), "something was left behind")


def main():
    with tempfile.TemporaryDirectory(prefix="meander-export-") as folder:
        os.chdir(folder)
        try:
            run()
        except Failure as failure:
            print(f"FAILED: {failure}", file=sys.stderr)
            return 1
        finally:
            os.chdir("/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
