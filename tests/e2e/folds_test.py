#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Cross-validation over folds of users, and early stop on one: by the program itself."""
import signal
import statistics
import unittest

import harness


class Folds(harness.MeanderTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.job = cls.write_job(harness.DIN)

    def test_each_fold_is_held_out_once(self):
        sets = ["--set", "checkpoint.dir=crossed"]
        result = self.must("cross-validate", self.job, "--folds", "3", *sets)
        self.assertEqual(result["folds"], 3)
        aucs = [one["auc"] for one in result["each"]]
        self.assertEqual(len(set(aucs)), 3)
        self.assertAlmostEqual(result["auc_mean"], statistics.mean(aucs), places=9)
        self.assertAlmostEqual(result["auc_sd"], statistics.stdev(aucs), places=9)
        for fold, one in enumerate(result["each"]):
            alone = self.must("train", self.job, "--set", "data.folds=3", "--set",
                              f"data.fold={fold}", "--set", f"checkpoint.dir=alone{fold}")
            self.assertEqual(alone["auc"], one["auc"])
            self.assertTrue((self.folder / one["checkpoint"] / "MANIFEST").exists())
        # Again, all is there; a checkpoint of other folds is refused.
        self.assertEqual(self.must("cross-validate", self.job, "--folds", "3", *sets), result)
        other = self.run_meander("cross-validate", self.job, "--folds", "4", *sets)
        self.assertEqual(other.code, 2)
        self.assertIn("data.folds", other.err)
        self.must("cross-validate", self.job, "--folds", "4", "--fresh", *sets)

    def test_one_fold_is_no_validation(self):
        self.assertEqual(self.run_meander("cross-validate", self.job, "--folds", "1").code, 2)

    def test_interrupted_early_stop_goes_on_to_the_same_end(self):
        def sets(name):
            return ["--set", "data.folds=4", "--set", "train.epochs=6", "--set",
                    "train.early_stop.patience=6", "--set", f"checkpoint.dir={name}"]

        whole = self.must("train", self.job, *sets("whole"))
        process = self.start("train", self.job, *sets("halves"))
        self.wait_until(lambda: (self.folder / "halves" / "early_stop.json").exists(), "an epoch")
        process.send_signal(signal.SIGINT)
        self.assertIn(self.end(process).code, (0, 130))
        halves = self.must("train", self.job, *sets("halves"))
        for key in ("epochs", "best_epoch", "epoch_metrics", "digest"):
            self.assertEqual(halves[key], whole[key], key)
        # What is evaluated is the best epoch.
        evaluated = self.must("evaluate", self.job, *sets("whole"))
        self.assertEqual(evaluated["auc"], whole["best_metric"])

    def test_early_stop_is_of_one_process(self):
        ended = self.run_meander("launch", self.job, "--ps", "1", "--workers", "1", "--set",
                                 "train.early_stop.patience=1", "--set", "checkpoint.dir=launched")
        self.assertEqual(ended.code, 2)
        self.assertIn("train.early_stop", ended.err)


if __name__ == "__main__":
    unittest.main()
