"""Reads just enough SQL to do what ClickHouse's HTTP handler does with a statement.

Knows quotes and comments, so that words inside of them are not taken for keywords.
"""

import re
from dataclasses import dataclass

TOKEN = re.compile(
    rb"--[^\n]*|#!?[ !][^\n]*|/\*.*?\*/"  # comments
    rb"|'(?:[^'\\]|\\.|'')*'|`(?:[^`\\]|\\.|``)*`|\"(?:[^\"\\]|\\.|\"\")*\""  # quoted
    rb"|[A-Za-z_][A-Za-z_0-9]*|[0-9][A-Za-z_0-9.]*"
    rb"|[(){}\[\];]|\s+|.",
    re.DOTALL,
)
FORMAT_NAME = re.compile(rb"\s*([A-Za-z_][A-Za-z_0-9]*)")
BEFORE_DATA = re.compile(rb"[ \t]*;?[ \t]*\r?\n?")


class SyntaxRefused(Exception):
    """ClickHouse would answer SYNTAX_ERROR."""


@dataclass
class Statement:
    """One statement; `data` is what follows the FORMAT of an insert."""

    sql: bytes
    format: str | None = None
    is_data_insert: bool = False
    data: bytes = b""

    def reading(self, source: str) -> bytes:
        """The insert, reading its data from somewhere else than behind itself."""
        into, settings = self.sql, b""
        for token, start, _end, depth in _significant(self.sql):
            if depth == 0 and token.upper() == b"SETTINGS":
                into, settings = self.sql[:start], self.sql[start:]
        return b"%s %s %s FORMAT %s" % (into, source.encode(), settings, self.format.encode())


def parse(text: bytes, body: bytes) -> Statement:
    """`text` is the `query` parameter, `body` the request's body; either can be empty.

    ClickHouse reads them one after the other, so that a statement may be in either
    and the data of an insert may follow it in the body.
    """
    if text and body and not _is_insert(text):
        text, body = text + b"\n" + body, b""
    elif not text:
        text, body = body, b""
    if _is_insert(text):
        return _insert(text, body)
    return _other(text)


def _significant(text: bytes):
    """Tokens with their offsets and bracket depth, without space and comments."""
    depth = 0
    for match in TOKEN.finditer(text):
        token = match.group()
        if token.isspace() or token.startswith((b"--", b"/*", b"#!", b"# ")):
            continue
        if token in (b")", b"]", b"}"):
            depth -= 1
        yield token, match.start(), match.end(), depth
        if token in (b"(", b"[", b"{"):
            depth += 1


def _is_insert(text: bytes) -> bool:
    first = next(_significant(text), None)
    return first is not None and first[0].upper() == b"INSERT"


def _insert(text: bytes, body: bytes) -> Statement:
    for token, start, end, depth in _significant(text):
        if depth:
            continue
        word = token.upper()
        if word in (b"SELECT", b"WITH", b"INFILE"):
            return _other(text + b"\n" + body if body else text)
        if word == b"VALUES":
            return Statement(text[:start], "Values", True, text[end:] + body)
        if word == b"FORMAT":
            name = FORMAT_NAME.match(text, end)
            if name is None:
                raise SyntaxRefused("Syntax error: FORMAT is not followed by the name of a format")
            if name.group(1).upper() == b"VALUES":
                return Statement(text[:start], "Values", True, text[name.end():] + body)
            after = BEFORE_DATA.match(text, name.end()).end()
            return Statement(text[:start], name.group(1).decode(), True, text[after:] + body)
    # As in ClickHouse, an insert that names no format has VALUES as its data.
    return Statement(text.rstrip(b"; \r\n\t"), "Values", True, body)


def _other(text: bytes) -> Statement:
    ended = False
    statement = Statement(text)
    previous = None
    for token, start, _end, depth in _significant(text):
        if ended:
            raise SyntaxRefused("Syntax error (Multi-statements are not allowed): "
                                f"failed at position {start + 1}: send one statement at a time")
        if token == b";":
            ended = True
            statement.sql = text[:start]
        elif previous is not None and previous.upper() == b"FORMAT" and depth == 0 and token[:1].isalpha():
            statement.format = token.decode()
        previous = token
    if previous is None:
        raise SyntaxRefused("Syntax error: failed at position 1 (end of query): Empty query")
    return statement
