#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""With replicas a lane's death, or its sleep, costs no roll-back: its backup takes over."""
import os
import signal
import time
import unittest

import harness

DIN = {**harness.DIN, "batch": 8}  # small batches: the run is long enough to be disturbed


class Failover(harness.MeanderTest):
    EVENTS = 20000

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.counting = cls.write_job(harness.COUNTING, "counting.yaml")
        cls.din = cls.write_job(DIN, "din.yaml")

    def launch(self, job, name, mode, epochs):
        return self.start("launch", job, "--ps", "2", "--workers", "2", "--json", "-v",
                          "--set", f"checkpoint.dir={name}", "--set", "checkpoint.every_s=0.5",
                          "--set", "cluster.replicas=1", "--set", "cluster.lease_ms=1500",
                          "--set", "cluster.heartbeat_ms=100", "--set", f"train.mode={mode}",
                          "--set", f"train.epochs={epochs}", log=self.folder / f"{name}.log")

    def wait_in_step(self, name, times):
        def is_in_step():
            return (self.folder / f"{name}.log").read_text().count("is in step") >= times
        self.wait_until(is_in_step, f"{times} backups in step")

    def finish(self, run, failovers):
        ended = self.end(run)
        self.assertEqual(ended.code, 0, ended.out)
        self.assertEqual(ended.result["rollbacks"], 0)
        self.assertEqual(ended.result["failovers"], failovers)
        return ended.result

    def test_killed_lane_costs_no_record(self):
        run = self.launch(self.counting, "killed", "asp", 12)
        self.wait_in_step("killed", 2)
        os.kill(min(self.children(run, "ps")), harness.KILL)
        self.wait_in_step("killed", 4)  # the new process stands by
        os.kill(min(self.children(run, "ps")), harness.KILL)  # the older one serves both lanes by now
        self.finish(run, 3)
        for table in ("item", "category", "user"):
            expected = {key: 12 * n for key, n in self.expected_counts(table).items()}
            self.assertEqual(self.counted("killed", table), expected, table)

    def test_killed_lane_does_not_change_a_bit_under_bsp(self):
        calm = self.finish(self.launch(self.din, "calm", "bsp", 1), 0)
        run = self.launch(self.din, "din", "bsp", 1)
        self.wait_in_step("din", 2)
        os.kill(self.children(run, "ps")[0], harness.KILL)
        self.assertEqual(self.finish(run, 1)["digest"], calm["digest"])

    def test_lane_that_was_only_asleep_stands_down(self):
        run = self.launch(self.counting, "asleep", "asp", 30)
        self.wait_in_step("asleep", 2)
        sleeper = self.children(run, "ps")[0]
        os.kill(sleeper, signal.SIGSTOP)
        begin = time.monotonic()
        log = self.folder / "asleep.log"
        self.wait_until(lambda: "is served by" in log.read_text(), "a failover")
        self.assertLess(time.monotonic() - begin, 2, "detection and failover together")
        os.kill(sleeper, signal.SIGCONT)
        self.finish(run, 1)
        for table in ("item", "category", "user"):
            expected = {key: 30 * n for key, n in self.expected_counts(table).items()}
            self.assertEqual(self.counted("asleep", table), expected, table)


if __name__ == "__main__":
    unittest.main(verbosity=2)
