#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Starts the pods of k8s/base as processes of this machine and lets them train: each with the
arguments and variables of its manifest, its pod's host name, and the cluster's DNS names (a hosts file
of its own over addresses of the loopback range). What is tried is that the roles find each other.

    MEANDER_PROGRAM=build/release/meander tests/e2e/kubernetes_names.py

Exit 77: skipped, for this machine does not let us make mount and host name namespaces.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
BASE = ROOT / "k8s" / "base"
PROGRAM = os.environ.get("MEANDER_PROGRAM", str(ROOT / "build" / "release" / "meander"))
DEADLINE_S = 180
SKIPPED = 77

# In its own namespaces: the hosts file $1, the host name $2, then the rest is the command.
ENTER = 'mount --bind "$1" /etc/hosts && echo "$2" >/proc/sys/kernel/hostname && shift 2 && exec "$@"'


def unshare_command():
    """How to start a process in namespaces of its own, or None."""
    for extra in ([], ["--user", "--map-root-user"]):
        command = ["unshare"] + extra + ["--mount", "--uts", "sh", "-c", ENTER, "sh"]
        try:
            if subprocess.run(command + ["/etc/hosts", "probe", "true"], capture_output=True).returncode == 0:
                return command
        except FileNotFoundError:
            return None
    return None


def manifest(name, kind):
    return next(o for o in yaml.safe_load_all((BASE / name).read_text()) if o["kind"] == kind)["spec"]


class Cluster:
    def __init__(self, folder, enter):
        self.folder = folder
        self.enter = enter
        # Addresses that no other test of this machine is likely to use.
        self.network = f"127.{77 + os.getpid() % 100}.{os.getpid() // 100 % 256}."
        self.hosts = folder / "hosts"
        self.processes = {}

    def prepare(self):
        log = self.folder / "log"
        run = lambda *args: subprocess.run([PROGRAM, *map(str, args)], check=True, capture_output=True)
        run("generate", "--out", log, "--users", 300, "--items", 200, "--events", 6000, "--seed", 1)
        run("prepare", "--format", "csv", "--schema", log / "schema.yaml", "--in", log / "events.csv",
            "--out", self.folder / "data" / "prepared")
        text = (BASE / "job.yaml").read_text()
        text = text.replace("/data/", f"{self.folder}/data/").replace("/checkpoints/", f"{self.folder}/checkpoints/")
        (self.folder / "job.yaml").write_text(text.replace("threads: 2", "threads: 1"))

    def name_hosts(self, ps):
        lines = ["127.0.0.1 localhost", f"{self.network}1 meander-scheduler"]
        lines += [f"{self.address(i)} meander-ps-{i}.meander-ps" for i in range(ps)]
        self.hosts.write_text("\n".join(lines) + "\n")

    def address(self, ps):
        return f"{self.network}{10 + ps}"

    def start(self, pod, container, address, extra_env):
        """The container of pod `pod`; its wildcard address becomes the pod's own."""
        env = {**os.environ, **extra_env, "POD_NAME": pod}
        env.update({e["name"]: e["value"] for e in container.get("env", []) if "value" in e})
        args = []
        for arg in container["args"]:
            arg = arg.replace("$(POD_NAME)", pod).replace("0.0.0.0", address)
            args.append(str(self.folder / "job.yaml") if arg == "/etc/meander/job.yaml" else arg)
        out = open(self.folder / f"{pod}.log", "w")
        self.processes[pod] = subprocess.Popen(
            self.enter + [str(self.hosts), pod, PROGRAM] + args,
            env=env, stdout=out, stderr=subprocess.STDOUT, cwd=self.folder)

    def start_all(self):
        ps = manifest("ps.yaml", "StatefulSet")
        workers = manifest("worker.yaml", "Job")
        scheduler = manifest("scheduler.yaml", "Job")
        container = lambda spec: spec["template"]["spec"]["containers"][0]
        self.name_hosts(ps["replicas"])
        # Workers and lanes first: they must wait for what is not there yet.
        for i in range(workers["completions"]):
            self.start(f"meander-worker-{i}-x7k2p", container(workers), "", {"JOB_COMPLETION_INDEX": str(i)})
        for i in range(ps["replicas"]):
            self.start(f"meander-ps-{i}", container(ps), self.address(i), {})
        time.sleep(1)
        self.start("meander-scheduler-q9d4z", container(scheduler), f"{self.network}1", {})

    def wait(self):
        deadline = time.monotonic() + DEADLINE_S
        codes = {}
        for pod, process in self.processes.items():
            try:
                codes[pod] = process.wait(max(1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                codes[pod] = f"still running after {DEADLINE_S} s"
        return codes

    def log(self, pod):
        return (self.folder / f"{pod}.log").read_text()


def main():
    enter = unshare_command()
    if enter is None:
        print("skipped: unshare --mount --uts is not allowed here")
        return SKIPPED
    with tempfile.TemporaryDirectory(prefix="meander-k8s-") as folder:
        cluster = Cluster(pathlib.Path(folder), enter)
        cluster.prepare()
        cluster.start_all()
        codes = cluster.wait()
        failed = {pod: code for pod, code in codes.items() if code != 0}
        for pod in failed:
            print(f"--- {pod}: exit {failed[pod]}\n{cluster.log(pod)[-3000:]}", file=sys.stderr)
        if failed:
            return 1
        result = json.loads(cluster.log("meander-scheduler-q9d4z").strip().splitlines()[-1])
        print(f"{len(codes)} pods found each other by name and trained {result['samples']} samples, "
              f"digest {result['digest']}")
        return 0 if result["samples"] > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
