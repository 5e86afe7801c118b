#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Vectors of items as features: a model of them alone learns what nobody trained a row for; nothing of
them travels or changes the digest by the way a run is cut; an export scores as the trainer does."""
import array
import csv
import pathlib
import subprocess
import sys
import unittest

import harness

VECTORS = 5  # columns; of the items with an even number, by their category


def npy(kind, shape, values):
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
    text += " " * ((64 - (10 + len(text) + 1) % 64) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + values.tobytes()


class Content(harness.MeanderTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with open(cls.folder / "log" / "events.csv") as events:
            category = {int(e["item"]): int(e["category"]) for e in csv.DictReader(events)}
        items = [item for item in sorted(category) if item % 2 == 0]
        values = array.array("f")
        for item in items:
            values.extend(((category[item] + 1) * (c + 2) * 7 % 11 - 5) / 5 for c in range(VECTORS))
        (cls.folder / "v.npy").write_bytes(npy("<f4", (len(items), VECTORS), values))
        (cls.folder / "i.npy").write_bytes(npy("<i8", (len(items),), array.array("q", items)))
        model = "{kind: din, embedding: 8, attention: [16, 8], head: [16, 8], slots: %s, content_width: %d}"
        cls.beside = cls.write_job({**harness.DIN, "model": model % ("[item, category, content]", 6)})
        cls.alone = cls.write_job({**harness.DIN, "name": "alone", "model": model % ("[content]", 0)},
                                  "alone.yaml")
        cls.files = ["--set", "data.content.vectors=v.npy", "--set", "data.content.items=i.npy"]

    @classmethod
    def train(cls, job, directory, *words, command="train"):
        return cls.must(command, job, *cls.files, "--set", f"checkpoint.dir={directory}", *words)

    def test_digest_is_the_same_for_any_lanes_and_processes(self):
        for job in (self.beside, self.alone):
            one = self.train(job, f"one-{job}", "--set", "cluster.workers=2")["digest"]
            two = self.train(job, f"two-{job}", "--set", "cluster.workers=2", "--set", "cluster.lanes=2",
                             "--set", "cluster.threads=3")["digest"]
            apart = self.train(job, f"apart-{job}", "--ps", "2", "--workers", "2", command="launch")["digest"]
            self.assertEqual(one, two)
            self.assertEqual(one, apart)

    def test_vectors_alone_tell_what_a_user_likes(self):
        result = self.train(self.alone, "learns", "--set", "train.epochs=4")
        self.assertGreater(result["auc"], 0.55, result)

    def test_checkpoint_has_no_rows_of_them(self):
        self.train(self.beside, "rows")
        ended = self.run_meander("checkpoint", "rows", "rows", "--table", "content")
        self.assertEqual((ended.code, ended.out.strip()), (0, ""), ended.err)

    def test_export_scores_as_the_trainer_and_recommends(self):
        for job in (self.beside, self.alone):
            self.train(job, f"export-{job}")
            words = [job, *self.files, "--set", f"checkpoint.dir=export-{job}", "--out", f"out-{job}"]
            report = self.must("export", *words, "--samples", "500")
            self.assertLessEqual(report["max_abs_diff"], 1e-5)
            out = self.folder / f"out-{job}"
            answer = self.must("recommend", f"out-{job}", "--user", self.first_user(), "--k", "5")
            self.assertEqual(len(answer["items"]), 5)
            try:
                import onnxruntime  # noqa: F401
                import safetensors  # noqa: F401
            except ImportError:
                continue
            check = pathlib.Path(harness.ROOT) / "tools" / "check_onnx.py"
            done = subprocess.run([sys.executable, check, out], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def first_user(self):
        with open(self.folder / "log" / "events.csv") as events:
            return next(csv.DictReader(events))["user"]

    def test_files_that_do_not_fit_are_one_line(self):
        (self.folder / "few.txt").write_text("1\n2\n")
        ended = self.run_meander("train", self.beside, "--set", "data.content.vectors=v.npy", "--set",
                                 "data.content.items=few.txt")
        self.assertEqual(ended.code, 2)
        self.assertEqual(len(ended.err.strip().splitlines()), 1, ended.err)
        self.assertIn("few.txt: has 2 ids", ended.err)


if __name__ == "__main__":
    unittest.main()
