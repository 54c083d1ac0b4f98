#!/usr/bin/env python3
"""An HTTP proxy for tests that loses answers: every Nth INSERT is carried out, and its answer thrown away.

That is the case a deduplication token is for: the sender cannot know whether its rows are in the tables.
"""

import argparse
import http.client
import json
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "expect", "te", "trailer",
              "upgrade", "proxy-connection"}
COUNTS_PATH = "/fault-proxy/counts"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 300

    def do_GET(self):
        if urlsplit(self.path).path == COUNTS_PATH:
            return self._reply(200, [("Content-Type", "application/json")],
                               json.dumps(self.server.counts()).encode())
        try:
            body = self._body()
        except ValueError:
            # The sender gave up half-way: what it sent must not reach the backend.
            self.close_connection = True
            return
        swallow = self._is_insert(body) and self.server.is_to_be_swallowed()
        try:
            status, headers, answer = self._forward(body)
        except OSError as error:
            self.server.count("backend_failures")
            self.close_connection = True
            return self._reply(502, [], f"the backend does not answer: {error}\n".encode())
        if swallow:
            self.server.count("swallowed")
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self._reply(status, headers, answer)

    do_POST = do_GET
    do_PUT = do_GET
    do_HEAD = do_GET
    do_DELETE = do_GET

    def _is_insert(self, body: bytes) -> bool:
        query = parse_qs(urlsplit(self.path).query).get("query", [""])[0].encode()
        return (query or body[:64]).lstrip()[:6].upper() == b"INSERT"

    def _forward(self, body: bytes):
        backend = http.client.HTTPConnection(*self.server.target, timeout=self.server.deadline_seconds)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
            headers["Content-Length"] = str(len(body))
            backend.request(self.command, self.path, body, headers)
            answer = backend.getresponse()
            data = answer.read()
            return answer.status, [(k, v) for k, v in answer.getheaders() if k.lower() not in HOP_BY_HOP], data
        except http.client.HTTPException as error:
            raise OSError(repr(error)) from error
        finally:
            backend.close()

    def _reply(self, status, headers, data: bytes):
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            if len(body) < length:
                raise ValueError("cut off")
            return body
        chunks = []
        while size := int(self.rfile.readline(1024).split(b";")[0], 16):
            chunk = self.rfile.read(size)
            if len(chunk) < size:
                raise ValueError("cut off")
            self.rfile.readline(8)
            chunks.append(chunk)
        while self.rfile.readline(8192).strip():
            pass
        return b"".join(chunks)

    def log_message(self, *_):
        pass


class Proxy(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, listen, target, swallow_every: int, deadline_seconds: float):
        super().__init__(listen, Handler)
        self.target = target
        self.swallow_every = swallow_every
        self.deadline_seconds = deadline_seconds
        self._lock = threading.Lock()
        self._counts = {"inserts": 0, "swallowed": 0, "backend_failures": 0}

    def is_to_be_swallowed(self) -> bool:
        with self._lock:
            self._counts["inserts"] += 1
            return self.swallow_every > 0 and self._counts["inserts"] % self.swallow_every == 0

    def count(self, name: str):
        with self._lock:
            self._counts[name] += 1

    def counts(self) -> dict:
        with self._lock:
            return dict(self._counts)

    def get_request(self):
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     epilog=f"GET {COUNTS_PATH} on the listening port answers with what it has done.")
    parser.add_argument("listen_port", type=int, help="0 takes a free one; the port is printed")
    parser.add_argument("target_port", type=int)
    parser.add_argument("--target-host", default="127.0.0.1")
    parser.add_argument("--swallow-every", type=int, default=0, metavar="N",
                        help="throw away the answer to every Nth INSERT (default: none)")
    parser.add_argument("--deadline-seconds", type=float, default=300, help="how long the backend may take (300)")
    args = parser.parse_args()
    proxy = Proxy(("127.0.0.1", args.listen_port), (args.target_host, args.target_port), args.swallow_every,
                  args.deadline_seconds)
    print(f"listening on 127.0.0.1:{proxy.server_port}", flush=True)
    try:
        proxy.serve_forever(poll_interval=0.1)
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
