"""The ClickHouse engine inside this process: one statement in, bytes or an error out."""

import re
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from chdb import session

import statement as sql

EXCEPTION = re.compile(r"Code: (\d+)\. ")
VERSION_TAIL = re.compile(r" \(version [^()]*(\([^()]*\))?\)\.?\s*$")

# chdb sets these otherwise than a server does.
SERVER_DEFAULTS = {"implicit_select": "0", "allow_introspection_functions": "0"}


class EngineError(Exception):
    """An error with ClickHouse's code and text."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


@dataclass
class Answer:
    data: bytes
    format: str
    summary: dict


@dataclass
class Request:
    """What one HTTP request asks for."""

    text: bytes
    body: bytes
    database: str | None
    default_format: str
    settings: dict
    parameters: dict
    readonly: bool


class Engine:
    """Keeps the data directory open, and gives every request a session of its own.

    Opening a session costs 0.2 ms, and keeps settings, parameters and the current
    database of one request from the next, as in a server.
    """

    def __init__(self, data_dir: str, max_memory_mb: int, max_queries: int, threads: int):
        # Caches are small, because a machine that runs tests has other uses for its memory.
        options = urlencode({
            "max_server_memory_usage": max_memory_mb * 1024 * 1024,
            "mark_cache_size": 64 * 1024 * 1024,
            "index_mark_cache_size": 16 * 1024 * 1024,
            "uncompressed_cache_size": 0,
        })
        self._connection = f"{data_dir}?{options}"
        self._incoming = Path(data_dir).resolve() / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        # Of a server that was killed.
        for left in self._incoming.iterdir():
            left.unlink()
        self._threads = threads
        self._slots = threading.BoundedSemaphore(max_queries)
        self._max_queries = max_queries
        self._base = session.Session(self._connection)
        self.version = self._base.query("SELECT version()", "TabSeparatedRaw").bytes().decode().strip()

    def run(self, request: Request) -> Answer:
        if not self._slots.acquire(timeout=60):
            raise EngineError(202, "Code: 202. DB::Exception: Too many simultaneous queries: "
                                   f"{self._max_queries} ran for 60 s. (TOO_MANY_SIMULTANEOUS_QUERIES)")
        connection = None
        try:
            statement = sql.parse(request.text, request.body)
            connection = session.Session(self._connection)
            self._prepare(connection, request)
            return self._execute(connection, statement, request.default_format)
        except sql.SyntaxRefused as error:
            raise EngineError(62, self._worded(f"Code: 62. DB::Exception: {error}. (SYNTAX_ERROR)")) from None
        except RuntimeError as error:
            raise self._translated(error) from None
        finally:
            if connection is not None:
                connection.close()
            self._slots.release()

    def _prepare(self, connection, request: Request):
        if request.database:
            connection.query(f"USE {quoted_name(request.database)}")
        settings = {**SERVER_DEFAULTS, "max_threads": str(self._threads), **request.settings}
        for name, value in request.parameters.items():
            settings[f"param_{name}"] = value
        # Last, because nothing can be set after it.
        if request.readonly:
            settings["readonly"] = "2"
        # A request may ask for it too, anywhere among its settings.
        for name, value in sorted(settings.items(), key=lambda setting: setting[0] == "readonly"):
            if not re.fullmatch(r"[A-Za-z_][A-Za-z_0-9.]*", name):
                raise RuntimeError(f"Code: 115. DB::Exception: Setting {name} is not a name. (UNKNOWN_SETTING)")
            connection.query(f"SET {name} = {quoted_text(value)}")

    def _execute(self, connection, statement: sql.Statement, default_format: str) -> Answer:
        started = time.monotonic()
        if statement.is_data_insert:
            # Not chdb's streaming insert: it says nothing of what fails while rows are written.
            with tempfile.NamedTemporaryFile(dir=self._incoming, prefix="insert-") as file:
                file.write(statement.data)
                file.flush()
                source = f"FROM INFILE {quoted_text(file.name)} COMPRESSION 'none'"
                result = connection.query(_text(statement.reading(source)))
            summary = {"written_rows": result.rows_written(), "written_bytes": result.bytes_written()}
            return Answer(b"", statement.format, _summary(started, **summary))
        result = connection.query(_text(statement.sql), default_format)
        summary = {
            "read_rows": result.storage_rows_read(), "read_bytes": result.storage_bytes_read(),
            "written_rows": result.rows_written(), "written_bytes": result.bytes_written(),
            "result_rows": result.rows_read(), "result_bytes": result.size(),
        }
        return Answer(result.bytes(), statement.format or default_format, _summary(started, **summary))

    def _translated(self, error: Exception) -> EngineError:
        message = str(error).strip()
        found = EXCEPTION.search(message)
        if found is None:
            return EngineError(1002, self._worded(f"Code: 1002. DB::Exception: {message}. (UNKNOWN_EXCEPTION)"))
        return EngineError(int(found.group(1)), self._worded(message))

    def _worded(self, message: str) -> str:
        return f"{VERSION_TAIL.sub('', message)} (version {self.version} (official build))"

    def close(self):
        """Waits for statements that run, then writes out and unlocks the data."""
        deadline = time.monotonic() + 20
        for _ in range(self._max_queries):
            self._slots.acquire(timeout=max(0.0, deadline - time.monotonic()))
        self._base.close()


def _summary(started: float, **figures) -> dict:
    figures["elapsed_ns"] = int((time.monotonic() - started) * 1e9)
    names = ("read_rows", "read_bytes", "written_rows", "written_bytes", "total_rows_to_read",
             "result_rows", "result_bytes", "elapsed_ns")
    # ClickHouse sends the figures as strings, and clients read nothing else.
    return {name: str(figures.get(name) or 0) for name in names}


def _text(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise RuntimeError(f"Code: 62. DB::Exception: The statement is not UTF-8: {error}. (SYNTAX_ERROR)") from None


def quoted_name(name: str) -> str:
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def quoted_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
