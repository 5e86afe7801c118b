#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Models of graphs by the program: the neighbours that a step draws do not depend on who trains; nodes are exported as
rows, scored alike by onnxruntime, and recommended; and what is most alike by an interest that fades, on a real log."""
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import unittest

import harness

DATA = pathlib.Path(os.environ.get("MEANDER_DATA", harness.ROOT.parent / "shared" / "data"))


def job(name):
    return str(harness.ROOT / "examples" / f"{name}.yaml")


class Graphs(harness.MeanderTest):
    def run_ok(self, *args):
        ended = self.run_meander(*args, "--json", "-q", environment={"MEANDER_DATA": str(DATA)})
        self.assertEqual(ended.code, 0, ended.err)
        return ended.result

    def refused(self, *args):
        ended = self.run_meander(*args, environment={"MEANDER_DATA": str(DATA)})
        self.assertEqual(ended.code, 2, ended.out)
        self.assertEqual(ended.err.count("\n"), 1, ended.err)
        return ended.err

    def same_by_onnxruntime(self, export):
        if importlib.util.find_spec("onnxruntime") is None:
            self.skipTest("no onnxruntime in this python: tests/run installs one that has it")
        done = subprocess.run([sys.executable, harness.ROOT / "tools" / "check_onnx.py", self.folder / export],
                              capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return json.loads(done.stdout)["samples"]


@unittest.skipUnless((DATA / "cora").is_dir(), f"no cora in {DATA}: set MEANDER_DATA")
class Cora(Graphs):
    def test_draws_do_not_depend_on_lanes_or_threads(self):
        digests = {self.run_ok("train", job("cora-graphsage"), "--set", "train.epochs=8", "--set", "train.batch=48",
                               "--set", f"cluster.lanes={lanes}", "--set", f"cluster.threads={threads}", "--set",
                               f"checkpoint.dir=ck-{lanes}-{threads}")["digest"]
                   for lanes, threads in ((1, 1), (1, 2), (3, 2))}
        self.assertEqual(len(digests), 1, digests)

    def test_a_step_pulls_words_of_drawn_papers_alone(self):
        few = self.run_ok("train", job("cora-graphsage"), "--set", "train.epochs=1", "--set", "train.batch=4", "--set",
                          "train.samples_max=4", "--set", "model.fanout=[2,2]", "--set", "data.test.part=none",
                          "--set", "checkpoint.dir=few")
        # At most 4 + 8 + 24 papers of some 18 words each, and 7 classes, of 1,433 words.
        self.assertLess(few["rows"], 700)

    def test_a_node_is_exported_as_its_scores_of_all_classes(self):
        report = self.run_ok("train", job("cora-gcn"), "--set", "train.epochs=60", "--set", "checkpoint.dir=ck")
        export = self.run_ok("export", job("cora-gcn"), "--set", "checkpoint.dir=ck", "--out", "cora", "--samples",
                             "1000")
        self.assertLess(export["max_abs_diff"], 1e-5)
        self.assertGreaterEqual(self.same_by_onnxruntime("cora"), 1000)
        right = total = 0
        for line in (DATA / "cora" / "cora_nodes.txt").read_text().splitlines()[2400:2440]:
            node, of_class = line.split()[:2]
            answer = self.run_ok("recommend", "cora", "--user", node, "--k", "7", "--repeats")
            self.assertEqual(len(answer["items"]), 7)
            right += answer["items"][0]["item"] == int(of_class)
            total += 1
        self.assertGreater(right / total, 0.6, report["recall_at_1"])

    def test_drawn_neighbours_are_not_exported(self):
        self.run_ok("train", job("cora-graphsage"), "--set", "train.epochs=1", "--set", "checkpoint.dir=drawn")
        error = self.refused("export", job("cora-graphsage"), "--set", "checkpoint.dir=drawn", "--out", "no")
        self.assertIn("drawn anew for each batch", error)


@unittest.skipUnless((DATA / "ml1m_graph").is_dir(), f"no ml1m_graph in {DATA}: set MEANDER_DATA")
class LightGcn(Graphs):
    def test_propagated_vectors_are_exported(self):
        few = ("--set", "train.epochs=1", "--set", "train.samples_max=40000", "--set", "checkpoint.dir=ck")
        self.run_ok("train", job("ml1m-lightgcn"), "--set", "data.test.part=none", *few)
        export = self.run_ok("export", job("ml1m-lightgcn"), *few, "--out", "vectors", "--samples", "2000")
        self.assertLess(export["max_abs_diff"], 1e-5)
        self.assertGreaterEqual(self.same_by_onnxruntime("vectors"), 2000)
        answer = self.run_ok("recommend", "vectors", "--user", "7", "--k", "5")
        self.assertEqual(len(answer["items"]), 5)
        for of in ("users", "items"):
            near = self.run_ok("neighbours", "vectors", "--of", of, "--id", "7", "--k", "3")
            self.assertEqual(len(near["neighbours"]), 3)


@unittest.skipUnless((DATA / "globo").is_dir(), f"no globo in {DATA}: set MEANDER_DATA")
class Decay(Graphs):
    def test_users_who_are_most_alike(self):
        self.run_ok("train", job("globo-decay"), "--set", "train.samples_max=20000", "--set", "data.test.part=none",
                    "--set", "checkpoint.dir=ck")
        self.run_ok("export", job("globo-decay"), "--set", "checkpoint.dir=ck", "--out", "globo")
        near = self.run_ok("neighbours", "globo", "--of", "users", "--id", "59", "--k", "5")
        similar = [n["similarity"] for n in near["neighbours"]]
        self.assertEqual(len(similar), 5)
        self.assertEqual(similar, sorted(similar, reverse=True))
        self.assertGreater(near["compared"], 100_000)
        # As alike seen from the other side.
        other = near["neighbours"][0]
        back = self.run_ok("neighbours", "globo", "--id", str(other["id"]), "--k", "2000")
        found = [n["similarity"] for n in back["neighbours"] if n["id"] == 59]
        self.assertTrue(found or back["neighbours"][-1]["similarity"] >= other["similarity"] - 1e-6)
        if found:
            self.assertAlmostEqual(found[0], other["similarity"], places=5)
        # Before anything has happened nobody has an interest.
        self.assertIn("has no vector", self.refused("neighbours", "globo", "--id", "59", "--at", "2017-09-30"))
        self.assertIn("--id", self.refused("neighbours", "globo"))


if __name__ == "__main__":
    unittest.main()
