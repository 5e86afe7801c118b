#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every model trains with two workers on two lanes in each mode; under BSP its checkpoint is the same on
one lane and when the run was stopped and went on; and what it learnt is exported."""
import unittest

import harness

CLICKS = "{kind: popular, exclude: user}"
KNOWN = "{kind: uniform, exclude: known}"
NONE = "{kind: none}"
SMALL = "embedding: 8, hidden: 8, attention: [16, 8], head: [16, 8]"
# Name: model, negatives, more of `data`.
MODELS = {
    "dnn": ("{kind: dnn, %s}" % SMALL, CLICKS, ""),
    "lstm": ("{kind: lstm, %s}" % SMALL, CLICKS, ""),
    "caser": ("{kind: caser, %s}" % SMALL, CLICKS, ""),
    "din": ("{kind: din, %s}" % SMALL, CLICKS, ""),
    "dien": ("{kind: dien, %s}" % SMALL, CLICKS, ""),
    "dien-aigru": ("{kind: dien, evolution: aigru, %s}" % SMALL, CLICKS, ""),
    "dien-agru": ("{kind: dien, evolution: agru, %s}" % SMALL, CLICKS, ""),
    "din-two-tasks": ("{kind: din, second_weight: 0.5, %s}" % SMALL, CLICKS, ""),
    "lstm-two-tasks": ("{kind: lstm, second_weight: 1, click_weight: 0.5, activation: relu, %s}" % SMALL,
                       CLICKS, ""),
    "bst": ("{kind: bst, embedding: 8, dropout: 0.1, head: [16, 8]}", CLICKS, ""),
    "decay": ("{kind: decay, decay: category, %s}" % SMALL, CLICKS, ""),
    "mf": ("{kind: mf, embedding: 8, slots: [item, user]}", KNOWN, ""),
    "sasrec-bce": ("{kind: sasrec, embedding: 8, slots: [item], loss: bce, dropout: 0.2}", KNOWN, "order: users"),
    "sasrec-softmax": ("{kind: sasrec, embedding: 8, slots: [item], loss: softmax}", NONE, "order: users"),
    "gru-softmax": ("{kind: next, embedding: 8, hidden: 8, slots: [item], dropout: 0.2}", NONE, "order: users"),
    "lstm-sampled": ("{kind: next, cell: lstm, embedding: 8, hidden: 8, slots: [item], loss: sampled}",
                     "{kind: none, shared: 50}", "order: users"),
    "lightgcn": ("{kind: lightgcn, slots: [item, user], embedding: 8, layers: 2}", KNOWN, "order: users"),
    "graphsage": ("{kind: graphsage, slots: [item, user], embedding: 8, hidden: 8, fanout: [5, 3], head: [16, 8]}",
                  KNOWN, "order: users"),
}
NOT_EXPORTED = ("graphsage",)
WITHOUT_HISTORY = ("mf", "lightgcn", "graphsage")
JOB = """
name: {name}
data: {{path: prepared, history: {history}, negatives: {negatives}, {more}}}
model: {model}
train: {{batch: 32, epochs: 2, optimizer: {{kind: adam, rate: 0.003}}}}
checkpoint: {{dir: {name}}}
"""


class Models(harness.MeanderTest):
    USERS, ITEMS, EVENTS = 80, 100, 2500

    @classmethod
    def setUpClass(cls):
        super().setUpClass()  # with a second label, for the models that learn one
        result = cls.must("prepare", "--format", "csv", "--schema", "log/schema.yaml", "--in", "log/events.csv",
                          "--out", "prepared", "--stay", "3600")
        assert 0 < result["second_labels_positive"] < result["second_labels"], result

    def train(self, job, name, lanes, *words):
        return self.must("train", job, "--set", f"checkpoint.dir={name}", "--set", "cluster.workers=2", "--set",
                         f"cluster.lanes={lanes}", *words)

    def check(self, name, job):
        whole = self.train(job, f"{name}-bsp", 2)
        self.assertEqual(self.train(job, f"{name}-one", 1)["digest"], whole["digest"])
        if "second_weight" in MODELS[name][0]:
            self.assertGreater(whole["progressive_second_auc"], 0.3)
        for mode in ("ssp", "asp"):
            result = self.train(job, f"{name}-{mode}", 2, "--set", f"train.mode={mode}")
            self.assertEqual(result["samples"], whole["samples"])
            self.assertLess(abs(result["loss"] - whole["loss"]), 0.2 * whole["loss"], mode)
        stopped = f"{name}-stopped"
        run = self.start("train", job, "--json", "--set", f"checkpoint.dir={stopped}", "--set",
                         "cluster.workers=2", "--set", "cluster.lanes=2", "--set", "checkpoint.every_s=0.02")
        self.wait_until(lambda: any((self.folder / stopped).glob("gen-*/MANIFEST")) or run.poll() is not None,
                        "a checkpoint")
        run.send_signal(harness.INTERRUPT)
        self.assertIn(self.end(run).code, (0, 130))
        self.assertEqual(self.train(job, stopped, 2)["digest"], whole["digest"])
        if name in NOT_EXPORTED:
            return
        self.must("export", job, "--checkpoint", f"{name}-bsp", "--out", f"{name}-export")
        self.assertTrue((self.folder / f"{name}-export").is_dir())

    def test_trains_resumes_and_exports(self):
        for name, (model, negatives, more) in MODELS.items():
            with self.subTest(name):
                file = f"{name}.yaml"
                history = 0 if name in WITHOUT_HISTORY else 20
                (self.folder / file).write_text(
                    JOB.format(name=name, model=model, negatives=negatives, more=more, history=history))
                self.check(name, file)


if __name__ == "__main__":
    unittest.main()
