#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A run that was stopped for longer than its deadlines goes on as if nothing had been."""
import os
import signal
import time
import unittest

import harness

PAUSE_S = 9
SILENCE_S = 4  # of join_s: how long a silent lane is waited for


class Pause(harness.MeanderTest):
    EVENTS = 60000

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.job = cls.write_job(harness.COUNTING)

    def begin(self, name, *command):
        run = self.start(*command, self.job, "--json", "--set", f"checkpoint.dir={name}",
                         "--set", "checkpoint.every_s=0.1", "--set", f"cluster.join_s={SILENCE_S}",
                         "--set", "cluster.lease_ms=2500")
        self.wait_for_checkpoint(name)
        return run

    def pause(self, pids):
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(PAUSE_S)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)

    def finish(self, run, name):
        ended = self.end(run)
        self.assertEqual(ended.code, 0, ended.err)
        self.assert_counts_exact(name)
        self.assertEqual(ended.result["samples"], self.EVENTS - 2 * self.USERS)

    def test_one_process(self):
        run = self.begin("one", "train")
        self.pause([run.pid])
        self.finish(run, "one")

    def test_launcher_and_its_processes(self):
        run = self.begin("several", "launch", "--ps", "2", "--workers", "2")
        children = [pid for role in ("scheduler", "ps", "worker") for pid in self.children(run, role)]
        self.assertTrue(children, "the run was over before")
        self.pause([run.pid, *children])
        self.finish(run, "several")


if __name__ == "__main__":
    unittest.main()
