# SPDX-License-Identifier: Apache-2.0
"""A local S3 server for the end-to-end tests: moto's, behind a proxy that looks at every request and can
make trouble. Needs moto[s3], flask and flask-cors (tests/requirements.txt)."""
import collections
import hashlib
import http.client
import http.server
import os
import socket
import threading
import time
import urllib.parse

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

os.environ.update(AWS_ACCESS_KEY_ID="tester", AWS_SECRET_ACCESS_KEY="a/secret+key", AWS_REGION="eu-west-3",
                  AWS_DEFAULT_REGION="eu-west-3", AWS_SESSION_TOKEN="", no_proxy="127.0.0.1")
BUCKET = "checkpoints"

# What the proxy does with a request instead of passing it on (or, LOSE: with the answer).
REFUSE, DROP, LOSE, DELAY = "503", "drop", "lose the answer", "delay"

Seen = collections.namedtuple("Seen", "method key query range bytes answered status")


class SigV4(S3SigV4Auth):
    """botocore's own signature of a request, to compare with."""

    def payload(self, request):
        return request.headers["x-amz-content-sha256"]


def signature_is_right(method, url, headers, body):
    given = headers.get("authorization", "")
    if "SignedHeaders=" not in given or headers.get("x-amz-content-sha256") != hashlib.sha256(body).hexdigest():
        return False
    names = given.split("SignedHeaders=")[1].split(",")[0].split(";")
    request = AWSRequest(method, url, {name: headers[name] for name in names}, body)
    request.context["timestamp"] = headers["x-amz-date"]
    signer = SigV4(Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]), "s3",
                   os.environ["AWS_REGION"])
    to_sign = signer.string_to_sign(request, signer.canonical_request(request))
    return given.endswith("Signature=" + signer.signature(to_sign, request))


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self):
        store = self.server.store
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        path, _, query = self.path.partition("?")
        key = urllib.parse.unquote(path).lstrip("/").partition("/")[2]
        if not signature_is_right(self.command, f"http://{headers['host']}{self.path}", headers, body):
            store.unsigned.append(f"{self.command} {self.path}")
        with store.lock:
            store.in_flight += 1
            store.in_flight_max = max(store.in_flight_max, store.in_flight)
        try:
            fault = store.fault(self.command, key, query)
            if fault == DELAY:
                time.sleep(store.delay_s)
            if fault == DROP:
                return self.drop()
            if fault == REFUSE:
                return self.answer(503, {}, b"<Error><Code>SlowDown</Code><Message>slower</Message></Error>")
            status, answer_headers, answer = store.forward(self.command, self.path, headers, body)
            store.seen.append(Seen(self.command, key, query, headers.get("range"), len(body), len(answer), status))
            if fault == LOSE:
                return self.drop()
            self.answer(status, answer_headers, answer)
        finally:
            with store.lock:
                store.in_flight -= 1

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def drop(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_any

    def log_message(self, *words):
        pass


class Proxy(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, address):
        pass  # a client that has gone, or that we have dropped


class Store:
    """The server. `fault(method, key, query)` says what to do to a request: None, or one of the above."""

    def __init__(self):
        from moto.server import ThreadedMotoServer
        import logging
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.moto.start()
        self.backend = self.moto.get_host_and_port()
        self.lock = threading.Lock()
        self.proxy, self.port = None, 0
        self.delay_s = 0
        self.reset()
        self.open()
        self.forward("PUT", f"/{BUCKET}", {"authorization": "AWS4-HMAC-SHA256 Credential=x/20200101/eu-west-3/s3/"
                     "aws4_request, SignedHeaders=host, Signature=0"},
                     b"<CreateBucketConfiguration><LocationConstraint>eu-west-3</LocationConstraint>"
                     b"</CreateBucketConfiguration>")

    def reset(self):
        self.fault = lambda method, key, query: None
        self.seen, self.unsigned = [], []
        self.in_flight = self.in_flight_max = 0

    @property
    def environment(self):
        names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "no_proxy")
        return {**{name: os.environ[name] for name in names}, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}"}

    def open(self):
        """Listens (again, on the same port)."""
        self.proxy = Proxy(("127.0.0.1", self.port), Handler)
        self.proxy.store = self
        self.port = self.proxy.server_address[1]
        threading.Thread(target=self.proxy.serve_forever, args=(0.02,), daemon=True).start()

    def kill(self):
        """As if the server's process died: nobody listens. What it has stored is still there after open()."""
        self.fault = lambda method, key, query: DROP
        self.proxy.shutdown()
        self.proxy.server_close()

    def stop(self):
        self.kill()
        self.moto.stop()

    def forward(self, method, path, headers, body):
        connection = http.client.HTTPConnection(*self.backend, timeout=60)
        try:
            connection.request(method, path, body, {**headers, "connection": "close"})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def client(self):
        import boto3
        return boto3.client("s3", endpoint_url="http://%s:%d" % self.backend)

    def keys(self, prefix):
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def uploads(self):
        return self.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
