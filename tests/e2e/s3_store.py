#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on an S3 server are those of a disk, whatever the server does."""
import random
import sys
import threading
import unittest

import harness

try:
    import s3_server
except ImportError as missing:  # tests/run has what it needs
    print(f"skipped: {missing}; launch/install-packages --tests")
    sys.exit(77)

PART = 8 << 20
WIDE = {**harness.DIN, "name": "wide",
        "model": "{kind: din, embedding: 1024, attention: [4, 4], head: [4, 4]}"}


class S3Test(harness.MeanderTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.store = s3_server.Store()
        cls.environment.update(cls.store.environment)
        cls.job = cls.write_job(harness.DIN)

    @classmethod
    def tearDownClass(cls):
        cls.store.stop()
        super().tearDownClass()

    def setUp(self):
        self.store.reset()

    def tearDown(self):
        self.assertEqual(self.store.unsigned, [], "requests whose signature botocore makes otherwise")

    @staticmethod
    def url(name):
        return f"s3://{s3_server.BUCKET}/{name}"

    def sets(self, name, **values):
        words = ["--set", f"checkpoint.dir={self.url(name)}"]
        for key, value in values.items():
            words += ["--set", f"{key.replace('__', '.')}={value}"]
        return words

    def refuse(self, code, words, *arguments, **how):
        ended = self.run_meander(*arguments, **how)
        self.assertEqual(ended.code, code, ended.err)
        lines = [line for line in ended.err.splitlines() if line.startswith("meander:")]
        self.assertEqual(len(lines), 1, ended.err)
        for word in words:
            self.assertIn(word, lines[0])

    def wait_for_manifest(self, name):
        self.wait_until(lambda: any(seen.key.startswith(name + "/") and seen.key.endswith("MANIFEST")
                                    and seen.method == "PUT" for seen in self.store.seen), "a checkpoint")


class SmallRun(S3Test):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.expected = cls.must("train", cls.job, "--set", "checkpoint.dir=on-disk")["digest"]

    def test_a_store_serves_wherever_a_folder_does(self):
        trained = self.must("train", self.job, *self.sets("all", checkpoint__every_s=0.2))
        self.assertEqual(trained["digest"], self.expected)
        self.assertTrue(trained["checkpoint"].startswith(self.url("all") + "/gen-"))
        self.assertEqual(self.must("checkpoint", "digest", self.url("all"))["digest"], self.expected)
        self.assertEqual(self.must("checkpoint", "verify", self.url("all"))["errors"], [])
        self.must("checkpoint", "ls", self.url("all"))
        self.must("checkpoint", "inspect", self.url("all"))
        self.must("checkpoint", "diff", "on-disk", self.url("all"))
        for command in (["evaluate", self.job], ["evaluate", self.job, "--checkpoint", self.url("all")]):
            self.assertEqual(self.must(*command, *self.sets("all"))["auc"],
                             self.must("evaluate", self.job, "--checkpoint", "on-disk")["auc"])
        exported = self.must("export", self.job, "--checkpoint", self.url("all"), "--out", "exported")
        self.assertLess(exported["max_abs_diff"], 1e-5)
        from_rows = self.must("train", self.job, "--set", "checkpoint.dir=from-rows",
                              "--set", f"train.init_from={self.url('all')}")
        self.assertNotEqual(from_rows["digest"], self.expected)
        self.must("checkpoint", "prune", self.url("all"), "--keep", "1")
        left = {key.split("/")[1] for key in self.store.keys("all/")}
        self.assertEqual(left, {trained["checkpoint"].split("/")[-1]})

    def test_interrupted_and_resumed(self):
        run = self.start("train", self.job, *self.sets("resumed", checkpoint__every_s=0.05))
        self.wait_for_manifest("resumed")
        run.send_signal(harness.INTERRUPT)
        ended = self.end(run)
        self.assertEqual(ended.code, 130, ended.err)
        self.assertEqual(self.must("train", self.job, "--resume", *self.sets("resumed"))["digest"], self.expected)

    def test_separate_processes_and_a_killed_lane(self):
        run = self.start("launch", self.job, "--ps", "2", "--workers", "1", "--json",
                         *self.sets("killed", checkpoint__every_s=0.05))
        self.wait_for_manifest("killed")
        lanes = self.children(run, "ps")
        self.assertTrue(lanes, "no lane to kill: the run was over before")
        harness.os.kill(lanes[0], harness.KILL)
        ended = self.end(run)
        self.assertEqual(ended.code, 0, ended.err)
        self.assertEqual(ended.result["digest"], self.expected)
        self.assertEqual(ended.result["restarts"], 1)

    def test_refusals_broken_connections_lost_answers_and_delays_change_nothing(self):
        dice, lock, faults = random.Random(5), threading.Lock(), []

        def fault(method, key, query):
            with lock:
                kind = dice.choice([s3_server.REFUSE, s3_server.DROP, s3_server.LOSE, s3_server.DELAY]
                                   + [None] * 8)
            faults.append(kind)
            return kind

        self.store.delay_s = 0.1
        self.store.fault = fault
        trained = self.must("train", self.job, *self.sets("faults", checkpoint__every_s=0.2, cluster__lanes=3))
        self.assertEqual(trained["digest"], self.expected)
        self.assertEqual(self.must("checkpoint", "verify", self.url("faults"))["errors"], [])
        for kind in (s3_server.REFUSE, s3_server.DROP, s3_server.LOSE, s3_server.DELAY):
            self.assertIn(kind, faults)

    def test_a_store_that_stays_away_ends_the_run_as_retryable(self):
        self.store.fault = lambda *request: s3_server.REFUSE
        self.refuse(170, ["SlowDown", self.url("away"), "run again"], "train", self.job, *self.sets("away"),
                    environment={"AWS_MAX_ATTEMPTS": "2"})
        self.store.kill()
        self.refuse(170, ["s3://", "run again"], "checkpoint", "verify", self.url("away"),
                    environment={"AWS_MAX_ATTEMPTS": "2"})
        self.store.open()

    def test_another_run_that_commits_the_same_generation_is_noticed(self):
        def other_run_first(method, key, query):
            if method == "PUT" and key.endswith("/MANIFEST"):
                self.store.client().put_object(Bucket=s3_server.BUCKET, Key=key, Body=b"theirs")

        self.store.fault = other_run_first
        self.refuse(2, ["MANIFEST", "another run"], "train", self.job, *self.sets("two"))
        manifest = [key for key in self.store.keys("two/") if key.endswith("MANIFEST")]
        self.assertEqual(len(manifest), 1)
        theirs = self.store.client().get_object(Bucket=s3_server.BUCKET, Key=manifest[0])["Body"].read()
        self.assertEqual(theirs, b"theirs")

    def test_what_the_user_must_mend_is_said_before_training(self):
        train = ["train", self.job]
        self.refuse(2, ["AWS_ACCESS_KEY_ID"], *train, *self.sets("x"), environment={"AWS_ACCESS_KEY_ID": ""})
        self.refuse(2, ["there is no bucket nowhere"], *train, "--set", "checkpoint.dir=s3://nowhere/x")
        self.refuse(2, ["name of a bucket"], *train, "--set", "checkpoint.dir=s3:///x")
        self.refuse(2, ["no complete checkpoint"],
                    *train, "--resume", *self.sets("absent"))
        for command in (["generate", "--out", self.url("out")],
                        ["prepare", "--format", "csv", "--in", "log/events.csv", "--out", self.url("out")],
                        ["export", self.job, "--checkpoint", "on-disk", "--out", self.url("out")]):
            self.refuse(2, ["--out", "folder"], *command)
        self.assertEqual(self.store.keys("out"), [])


class LargeFiles(S3Test):
    USERS, ITEMS, EVENTS = 100, 3000, 5000

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.job = cls.write_job(WIDE)
        cls.expected = cls.must("train", cls.job, "--set", "checkpoint.dir=on-disk")["digest"]

    def test_are_written_and_read_in_parts(self):
        trained = self.must("train", self.job, *self.sets("parts"))
        self.assertEqual(trained["digest"], self.expected)
        parts = [seen for seen in self.store.seen if "partNumber=" in seen.query]
        self.assertGreater(len(parts), 2)
        self.assertEqual({seen.bytes for seen in parts if "partNumber=1&" in seen.query}, {PART})
        self.assertLessEqual(max(seen.bytes for seen in self.store.seen), PART)
        self.assertEqual(self.store.uploads(), [])
        self.store.reset()
        self.assertEqual(self.must("checkpoint", "verify", self.url("parts"))["errors"], [])
        reads = [seen for seen in self.store.seen if seen.method == "GET" and seen.key]
        self.assertTrue(all(seen.range for seen in reads), "each read asks for a range")
        self.assertLessEqual(max(seen.answered for seen in reads), PART)

    def test_server_killed_in_the_middle_of_a_checkpoint(self):
        killed = threading.Event()

        def kill_at_second_part(method, key, query):
            if "partNumber=2" in query and not killed.is_set():
                killed.set()
                threading.Thread(target=self.store.kill).start()
                return s3_server.DROP
            return s3_server.DROP if killed.is_set() else None

        self.store.fault = kill_at_second_part
        self.refuse(170, [self.url("half"), "run again"], "train", self.job, *self.sets("half"),
                    environment={"AWS_MAX_ATTEMPTS": "3"})
        self.assertTrue(self.store.uploads(), "an upload is left")
        self.assertFalse(any(key.endswith("MANIFEST") for key in self.store.keys("half/")))
        self.store.reset()
        self.store.open()
        self.refuse(2, ["nothing is there"], "checkpoint", "verify", self.url("half"))
        self.assertEqual(self.must("train", self.job, *self.sets("half"))["digest"], self.expected)
        self.assertEqual(self.store.uploads(), [])
        self.assertEqual(self.must("checkpoint", "verify", self.url("half"))["errors"], [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
