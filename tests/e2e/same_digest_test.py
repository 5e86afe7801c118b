#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Under BSP the final checkpoint is the same for any number of lanes, for every way to run, and for a
run that was stopped and went on."""
import unittest

import harness


class SameDigest(harness.MeanderTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.job = cls.write_job(harness.DIN)
        cls.expected = cls.train("reference", workers=2, lanes=1)["digest"]

    @classmethod
    def sets(cls, name, wire="f32", **cluster):
        words = ["--set", f"checkpoint.dir={name}", "--set", f"train.wire={wire}"]
        for key, value in cluster.items():
            words += ["--set", f"cluster.{key}={value}"]
        return words

    @classmethod
    def train(cls, name, **settings):
        return cls.must("train", cls.job, *cls.sets(name, **settings))

    def test_any_number_of_lanes(self):
        for lanes in (2, 5):
            self.assertEqual(self.train(f"lanes{lanes}", workers=2, lanes=lanes)["digest"],
                             self.expected)

    def test_any_transport_and_number_of_threads(self):
        for transport in ("tcp", "shm"):
            result = self.train(transport, workers=2, lanes=2, transport=transport, threads=3)
            self.assertEqual(result["digest"], self.expected)

    def test_narrow_wire(self):
        for wire in ("bf16", "fp16"):
            ways = [self.train(f"{wire}-one", workers=2, lanes=1, wire=wire)["digest"],
                    self.train(f"{wire}-three", workers=2, lanes=3, wire=wire, transport="shm")["digest"],
                    self.must("launch", self.job, "--ps", "2", "--workers", "2",
                              *self.sets(f"{wire}-launched", lanes=2, wire=wire))["digest"]]
            self.assertEqual(len(set(ways)), 1, wire)
            self.assertNotEqual(ways[0], self.expected)

    def test_separate_processes(self):
        for transport in ("auto", "shm", "tcp"):
            result = self.must("launch", self.job, "--ps", "2", "--workers", "2",
                               *self.sets(f"launched-{transport}", lanes=3, transport=transport))
            self.assertEqual(result["digest"], self.expected)
            self.assertEqual(result["restarts"], 0)

    def test_ranks_of_mpi(self):
        ranks = harness.under_mpi(5)
        if ranks is None:
            self.skipTest("no mpirun here")
        result = self.must("train", self.job, *self.sets("ranks"), before=ranks,
                           environment=harness.MPI_AS_ROOT)
        self.assertEqual(result["digest"], self.expected)

    def test_averaged_dense_gradients_are_reproducible(self):
        ranks = harness.under_mpi(6)
        if ranks is None:
            self.skipTest("no mpirun here")
        ways = [self.must("train", self.job, *self.sets(f"averaged{lanes}", ps=2, workers=3, lanes=lanes),
                          "--set", "train.dense=allreduce", before=ranks,
                          environment=harness.MPI_AS_ROOT) for lanes in (2, 4)]
        self.assertEqual(ways[0]["digest"], ways[1]["digest"])
        self.assertEqual(ways[0]["samples"], 2 * (self.EVENTS - 2 * self.USERS))

    def test_stopped_launch_goes_on(self):
        name = "launch-stopped"
        command = ["launch", self.job, "--ps", "2", "--workers", "2", "--json", *self.sets(name)]
        run = self.start(*command, "--set", "checkpoint.every_s=0.05")
        self.wait_for_checkpoint(name)
        run.send_signal(harness.INTERRUPT)
        stopped = self.end(run)
        self.assertEqual(stopped.code, 130, stopped.err)
        self.assertEqual(self.must(*command)["digest"], self.expected)

    def test_stopped_and_resumed_on_another_number_of_lanes(self):
        for signal, code, before, after in ((harness.INTERRUPT, 130, 2, 7),
                                            (harness.TERMINATE, 143, 7, 1)):
            name = f"stopped{code}"
            # As small batches as there can be, so that the run is still on its way when it is told.
            slow = ["--set", "checkpoint.every_s=0.05", "--set", "checkpoint.keep=1"]
            run = self.start("train", self.job, "--json", *self.sets(name, workers=2, lanes=before),
                             *slow)
            self.wait_for_checkpoint(name)
            run.send_signal(signal)
            stopped = self.end(run)
            self.assertEqual(stopped.code, code, stopped.err)
            self.assertLessEqual(stopped.result["samples"], 2 * (self.EVENTS - 2 * self.USERS))
            resumed = self.must("train", self.job, "--resume", *self.sets(name, workers=2, lanes=after))
            self.assertEqual(resumed["digest"], self.expected)
            self.assertGreaterEqual(resumed["samples"], stopped.result["samples"])

    def test_run_again_is_already_trained(self):
        again = self.run_meander("train", self.job, "--json", *self.sets("reference", workers=2))
        self.assertEqual(again.code, 0, again.err)
        self.assertIn("already trained", again.err)
        self.assertEqual(again.result["digest"], self.expected)
        self.assertEqual(again.result["samples_this_run"], 0)
        fresh = self.must("train", self.job, "--fresh", *self.sets("lanes-fresh", workers=2))
        self.assertEqual(fresh["digest"], self.expected)

    def test_checkpoint_commands_agree(self):
        self.assertEqual(self.must("checkpoint", "digest", "reference")["digest"], self.expected)
        verified = self.must("checkpoint", "verify", "reference")
        self.assertTrue(verified["ok"])
        self.assertEqual(verified["errors"], [])
        evaluated = self.must("evaluate", self.job, "--checkpoint", "reference",
                              "--set", "cluster.workers=2")
        self.assertGreater(evaluated["auc"], 0.4)
        other = self.train("other", workers=2, lanes=3)
        self.assertTrue(self.must("checkpoint", "diff", "reference", "other")["rows_equal"])
        self.assertEqual(other["auc"], evaluated["auc"])

    def test_incremental_run_starts_from_the_rows(self):
        result = self.must("train", self.job, *self.sets("next", workers=2),
                           "--set", "train.init_from=reference", "--set", "data.train.part=test",
                           "--set", "data.test.part=none")
        self.assertEqual(result["samples"], 2 * self.USERS)
        self.assertIsNone(result["auc"])
        self.assertNotEqual(result["digest"], self.expected)


if __name__ == "__main__":
    unittest.main(verbosity=2)
