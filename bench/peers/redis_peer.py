# SPDX-License-Identifier: Apache-2.0
"""Redis as a store of rows: MGET and MSET of 1000 rows, four requests in flight, over loopback TCP.

The server is started here, on a port the system chose, and ends with this process; redis_load (C++,
hiredis) is the client. Redis applies no optimizer: what is set is the row that the client made.
"""
import atexit
import os
import socket
import subprocess
import tempfile
import time

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../build/peers/redis")
ENVIRONMENT = dict(os.environ, LD_LIBRARY_PATH=os.path.join(HERE, "usr/lib/x86_64-linux-gnu"))
START_TIMEOUT_S, LOAD_TIMEOUT_S = 20, 120
ports = []


def server_port():
    if not ports:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        folder = tempfile.TemporaryDirectory()
        command = [os.path.join(HERE, "usr/bin/redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "",
                   "--appendonly", "no", "--dir", folder.name]
        server = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        atexit.register(lambda: (server.terminate(), server.wait(), folder.cleanup()))
        wait_for(port, server)
        ports.append(port)
    return ports[0]


def wait_for(port, server):
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
    raise SystemExit("redis-server did not start")


def make(spec):
    """spec: rows, width (floats), batch (rows of a request), work (pull, push or both)."""
    def load(work, seconds):
        command = [os.path.join(HERE, "redis_load"), str(server_port()), str(spec["rows"]), str(spec["width"]),
                   str(spec["batch"]), work, str(seconds)]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=LOAD_TIMEOUT_S)
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        return float(done.stdout or 0)

    load("fill", 0)
    return lambda seconds: load(spec["work"], seconds)
