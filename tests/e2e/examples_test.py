#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Each job in examples/ is short, and trains on the data that it names."""
import os
import pathlib
import unittest

import harness

DATA = pathlib.Path(os.environ.get("MEANDER_DATA", harness.ROOT.parent / "shared" / "data"))
# What another command makes first, which the job's comment tells; without it: one line that says so.
NEEDS = {"globo-content": "content/globo/vectors.npy", "ml1m-content": "content/ml1m/vectors.npy",
         "globo-next-day": "checkpoints/globo-din"}


@unittest.skipUnless(DATA.is_dir(), f"no data in {DATA}: set MEANDER_DATA")
class Examples(harness.MeanderTest):
    def test_trains(self):
        for job in sorted((harness.ROOT / "examples").glob("*.yaml")):
            with self.subTest(job.stem):
                self.assertLess(len(job.read_text().splitlines()), 40)
                ended = self.run_meander(
                    "train", str(job), "--json", "-q", "--set", "train.samples_max=512", "--set",
                    "train.epochs=1", "--set", "data.test.part=none", "--set",
                    f"checkpoint.dir=of-{job.stem}", environment={"MEANDER_DATA": str(DATA)})
                if job.stem in NEEDS:
                    self.assertEqual(ended.code, 2, ended.err)
                    self.assertIn(NEEDS[job.stem], ended.err)
                    self.assertEqual(ended.err.count("\n"), 1, ended.err)
                    continue
                self.assertEqual(ended.code, 0, ended.err)
                self.assertGreater(ended.result["samples"], 0, ended.out)


if __name__ == "__main__":
    unittest.main()
