# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests share: the program, a folder of their own, a small generated log."""
import collections
import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ.get("MEANDER_PROGRAM", str(ROOT / "build" / "release" / "meander"))
DEADLINE_S = 120

JOB = """
name: {name}
data:
  path: prepared
  history: 20
  order: {order}
  negatives: {{kind: {negatives}, exclude: user}}
model: {model}
train:
  batch: {batch}
  optimizer: {optimizer}
checkpoint: {{dir: {name}}}
"""
DIN = {"name": "din", "order": "shuffle", "negatives": "popular", "batch": 32,
       "model": "{kind: din, embedding: 8, attention: [16, 8], head: [16, 8]}",
       "optimizer": "{kind: adam, rate: 0.001}"}
COUNTING = {"name": "counting", "order": "time", "negatives": "none", "batch": 16,
            "model": "{kind: counting, embedding: 1, initial_rows: zero, slots: [item, category, user]}",
            "optimizer": "{kind: sgd, rate: 1}"}


class Ended:
    """How a command ended: exit code, standard output and error."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def result(self):
        return json.loads(self.out.strip().splitlines()[-1])


class MeanderTest(unittest.TestCase):
    """Each test case class gets a folder with a prepared log; paths are relative to it."""

    USERS, ITEMS, EVENTS = 150, 200, 6000

    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="meander-e2e-"))
        cls.environment = {k: v for k, v in os.environ.items() if not k.startswith("MEANDER_")}
        cls.must("generate", "--out", "log", "--users", str(cls.USERS), "--items", str(cls.ITEMS),
                 "--events", str(cls.EVENTS), "--seed", "7")
        cls.must("prepare", "--format", "csv", "--schema", "log/schema.yaml", "--in",
                 "log/events.csv", "--out", "prepared")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder, ignore_errors=True)

    @classmethod
    def start(cls, *arguments, before=(), environment=None, log=None):
        """`log`: a file that takes standard error, which is then not in the result."""
        with open(log or os.devnull, "a") as file:
            return subprocess.Popen([*before, PROGRAM, *arguments], cwd=cls.folder, text=True,
                                    env={**cls.environment, **(environment or {})},
                                    stdout=subprocess.PIPE,
                                    stderr=file if log else subprocess.PIPE)

    @staticmethod
    def end(process):
        try:
            out, err = process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"no end within {DEADLINE_S} s: {process.args}\n{out}\n{err}")
        return Ended(process.returncode, out, err)

    @classmethod
    def run_meander(cls, *arguments, **how):
        return cls.end(cls.start(*arguments, **how))

    @classmethod
    def must(cls, *arguments, **how):
        ended = cls.run_meander(*arguments, "--json", **how)
        assert ended.code == 0, f"{arguments}: exit {ended.code}\n{ended.out}\n{ended.err}"
        return ended.result

    @classmethod
    def write_job(cls, job, file="job.yaml"):
        (cls.folder / file).write_text(JOB.format(**job))
        return file

    def wait_until(self, holds, what):
        deadline = time.monotonic() + DEADLINE_S
        while not holds():
            self.assertLess(time.monotonic(), deadline, f"in vain: {what}")
            time.sleep(0.005)

    def wait_for_checkpoint(self, name):
        """Until the run that writes to `name` has a complete checkpoint: it is under way."""
        self.wait_until(lambda: any((self.folder / name).glob("gen-*/MANIFEST")), "a checkpoint")

    def children(self, process, role):
        """Process ids of the children of `process` that play `role`."""
        found = []
        for task in pathlib.Path(f"/proc/{process.pid}/task").glob("*/children"):
            for pid in task.read_text().split():
                try:
                    words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                except FileNotFoundError:
                    continue
                if len(words) > 1 and words[1] == role.encode():
                    found.append(int(pid))
        return found

    def expected_counts(self, column):
        """How often each key is a training target: all events of a user but the first and last."""
        events = collections.defaultdict(list)
        with open(self.folder / "log" / "events.csv") as lines:
            for event in csv.DictReader(lines):
                events[event["user"]].append(int(event[column]))
        counts = collections.Counter()
        for keys in events.values():
            counts.update(keys[1:-1])
        return dict(counts)

    def counted(self, name, table):
        ended = self.run_meander("checkpoint", "rows", name, "--table", table)
        self.assertEqual(ended.code, 0, ended.err)
        rows = [line.split("\t") for line in ended.out.splitlines()]
        return {int(row[0]): float(row[2]) for row in rows}

    def assert_counts_exact(self, name):
        for table in ("item", "category", "user"):
            self.assertEqual(self.counted(name, table), self.expected_counts(table), table)


def under_mpi(ranks):
    """Words in front of a command that start it as so many ranks; None without mpirun."""
    if shutil.which("mpirun") is None:
        return None
    return ["mpirun", "--oversubscribe", "-np", str(ranks)]


MPI_AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
KILL, INTERRUPT, TERMINATE = signal.SIGKILL, signal.SIGINT, signal.SIGTERM
