#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Several trained models scored together: each as it is alone, their mean, a regression on them; and
what is refused."""
import unittest

import harness


class Ensembles(harness.MeanderTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.job = cls.write_job(harness.DIN)
        dnn = {**harness.DIN, "model": "{kind: dnn, embedding: 6, head: [12], slots: [item]}", "batch": 16}
        cls.other = cls.write_job(dnn, "other.yaml")
        cls.alone = [cls.must("train", cls.job, "--set", f"checkpoint.dir=seed{seed}", "--set",
                              f"train.seed={seed}") for seed in (1, 2)]
        cls.alone.append(cls.must("train", cls.other, "--set", "checkpoint.dir=dnn", "--set",
                                  "data.history=10"))

    def evaluate(self, *members, job=None, more=()):
        return self.must("evaluate", job or self.job, "--ensemble", *members, *more)

    def test_members_of_other_models_score_the_same_targets(self):
        result = self.evaluate("seed1", "seed2", "dnn")
        self.assertEqual([m["model"] for m in result["members"]], ["din", "din", "dnn"])
        self.assertEqual(result["samples"] + result["mean"]["fit"]["samples"], 2 * self.USERS)
        for scorer in (*result["members"], result["mean"], result["stacked"]):
            self.assertGreater(scorer["auc"], 0.4)
        fit = {name: result[name]["fit"]["logloss"] for name in ("mean", "stacked")}
        self.assertLessEqual(fit["stacked"], fit["mean"])
        self.assertEqual([m["weight"] for m in result["members"]], result["stacked"]["weights"])

    def test_a_member_scores_as_it_does_alone(self):
        # Nearly everything is scored, so that what is left out may be put in by its own counts.
        result = self.evaluate("seed1", "seed2", more=["--fit-share", "0.3"])
        for member, alone in zip(result["members"], self.alone):
            parts = (member, member["fit"])
            count = sum(part["samples"] for part in parts)
            for key in ("logloss", "gauc", "accuracy"):
                whole = sum(part[key] * part["samples"] for part in parts) / count
                self.assertAlmostEqual(whole, alone[key], places=6, msg=key)

    def test_one_model_twice_is_itself(self):
        result = self.evaluate("seed1", "seed1")
        self.assertEqual(result["members"][0]["auc"], result["mean"]["auc"])
        self.assertAlmostEqual(result["stacked"]["weights"][0], result["stacked"]["weights"][1], places=5)

    def test_any_number_of_threads(self):
        first = self.evaluate("seed1", "dnn", more=["--set", "cluster.threads=1"])
        self.assertEqual(self.evaluate("seed1", "dnn", more=["--set", "cluster.threads=3"]), first)

    def test_text_for_people(self):
        ended = self.run_meander("evaluate", self.job, "--ensemble", "seed1", "seed2")
        self.assertEqual(ended.code, 0, ended.err)
        for word in ("seed1", "mean", "stacked", "weights", "bias"):
            self.assertIn(word, ended.out)

    def test_refusals(self):
        for arguments, words in (
                (["--ensemble", "seed1"], "two members"),
                (["--ensemble", "seed1", "nowhere"], "nowhere"),
                (["--ensemble", "seed1", "seed2", "--fit-share", "1"], "fit-share"),
                (["--ensemble", "seed1", "seed2", "--checkpoint", "seed1"], "not both")):
            ended = self.run_meander("evaluate", self.job, *arguments)
            self.assertEqual(ended.code, 2, (arguments, ended.err))
            self.assertIn(words, ended.err)


if __name__ == "__main__":
    unittest.main(verbosity=2)
