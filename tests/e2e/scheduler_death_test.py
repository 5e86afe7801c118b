#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A run goes on when its scheduler is killed: no roll-back, no batch lost or trained twice."""
import os
import time
import unittest

import harness

DEATHS = 4
EVERY = ("--set", "checkpoint.every_s=0.2", "--set", "cluster.lease_ms=2000",
         "--set", "cluster.heartbeat_ms=100")


# Small batches and several passes: the run outlives all deaths, also on an idle machine.
PASSES = 3
COUNTING = {**harness.COUNTING, "batch": 6}
DIN = {**harness.DIN, "batch": 12}


class SchedulerDeath(harness.MeanderTest):
    EVENTS = 120000

    def launch(self, job, name, *more):
        return self.start("launch", job, "--ps", "2", "--workers", "2", "--json",
                          "--set", f"checkpoint.dir={name}", "--set", f"train.epochs={PASSES}",
                          *EVERY, *more)

    def kill_schedulers(self, run, name):
        """Kills one after the other, each once it has had time to be at something else."""
        self.wait_for_checkpoint(name)
        killed = []
        for death in range(DEATHS):
            self.wait_until(lambda: [pid for pid in self.children(run, "scheduler")
                                     if pid not in killed] or run.poll() is not None,
                            "another scheduler")
            self.assertIsNone(run.poll(), f"the run was over before death {death + 1}")
            killed += [pid for pid in self.children(run, "scheduler") if pid not in killed]
            time.sleep(0.35 + 0.15 * death)
            os.kill(killed[-1], harness.KILL)

    def finish(self, run, samples_of_an_event=1):
        ended = self.end(run)
        self.assertEqual(ended.code, 0, ended.err)
        events = PASSES * (self.EVENTS - 2 * self.USERS)
        self.assertEqual(ended.result["samples"], events * samples_of_an_event)
        self.assertNotIn("is lost", ended.err)
        return ended.result

    def test_counts_are_exact_under_asp(self):
        job = self.write_job(COUNTING, "counting.yaml")
        run = self.launch(job, "counting", "--set", "train.mode=asp")
        self.kill_schedulers(run, "counting")
        result = self.finish(run)
        for table in ("item", "category", "user"):
            expected = {key: PASSES * n for key, n in self.expected_counts(table).items()}
            self.assertEqual(self.counted("counting", table), expected, table)
        self.assertEqual(result["restarts"], DEATHS)

    def test_digest_is_that_of_an_undisturbed_run_under_bsp(self):
        job = self.write_job(DIN)
        undisturbed = self.finish(self.launch(job, "quiet"), samples_of_an_event=2)
        self.assertEqual(undisturbed["restarts"], 0)
        run = self.launch(job, "disturbed")
        self.kill_schedulers(run, "disturbed")
        result = self.finish(run, samples_of_an_event=2)
        self.assertEqual(result["restarts"], DEATHS)
        self.assertEqual(result["digest"], undisturbed["digest"])
        self.assertEqual(result["batches"], undisturbed["batches"], "metrics of each batch, once")
        self.assertEqual(result["auc"], undisturbed["auc"])

    def test_a_finished_run_leaves_no_journal(self):
        job = self.write_job(COUNTING, "counting.yaml")
        self.finish(self.launch(job, "once"))
        self.assertFalse((self.folder / "once" / "journal").exists())


if __name__ == "__main__":
    unittest.main(verbosity=2)
