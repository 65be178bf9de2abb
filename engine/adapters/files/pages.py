"""Pages of YAML that people write: one mapping per file, read strictly and checked against a model.

YAML guesses (``no`` is false, ``2026-01-05`` a date, ``010`` eight) and lets a key repeat. Here a plain scalar is what it would
be in JSON, or text; repeated keys and tags are refused, aliases are written out up to a bound. Every finding names the file and
the field.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from engine.domain.base import Frozen, JsonValue
from engine.domain.errors import Violation
from engine.domain.strict_json import DEFAULT_MAX_DEPTH, MAX_INTEGER, escape_token

MAX_PAGE_BYTES = 1024 * 1024
MAX_PAGE_VALUES = 100_000
"""Most values of a page once its aliases are written out."""
_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}"
    for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value", "map", "seq")
)
_WORDS: dict[str, JsonValue] = {"true": True, "false": False, "null": None, "~": None, "": None}
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

M = TypeVar("M", bound=Frozen)


class _RefusedError(Exception):
    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(message)
        self.pointer = pointer
        self.message = message


FileState = tuple[str, int, int, int]
"""Name, time of the last change (ns), size and inode."""


def file_states(directory: Path) -> tuple[FileState, ...]:
    """What tells that a file was changed, put there or taken away, for every file of a folder; nothing without the folder.

    A link is what it leads to; one that leads nowhere is a file all the same, which whoever reads it cannot read.
    """
    states = []
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        try:
            found = _stat(path)
        except FileNotFoundError:
            continue  # removed while we looked
        states.append((path.name, found.st_mtime_ns, found.st_size, found.st_ino))
    return tuple(states)


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError:
        return path.lstat()


def read_pages(
    root: Path, folder: str, model: type[M], name_of: Callable[[M], str], code: str
) -> tuple[dict[str, M], list[Violation]]:
    """Read every ``*.yaml`` of ``root/folder`` as ``model``; a page's file is called ``{name}.yaml``.

    Returns the good pages by name, in order of name, and a violation of ``code`` for everything wrong, with the pointer
    ``{folder}/{file}#{JSON Pointer}``. A folder that does not exist has no pages.
    """
    pages: dict[str, M] = {}
    findings: list[Violation] = []
    directory = root / folder
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        if path.name.startswith(".") or path.name.endswith("~"):  # no page: what editors keep beside one
            continue
        label = f"{folder}/{path.name}"
        try:
            page = _page(path, model)
            _refuse_other_name(path, name_of(page))
            pages[name_of(page)] = page
        except _RefusedError as err:
            findings.append(Violation(code=code, pointer=f"{label}#{err.pointer}", message=err.message))
        except ValidationError as err:
            findings.extend(_violations(err, label, code))
    return pages, findings


def _refuse_other_name(path: Path, name: str) -> None:
    if path.stem != name:
        raise _RefusedError("", f"the page is about {name}, so its file must be called {name}.yaml")


def _page(path: Path, model: type[M]) -> M:
    if path.suffix != ".yaml":
        raise _RefusedError("", "pages are files that end in .yaml; anything else would be overlooked")
    value = _value(_root(_text(path)), "", _Bounds())
    if not isinstance(value, dict):
        raise _RefusedError("", "a page is a mapping")
    # Through JSON, where the strict mode of the model knows lists and mappings but coerces no text into a number.
    return model.model_validate_json(json.dumps(value), strict=True)


def _text(path: Path) -> str:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would keep whoever opens it
            raise _RefusedError("", "cannot be read: it is no file")
        data = path.read_bytes() if found.st_size <= MAX_PAGE_BYTES else b""
        if max(found.st_size, len(data)) > MAX_PAGE_BYTES:
            raise _RefusedError("", f"a page has at most {MAX_PAGE_BYTES} bytes")
        return data.decode()
    except OSError as err:
        raise _RefusedError("", f"cannot be read: {err.strerror}") from err
    except UnicodeDecodeError as err:
        raise _RefusedError("", f"is not UTF-8 at byte {err.start}") from err


def _root(text: str) -> yaml.Node:
    try:
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as err:
        raise _RefusedError("", f"is not YAML: {' '.join(str(err).split())[:300]}") from err
    except RecursionError as err:
        raise _RefusedError("", "nests too deeply") from err
    if node is None:
        raise _RefusedError("", "is empty")
    return node


class _Bounds:
    """Keeps a page finite: an alias may stand for a lot, or for something that contains it."""

    def __init__(self) -> None:
        self._values = 0

    def enter(self, node: yaml.Node, pointer: str) -> None:
        self._values += 1
        if self._values > MAX_PAGE_VALUES or pointer.count("/") > DEFAULT_MAX_DEPTH:
            raise _RefusedError(
                "", f"line {_line(node)}: more than {MAX_PAGE_VALUES} values or {DEFAULT_MAX_DEPTH} levels"
            )


def _value(node: yaml.Node, pointer: str, bounds: _Bounds) -> JsonValue:
    bounds.enter(node, pointer)
    if node.tag not in _TAGS:
        raise _RefusedError(pointer, f"line {_line(node)}: tags are not allowed")
    match node:
        case yaml.MappingNode():
            return dict(_members(node, pointer, bounds))
        case yaml.SequenceNode():
            return [_value(child, f"{pointer}/{index}", bounds) for index, child in enumerate(node.value)]
        case yaml.ScalarNode():
            return _scalar(node, pointer)
        case _:
            raise _RefusedError(pointer, "is no value")


def _members(node: yaml.MappingNode, pointer: str, bounds: _Bounds) -> Iterator[tuple[str, JsonValue]]:
    known: dict[str, int] = {}
    for key_node, value_node in node.value:
        key = key_node.value
        if not isinstance(key_node, yaml.ScalarNode):
            raise _RefusedError(pointer, f"line {_line(key_node)}: keys are texts")
        place = f"{pointer}/{escape_token(key)}"
        if key in known:
            raise _RefusedError(place, f"line {_line(key_node)}: {key} stands on line {known[key]} already")
        known[key] = _line(key_node)
        yield key, _value(value_node, place, bounds)


def _scalar(node: yaml.ScalarNode, pointer: str) -> JsonValue:
    text: str = node.value
    if node.style:
        return text  # quoted or a block: text, whatever it looks like
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        if len(text) > len(str(-MAX_INTEGER)) or abs(int(text)) > MAX_INTEGER:
            raise _RefusedError(
                pointer, f"line {_line(node)}: an integer is at most 2^53 - 1; quote it if it is a text"
            )
        return int(text)
    if _NUMBER.fullmatch(text):
        if not math.isfinite(float(text)):
            raise _RefusedError(pointer, f"line {_line(node)}: the number is too large")
        return float(text)
    return text


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _violations(error: ValidationError, label: str, code: str) -> list[Violation]:
    return [
        Violation(
            code=code,
            pointer=f"{label}#{''.join(f'/{escape_token(str(token))}' for token in found['loc'])}",
            message=found["msg"],
        )
        for found in _errors(error)
    ]


def _errors(error: ValidationError) -> list[Any]:
    return list(error.errors(include_url=False, include_input=False, include_context=False))
