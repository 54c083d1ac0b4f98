#!/usr/bin/env python3
"""ClickHouse's HTTP interface in front of the ClickHouse engine in this process (chdb).

For tests and development only; see README.md beside this file.
"""

import argparse
import base64
import hmac
import json
import os
import signal
import socket
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from compressed import FrameError, decompressed
from engine import Engine, EngineError, Request

# Parameters of the HTTP interface itself; every other one is a setting.
NOT_SETTINGS = {
    "query", "database", "default_format", "query_id", "user", "password", "compress", "decompress",
    "session_timeout", "session_check", "close_session", "buffer_size", "wait_end_of_query", "quota_key",
    "stacktrace", "client_protocol_version", "role",
}
# ClickHouse's own mapping (src/Server/HTTP/exceptionCodeToHTTPStatus.cpp), as far as these codes occur here.
STATUS_OF_CODE = {
    **dict.fromkeys((6, 26, 27, 33, 36, 38, 41, 42, 43, 53, 62, 69, 70, 72, 117, 130, 131, 158, 166, 321, 456, 457), 400),
    **dict.fromkeys((16, 46, 47, 50, 56, 60, 63, 73, 76, 78, 81, 107, 114, 115, 137), 404),
    159: 408, 192: 403, 193: 403, 194: 401, 497: 403, 516: 403, 223: 413, 48: 501, 209: 503, 202: 500,
}
CONTENT_TYPE_OF_FORMAT = {
    "TabSeparated": "text/tab-separated-values; charset=UTF-8", "TSV": "text/tab-separated-values; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8", "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "JSON": "application/json; charset=UTF-8", "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8", "ArrowStream": "application/vnd.apache.arrow.stream",
}


