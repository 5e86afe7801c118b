#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Each record is trained exactly once, whatever dies: the counting model's rows say how often."""
import os
import unittest

import harness


class ExactlyOnce(harness.MeanderTest):
    EVENTS = 20000

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.job = cls.write_job(harness.COUNTING)

    def launch(self, name):
        return self.start("launch", self.job, "--ps", "2", "--workers", "2", "--json",
                          "--set", f"checkpoint.dir={name}", "--set", "checkpoint.every_s=0.1",
                          "--set", "cluster.lease_ms=1000", "--set", "cluster.heartbeat_ms=100")

    def finish(self, run, name):
        ended = self.end(run)
        self.assertEqual(ended.code, 0, ended.err)
        self.assert_counts_exact(name)
        self.assertEqual(ended.result["samples"], self.EVENTS - 2 * self.USERS)
        return ended.result

    def kill_one(self, run, name, role):
        self.wait_for_checkpoint(name)
        victims = self.children(run, role)
        self.assertTrue(victims, f"no {role} to kill: the run was over before")
        os.kill(victims[-1], harness.KILL)

    def test_undisturbed(self):
        name = "undisturbed"
        result = self.finish(self.launch(name), name)
        self.assertEqual(result["restarts"], 0)

    def test_killed_worker(self):
        name = "worker-killed"
        run = self.launch(name)
        self.kill_one(run, name, "worker")
        self.assertEqual(self.finish(run, name)["restarts"], 1)

    def test_killed_lane(self):
        name = "lane-killed"
        run = self.launch(name)
        self.kill_one(run, name, "ps")
        self.assertEqual(self.finish(run, name)["restarts"], 1)

    def test_killed_launcher_takes_all_with_it_and_the_next_one_goes_on(self):
        name = "launcher-killed"
        run = self.launch(name)
        self.wait_for_checkpoint(name)
        children = self.children(run, "worker") + self.children(run, "ps")
        run.kill()
        self.end(run)
        self.wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children),
                        "the end of the children")
        self.finish(self.launch(name), name)


if __name__ == "__main__":
    unittest.main(verbosity=2)
