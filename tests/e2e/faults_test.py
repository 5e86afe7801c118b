#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the world does to disks and networks: a cut cable, a full disk, flipped bits, missing files."""
import os
import pathlib
import shutil
import subprocess
import time
import unittest

import harness

CAN_ISOLATE = os.geteuid() == 0 and shutil.which("ip") and shutil.which("mount")


def system(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise unittest.SkipTest(f"{' '.join(words)}: {done.stderr.strip()}")


class Faults(harness.MeanderTest):
    EVENTS = 20000

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.job = cls.write_job(harness.COUNTING)

    def assert_counts(self, name, epochs):
        for table in ("item", "category", "user"):
            expected = {key: epochs * n for key, n in self.expected_counts(table).items()}
            self.assertEqual(self.counted(name, table), expected, table)

    @unittest.skipUnless(CAN_ISOLATE, "network namespaces need root and the ip program")
    def test_partition_between_hosts_costs_no_record(self):
        hosts = [f"meander{os.getpid()}{side}" for side in "ab"]
        for host in hosts:
            system("ip", "netns", "add", host)
            self.addCleanup(subprocess.run, ["ip", "netns", "del", host], capture_output=True)
        links = [f"m{os.getpid() % 100000}{side}" for side in "ab"]
        system("ip", "link", "add", links[0], "netns", hosts[0], "type", "veth", "peer", "name",
               links[1], "netns", hosts[1])
        for i, host in enumerate(hosts):
            system("ip", "-n", host, "addr", "add", f"10.77.0.{i + 1}/24", "dev", links[i])
            system("ip", "-n", host, "link", "set", links[i], "up")
            system("ip", "-n", host, "link", "set", "lo", "up")
        name, epochs = "partition", 60
        sets = [word for s in (f"checkpoint.dir={name}", "checkpoint.every_s=1", "train.mode=asp",
                               f"train.epochs={epochs}", "cluster.workers=2", "cluster.lease_ms=1500",
                               "cluster.heartbeat_ms=100", "cluster.transport=tcp",
                               "cluster.scheduler=tcp://10.77.0.1:15555") for word in ("--set", s)]

        def role(host, *words, log):
            return self.start(*words, *sets, before=("ip", "netns", "exec", hosts[host]),
                              log=self.folder / log)

        run = role(0, "scheduler", self.job, "--json", "--listen", "tcp://10.77.0.1:15555", log="s.log")
        others = [role(0, "ps", self.job, "--index", "0", "--listen", "tcp://10.77.0.1:*", log="p.log"),
                  role(0, "worker", self.job, "--index", "0", log="w0.log"),
                  role(1, "worker", self.job, "--index", "1", log="w1.log")]
        try:
            self.wait_for_checkpoint(name)
            system("ip", "-n", hosts[1], "link", "set", links[1], "down")
            self.wait_until(lambda: "is lost" in (self.folder / "s.log").read_text(),
                            "the loss of the other host's worker")
            time.sleep(1)
            system("ip", "-n", hosts[1], "link", "set", links[1], "up")
            ended = self.end(run)
            self.assertEqual(ended.code, 0, (self.folder / "s.log").read_text())
            self.assertEqual(ended.result["rollbacks"], 0)
        finally:
            for process in [run, *others]:
                process.kill()
                process.communicate()
        self.assert_counts(name, epochs)

    @unittest.skipUnless(CAN_ISOLATE, "a small disk needs root")
    def test_full_disk_is_said_and_leaves_no_half_generation(self):
        disk = self.folder / "small"
        disk.mkdir()
        system("mount", "-t", "tmpfs", "-o", "size=12k", "tmpfs", str(disk))
        self.addCleanup(subprocess.run, ["umount", str(disk)])
        ended = self.run_meander("train", self.job, "--json", "--set", "checkpoint.dir=small/run")
        self.assertEqual(ended.code, 1, ended.err)
        self.assertIn("No space left", ended.err)
        self.assertEqual([p for p in (disk / "run").glob("gen-*") if any(p.iterdir())], [])
        # With room again the same command goes through.
        system("mount", "-o", "remount,size=16m", str(disk))
        again = self.must("train", self.job, "--set", "checkpoint.dir=small/run")
        self.assertEqual(again["samples"], self.EVENTS - 2 * self.USERS)
        self.assert_counts("small/run", 1)

    def damaged(self, name, damage):
        self.must("train", self.job, "--set", f"checkpoint.dir={name}", "--set", "checkpoint.keep=1")
        generation = max((self.folder / name).glob("gen-*"))
        rows = sorted(generation.glob("*.rows"))[0]
        damage(rows)
        verified = self.run_meander("checkpoint", "verify", name)
        self.assertEqual(verified.code, 5, verified.err)
        self.assertIn(rows.name, verified.err)
        resumed = self.run_meander("evaluate", self.job, "--set", f"checkpoint.dir={name}")
        self.assertNotEqual(resumed.code, 0)

    def test_flipped_bit_is_found_and_named(self):
        def flip(rows):
            content = bytearray(rows.read_bytes())
            content[len(content) // 2] ^= 1
            rows.write_bytes(content)
        self.damaged("flipped", flip)

    def test_torn_file_is_found_and_named(self):
        self.damaged("torn", lambda rows: os.truncate(rows, rows.stat().st_size - 7))

    def test_missing_file_is_found_and_named(self):
        self.damaged("missing", pathlib.Path.unlink)


if __name__ == "__main__":
    unittest.main(verbosity=2)
