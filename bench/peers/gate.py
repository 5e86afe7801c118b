# SPDX-License-Identifier: Apache-2.0
"""Holds a shared machine while a round measures, by a command that does so for the time its child lives."""
import contextlib
import shlex
import subprocess
import sys

HELP = "a command in front of each round (say 'flock FILE') that holds the machine while its child lives"


@contextlib.contextmanager
def gate(command):
    """Without a command: nothing. A holder that ended early is told: what was measured may be disturbed."""
    if not command:
        yield
        return
    holder = subprocess.Popen(shlex.split(command) + ["sh", "-c", "echo held; read _"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True)
    if holder.stdout.readline() != "held\n":
        sys.exit(f"--gate {command}: exit {holder.wait()}")
    try:
        yield
    finally:
        if holder.poll() is not None:
            print(f"--gate {command} ended before the round did: keep rounds shorter", file=sys.stderr)
        holder.stdin.close()
        holder.wait()
