"""Names of files and classes as text, and back. A name is bytes; documents hold Unicode.

Python decodes a byte that is not UTF-8 to a lone surrogate (PEP 383), which JSON, CSV, Parquet and
terminals refuse. Here such a byte is written ``\\xe9``, as C and Python write it. A backslash is
doubled where it could be taken for that, so that names stay apart and can be read back; all other
names stay as they are.
"""

from __future__ import annotations

import codecs
import re

_SURROGATE = re.compile("[\ud800-\udfff]")
_ESCAPED = re.compile(r"[\\\ud800-\udfff]")
_ESCAPE = re.compile(r"\\(?:\\|x([0-9a-f]{2})|u([0-9a-f]{4}))")
_BYTE = 0xDC00
"""PEP 383: the byte 0xE9 is U+DCE9."""

STREAM_ERRORS = "alexsim-names"
"""How terminals take what they cannot encode (``codecs.register_error``)."""


def name_text(name: str) -> str:
    """A name as every document can hold it."""
    if _ESCAPE.search(name) or _SURROGATE.search(name):
        return _ESCAPED.sub(lambda match: _escape(match[0]), name)
    return name


def name_of(text: str) -> str:
    """The name that ``name_text`` wrote: a path that opens the file."""
    return _ESCAPE.sub(_unescape, text)


def _escape(character: str) -> str:
    if character == "\\":
        return r"\\"
    byte = ord(character) - _BYTE
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else f"\\u{ord(character):04x}"


def _unescape(match: re.Match[str]) -> str:
    if match[1]:
        return chr(_BYTE + int(match[1], 16))
    return chr(int(match[2], 16)) if match[2] else "\\"


def _stream_error(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    part = error.object[error.start : error.end]
    # What a terminal's encoding lacks: lone surrogates in UTF-8, any letter in ASCII.
    shown = (
        _escape(c) if "\ud800" <= c <= "\udfff" else c.encode("ascii", "backslashreplace").decode()
        for c in part
    )
    return "".join(shown), error.end


codecs.register_error(STREAM_ERRORS, _stream_error)