class BadRequest(Exception):
    """The request cannot be served, and the connection not be read further."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "ClickHouse-engine"
    sys_version = ""
    timeout = 300  # of a connection that says nothing, seconds

    def do_GET(self):
        self._serve()

    do_POST = do_GET
    do_PUT = do_GET
    do_HEAD = do_GET

    def _serve(self):
        self.query_id = str(uuid.uuid4())
        try:
            body = self._body()
        except BadRequest as error:
            self.close_connection = True
            return self._error(400, 1000, str(error))
        url = urlsplit(self.path)
        if url.path in ("/ping", "/replicas_status"):
            return self._answer(200, b"Ok.\n")
        if url.path != "/":
            return self._answer(404, f"There is no handle {url.path}\n".encode())
        try:
            self._query(parse_qsl(url.query, keep_blank_values=True), body)
        except EngineError as error:
            self._error(STATUS_OF_CODE.get(error.code, 500), error.code, str(error))
        except FrameError as error:
            self._error(400, 271, f"Code: 271. DB::Exception: {error}. (CANNOT_DECOMPRESS)")

    def _query(self, pairs, body: bytes):
        given = dict(pairs)
        self.query_id = given.get("query_id") or self.query_id
        self._authenticate(given)
        for name, off in (("compress", "0"), ("client_protocol_version", "0"), ("session_id", "")):
            if given.get(name, off) != off:
                raise EngineError(48, f"Code: 48. DB::Exception: `{name}` is not supported by this server for tests: "
                                      "leave the parameter out. (NOT_IMPLEMENTED)")
        text = given.get("query", "").encode()
        if self.headers.get_content_type() == "multipart/form-data":
            fields = self._form(body)
            text, body = text + fields.pop("query", "").encode(), b""
            given.update(fields)
        elif given.get("decompress") == "1" and body:
            body = decompressed(body)
        if not text and not body:
            return self._answer(200, b"Ok.\n")
        answer = self.server.engine.run(Request(
            text=text,
            body=body,
            database=given.get("database") or self.headers.get("X-ClickHouse-Database"),
            default_format=given.get("default_format") or self.headers.get("X-ClickHouse-Format") or "TabSeparated",
            settings={k: v for k, v in given.items() if k not in NOT_SETTINGS and not k.startswith("param_")
                      and k != "session_id"},
            parameters={k[len("param_"):]: v for k, v in given.items() if k.startswith("param_")},
            readonly=self.command in ("GET", "HEAD"),
        ))
        self._answer(200, answer.data, CONTENT_TYPE_OF_FORMAT.get(answer.format, "application/octet-stream"), {
            "X-ClickHouse-Format": answer.format,
            "X-ClickHouse-Summary": json.dumps(answer.summary, separators=(",", ":")),
        })

    def _authenticate(self, given):
        wanted = self.server.credentials
        if wanted is None:
            return
        user = self.headers.get("X-ClickHouse-User") or given.get("user")
        password = self.headers.get("X-ClickHouse-Key") or given.get("password")
        scheme, _, value = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                user, _, password = base64.b64decode(value).decode().partition(":")
            except ValueError:
                user = None
        offered = (user or "default", password or "")
        if not all(hmac.compare_digest(a.encode(), b.encode()) for a, b in zip(wanted, offered)):
            raise EngineError(516, f"Code: 516. DB::Exception: {offered[0]}: Authentication failed: password is "
                                   "incorrect, or there is no user with such name. (AUTHENTICATION_FAILED)")

    def _form(self, body: bytes) -> dict:
        boundary = self.headers.get_boundary()
        if not boundary:
            raise EngineError(62, "Code: 62. DB::Exception: A multipart form without a boundary. (SYNTAX_ERROR)")
        fields = {}
        for part in (b"\r\n" + body).split(b"\r\n--" + boundary.encode())[1:-1]:
            head, found, value = part.partition(b"\r\n\r\n")
            name = head.partition(b'name="')[2].partition(b'"')[0].decode()
            if not found or not (name == "query" or name.startswith("param_")):
                raise EngineError(48, f"Code: 48. DB::Exception: The form's field `{name}` is not supported by this "
                                      "server for tests. (NOT_IMPLEMENTED)")
            fields[name] = value.decode()
        return fields

    def _body(self) -> bytes:
        limit = self.server.max_body_bytes
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self._chunked(limit)
        try:
            length = int(self.headers.get("Content-Length") or 0)
        except ValueError:
            raise BadRequest("Content-Length is not a number") from None
        if length > limit:
            raise BadRequest(f"a body of {length} bytes is more than the {limit} this server for tests reads")
        body = self.rfile.read(length)
        if len(body) < length:
            raise BadRequest("the body ended before its Content-Length")
        return body

    def _chunked(self, limit: int) -> bytes:
        """An insert that was cut off must not be run: only the last, empty chunk ends a body."""
        chunks, total = [], 0
        while True:
            try:
                size = int(self.rfile.readline(1024).split(b";")[0], 16)
            except ValueError:
                raise BadRequest("a chunked body ended before its last chunk") from None
            if size == 0:
                while self.rfile.readline(8192).strip():
                    pass
                return b"".join(chunks)
            total += size
            if total > limit:
                raise BadRequest(f"a body of more than the {limit} bytes this server for tests reads")
            chunk = self.rfile.read(size)
            if len(chunk) < size or self.rfile.readline(8) not in (b"\r\n", b"\n"):
                raise BadRequest("a chunked body ended within a chunk")
            chunks.append(chunk)

    def _error(self, status: int, code: int, message: str):
        self._answer(status, message.encode() + b"\n", "text/plain; charset=UTF-8",
                     {"X-ClickHouse-Exception-Code": str(code)})

    def _answer(self, status, data, content_type="text/html; charset=UTF-8", headers=None):
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-ClickHouse-Server-Display-Name", "paystream-tests")
        self.send_header("X-ClickHouse-Query-Id", self.query_id)
        self.send_header("X-ClickHouse-Timezone", "UTC")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_request(self, code="-", size="-"):
        if self.server.verbose:
            super().log_request(code, size)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def get_request(self):
        connection, address = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def handle_error(self, request, client_address):
        error = sys.exc_info()[1]
        if not isinstance(error, (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("port", type=int, help="port to listen on; 0 takes a free one, which is printed")
    parser.add_argument("data_dir", help="folder of the data; made if it is not there")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--user", help="accept only this user (default: any)")
    parser.add_argument("--password", default="", help="the user's password")
    parser.add_argument("--max-memory-mb", type=int, default=3072, help="limit of the engine's memory (3072)")
    parser.add_argument("--max-body-mb", type=int, default=512, help="largest request body (512)")
    parser.add_argument("--max-queries", type=int, default=8, help="statements that run at the same time (8)")
    parser.add_argument("--threads", type=int, default=2, help="default of the setting max_threads (2)")
    parser.add_argument("--verbose", action="store_true", help="log every request")
    return parser.parse_args()


def main():
    args = arguments()
    os.makedirs(args.data_dir, exist_ok=True)
    engine = Engine(os.path.abspath(args.data_dir), args.max_memory_mb, args.max_queries, args.threads)
    server = Server((args.host, args.port), Handler)
    server.engine = engine
    server.verbose = args.verbose
    server.max_body_bytes = args.max_body_mb * 1024 * 1024
    server.credentials = (args.user, args.password) if args.user else None
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"ClickHouse engine {engine.version} answers on http://{args.host}:{server.server_port}", flush=True)
    server.serve_forever(poll_interval=0.1)
    server.socket.close()
    engine.close()
    print("closed", flush=True)
    # Threads of connections that are still open wait for nothing any more.
    os._exit(0)


if __name__ == "__main__":
    main()
