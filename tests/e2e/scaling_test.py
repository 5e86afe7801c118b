#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Lanes are added and removed while training goes on: no roll-back, every record once, not one bit
changed under BSP; also when a lane or the scheduler is killed in the middle."""
import os
import unittest

import harness

COUNTING = {**harness.COUNTING, "batch": 8}
DIEN = {**harness.DIN, "name": "dien", "batch": 8,
        "model": "{kind: dien, embedding: 8, attention: [16, 8], head: [16, 8]}"}


class Scaling(harness.MeanderTest):
    EVENTS = 20000

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.counting = cls.write_job(COUNTING, "counting.yaml")
        cls.dien = cls.write_job(DIEN, "dien.yaml")

    def launch(self, job, name, mode, epochs):
        self.job, self.name, self.epochs = job, name, epochs
        run = self.start("launch", job, "--ps", "2", "--workers", "2", "--json", "-v",
                         "--set", f"checkpoint.dir={name}", "--set", "checkpoint.every_s=0.5",
                         "--set", f"train.mode={mode}", "--set", f"train.epochs={epochs}",
                         log=self.folder / f"{name}.log")
        return run

    def scale(self, lanes):
        result = self.must("scale", self.job, "--lanes", str(lanes),
                           "--set", f"checkpoint.dir={self.name}")
        self.assertEqual(result["lanes"], lanes)
        print(f"{self.name}: {result['lanes_before']} -> {lanes} lanes: copied in "
              f"{result['copy_s']:.2f} s, paused for {1e3 * result['pause_s']:.1f} ms, "
              f"{result['pause_batches']:.1f} batches", flush=True)
        return result

    def finish(self, run):
        ended = self.end(run)
        self.assertEqual(ended.code, 0, (self.folder / f"{self.name}.log").read_text())
        return ended.result

    def assert_counts(self):
        for table in ("item", "category", "user"):
            expected = {key: self.epochs * n for key, n in self.expected_counts(table).items()}
            self.assertEqual(self.counted(self.name, table), expected, table)

    def test_every_record_counts_once(self):
        run = self.launch(self.counting, "counted", "asp", 14)
        self.wait_for_checkpoint("counted")
        self.scale(4)
        self.assertEqual(len(self.children(run, "ps")), 4)
        self.scale(1)
        self.wait_until(lambda: len(self.children(run, "ps")) == 1, "the others have left")
        self.scale(3)
        result = self.finish(run)
        self.assertEqual((result["rollbacks"], result["scalings"], result["lanes"]), (0, 3, 3))
        self.assert_counts()

    def test_not_a_bit_changes_under_bsp(self):
        calm = self.finish(self.launch(self.dien, "calm", "bsp", 1))
        run = self.launch(self.dien, "scaled", "bsp", 1)
        self.wait_for_checkpoint("scaled")
        self.scale(4)
        self.scale(1)
        result = self.finish(run)
        self.assertEqual((result["rollbacks"], result["scalings"]), (0, 2))
        self.assertEqual(result["digest"], calm["digest"])

    def test_deaths_in_the_middle(self):
        run = self.launch(self.counting, "killed", "asp", 14)
        self.wait_for_checkpoint("killed")
        asked = self.start("scale", self.job, "--lanes", "4", "--json",
                           "--set", "checkpoint.dir=killed")
        self.wait_until(lambda: len(self.children(run, "ps")) >= 4, "more lanes")
        os.kill(self.children(run, "scheduler")[0], harness.KILL)
        os.kill(max(self.children(run, "ps")), harness.KILL)
        ended = self.end(asked)
        self.assertEqual(ended.code, 0, ended.err)
        self.assertEqual(ended.result["lanes"], 4)
        os.kill(min(self.children(run, "ps")), harness.KILL)  # and back to a generation
        self.scale(2)
        self.finish(run)
        self.assert_counts()

    def test_what_cannot_be_is_said(self):
        ended = self.run_meander("scale", self.counting, "--lanes", "4",
                                 "--set", "checkpoint.dir=nowhere")
        self.assertEqual(ended.code, 2)
        self.assertIn("meander launch", ended.err)


if __name__ == "__main__":
    unittest.main(verbosity=2)
