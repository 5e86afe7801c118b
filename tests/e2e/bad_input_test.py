#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bad input ends with one clear line and exit code 2, and leaves nothing half-written."""
import os
import socket
import unittest

import harness


class BadInput(harness.MeanderTest):
    EVENTS = 2000

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.job = cls.write_job(harness.DIN)

    def refuse(self, arguments, *parts, code=2, gone=None):
        """The command ends with `code` and one line that has all `parts`; `gone` is not there."""
        ended = self.run_meander(*arguments)
        lines = [line for line in ended.err.splitlines() if line.startswith("meander: ")]
        self.assertEqual(ended.code, code, ended.err)
        self.assertEqual(len(lines), 1, ended.err)
        for part in parts:
            self.assertIn(part, lines[0])
        if gone is not None:
            left = [p.name for p in self.folder.iterdir() if p.name.startswith(gone)]
            self.assertEqual(left, [], "left behind")

    def write(self, name, text):
        data = text if isinstance(text, bytes) else text.encode()
        (self.folder / name).write_bytes(data)
        return name

    def prepare(self, file, out, schema="log/schema.yaml"):
        return ["prepare", "--format", "csv", "--schema", schema, "--in", file, "--out", out]

    def test_unknown_key_in_the_job_file(self):
        text = (self.folder / self.job).read_text().replace("batch:", "bach:")
        job = self.write("misspelt.yaml", text)
        line = text.splitlines().index("  bach: 32") + 1
        self.refuse(["train", job, "--set", "checkpoint.dir=never"],
                    f"misspelt.yaml:{line}:3: train.bach: unknown field",
                    "did you mean 'batch'?", gone="never")

    def test_ill_typed_values_and_unknown_words(self):
        self.refuse(["train", self.job, "--set", "train.batch=many"], "--set: train.batch",
                    "whole number")
        self.refuse(["train", self.job, "--set", "train.mode=bps"], "bsp, ssp, asp")
        self.refuse(["train", self.job, "--set", "model.kind=dein"], "model.kind", "dien")
        self.refuse(["train", self.job, "--set", "model.slots=[itme]"], "model.slots", "item")

    def test_mistyped_commands_and_options(self):
        self.refuse(["trian", self.job], "unknown command 'trian'", "did you mean 'train'?")
        self.refuse(["train", self.job, "--resmue"], "--resmue", "did you mean '--resume'?")
        self.refuse(["checkpoint", "verfiy", "x"], "did you mean 'verify'?")
        self.refuse(["train"], "JOB")

    def test_missing_files(self):
        self.refuse(["train", "nowhere.yaml"], "nowhere.yaml")
        self.refuse(["train", self.job, "--set", "data.path=nowhere"], "data.path", "nowhere",
                    "meander prepare")
        self.refuse(self.prepare("nowhere.csv", "out-missing"), "nowhere.csv", gone="out-missing")
        self.refuse(["train", self.job, "--resume", "--set", "checkpoint.dir=none"], "none")
        self.refuse(["checkpoint", "verify", "nowhere"], "nowhere")
        self.refuse(["evaluate", self.job, "--checkpoint", "nowhere"], "nowhere")

    def test_truncated_files(self):
        log = (self.folder / "log" / "events.csv").read_bytes()
        zstd = self.write("whole.csv", log)
        if os.system(f"zstd -qf {self.folder / zstd}") == 0:
            packed = (self.folder / "whole.csv.zst").read_bytes()
            self.write("torn.csv.zst", packed[: len(packed) // 2])
            ended = self.run_meander(*self.prepare("torn.csv.zst", "out-torn"))
            self.assertIn(ended.code, (2, 5), ended.err)
            self.assertIn("torn.csv.zst", ended.err)
            self.assertFalse((self.folder / "out-torn").exists())

    def test_truncated_prepared_log_is_named(self):
        self.must(*self.prepare("log/events.csv", "torn-log"))
        files = sorted((self.folder / "torn-log").rglob("*"), key=lambda p: p.stat().st_size)
        victim = [f for f in files if f.is_file()][-1]
        victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
        ended = self.run_meander("train", self.job, "--set", "data.path=torn-log")
        self.assertIn(ended.code, (2, 5), ended.err)
        self.assertIn(victim.name, ended.err)

    def test_truncated_checkpoint(self):
        self.must("train", self.job, "--set", "checkpoint.dir=torn-checkpoint")
        rows = max((self.folder / "torn-checkpoint").rglob("*"),
                   key=lambda p: p.stat().st_size if p.is_file() else 0)
        rows.write_bytes(rows.read_bytes()[:-40])
        self.refuse(["checkpoint", "verify", "torn-checkpoint"], rows.name, code=5)
        self.refuse(["evaluate", self.job, "--checkpoint", "torn-checkpoint"], rows.name, code=5)

    def test_wrong_column_count_and_non_numeric_ids(self):
        head = "time_ms,user,item,category\n"
        self.write("columns.csv", head + "1,2,3\n" * 20)
        self.refuse(self.prepare("columns.csv", "out-columns"), "columns.csv:2", gone="out-columns")
        self.write("words.csv", head + "".join(f"{i},someone,3,1\n" for i in range(20)))
        self.refuse(self.prepare("words.csv", "out-words"), "words.csv:2", "someone",
                    gone="out-words")

    def test_empty_log(self):
        self.write("empty.csv", "time_ms,user,item,category\n")
        self.refuse(self.prepare("empty.csv", "out-empty"), gone="out-empty")
        self.write("nothing.csv", "")
        self.refuse(self.prepare("nothing.csv", "out-nothing"), gone="out-nothing")

    def test_bad_schema(self):
        self.write("schema.yaml", "columns:\n  - {name: user, role: usr}\n")
        self.refuse(self.prepare("log/events.csv", "out-schema", "schema.yaml"), "schema.yaml:2",
                    "usr", gone="out-schema")

    def test_checkpoint_of_another_model(self):
        self.must("train", self.job, "--set", "checkpoint.dir=mine")
        before = sorted(p.name for p in (self.folder / "mine").iterdir())
        self.refuse(["train", self.job, "--set", "checkpoint.dir=mine", "--set", "model.kind=dnn"],
                    "another model", "mine")
        self.refuse(["train", self.job, "--set", "checkpoint.dir=mine", "--set", "train.batch=64"],
                    "train.batch", "--fresh")
        self.refuse(["evaluate", self.job, "--checkpoint", "mine", "--set", "model.embedding=9"],
                    "another model")
        self.assertEqual(sorted(p.name for p in (self.folder / "mine").iterdir()), before)

    def test_unwritable_directory(self):
        self.write("a-file", "in the way")
        self.refuse(["train", self.job, "--set", "checkpoint.dir=a-file/checkpoints"], "a-file",
                    "checkpoint.dir")
        self.refuse(self.prepare("log/events.csv", "a-file/prepared"), "a-file")
        self.refuse(["train", self.job, "--set", "checkpoint.dir=/proc/meander"], "/proc/meander")

    def test_port_in_use(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            self.refuse(["scheduler", self.job, "--listen", f"tcp://127.0.0.1:{port}"], str(port),
                        "in use")

    def test_roles_that_do_not_know_who_they_are(self):
        self.refuse(["worker", self.job, "--index", "0"], "--scheduler")
        self.refuse(["worker", self.job, "--index", "5", "--scheduler", "tcp://127.0.0.1:9"], "--index")


if __name__ == "__main__":
    unittest.main(verbosity=2)
