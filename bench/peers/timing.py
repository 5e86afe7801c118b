# SPDX-License-Identifier: Apache-2.0
"""The loop that times a peer."""
import time


def measure_of(one, warm_up):
    """measure(seconds) -> work a second, of one() again and again, which says how much work it was."""
    for _ in range(warm_up):
        one()

    def measure(seconds):
        done, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds:
            done += one()
        return done / spent

    return measure
