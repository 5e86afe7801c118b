# SPDX-License-Identifier: Apache-2.0
"""A peer's process: reads requests from standard input, one JSON object a line, answers on standard output.

    bench/peers/peer.py MODULE [--threads N]

MODULE has `make(spec)`, which returns a function `measure(seconds) -> work done per second`. A request
is {"spec": {...}, "seconds": S}; what a spec made is kept for the next request with the same spec.
"""
import argparse
import importlib
import json
import os
import sys


def serve(make, requests, answers):
    made = {}
    for line in requests:
        request = json.loads(line)
        key = json.dumps(request["spec"], sort_keys=True)
        if key not in made:
            made[key] = make(request["spec"])
        print(json.dumps({"figure": made[key](request["seconds"])}), file=answers, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # before the module loads OpenMP
    os.environ["PEER_THREADS"] = str(options.threads)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    serve(importlib.import_module(options.module).make, sys.stdin, answers)


if __name__ == "__main__":
    main()
