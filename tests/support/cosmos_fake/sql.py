"""The part of the query language that the model answers. Everything else is a ``QueryError``, as the service would say 400.

``SELECT [TOP n] * | VALUE path | path, ... FROM c [JOIN k IN c.path] [WHERE ...] [ORDER BY path [ASC|DESC], ...]`` with AND,
OR, NOT, parentheses, comparisons, IN, ARRAY_CONTAINS, IS_DEFINED and STARTSWITH. As in the service, a comparison of different
types, or with something absent, is undefined, and an undefined condition selects nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

UNDEFINED: Any = object()
Scope = Mapping[str, Any]
Expression = Callable[[Scope], Any]

_TOKEN = re.compile(
    r"\s*(?:(?P<number>-?\d+(?:\.\d+)?)|(?P<string>\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')|(?P<param>@\w+)"
    r"|(?P<word>[A-Za-z_]\w*)|(?P<op><=|>=|!=|<>|[=<>(),.*]))"
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<>": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


class QueryError(Exception):
    """The query is not one of those modelled."""


@dataclass
class Query:
    """A parsed query, to be run over the documents of some partitions."""

    top: int | None = None
    projection: Callable[[Scope], Any] = field(default=lambda scope: scope["c"])
    join: tuple[str, Expression] | None = None
    where: Expression | None = None
    order: list[tuple[Expression, str, bool]] = field(default_factory=list)

    @property
    def order_paths(self) -> list[tuple[str, str]]:
        """``(path, "ascending" | "descending")`` of ORDER BY, as a composite index names them."""
        return [(path, "descending" if descending else "ascending") for _, path, descending in self.order]

    def run(self, documents: Sequence[Mapping[str, Any]]) -> list[Any]:
        """The answers, in order."""
        scopes = [scope for document in documents for scope in self._scopes(document)]
        if self.where is not None:
            where = self.where
            scopes = [scope for scope in scopes if where(scope) is True]
        for key, _, descending in reversed(self.order):
            # An item without the path is not in the index that answers an ORDER BY, and so not in the answer.
            scopes = [scope for scope in scopes if key(scope) is not UNDEFINED]
            scopes.sort(key=lambda scope: _rank(key(scope)), reverse=descending)
        found = [value for scope in scopes if (value := self.projection(scope)) is not UNDEFINED]
        return found if self.top is None else found[: self.top]

    def _scopes(self, document: Mapping[str, Any]) -> Iterator[Scope]:
        if self.join is None:
            yield {"c": document}
            return
        name, source = self.join
        values = source({"c": document})
        for value in values if isinstance(values, list) else ():
            yield {"c": document, name: value}


def parse(text: str, parameters: Mapping[str, Any]) -> Query:
    """Raises ``QueryError``."""
    return _Parser(text, parameters).query()


def _rank(value: Any) -> tuple[int, Any]:
    for rank, kind in enumerate((type(None), bool, (int, float), str)):
        if isinstance(value, kind):
            return rank, (0 if value is None else value)
    raise QueryError("ORDER BY over something else than a plain value")


def _comparable(left: Any, right: Any) -> bool:
    if left is UNDEFINED or right is UNDEFINED or isinstance(left, list | dict) or isinstance(right, list | dict):
        return False
    return _rank(left)[0] == _rank(right)[0]


class _Parser:
    def __init__(self, text: str, parameters: Mapping[str, Any]) -> None:
        self._parameters = parameters
        self._tokens: list[tuple[str, str]] = []
        self._aliases = {"c"}
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None:
                raise QueryError(f"at {text[at : at + 20]!r}")
            self._tokens.append((str(match.lastgroup), match.group(str(match.lastgroup))))
            at = match.end()
        self._at = 0

    def query(self) -> Query:
        query = Query()
        self._need("SELECT")
        if self._take("TOP"):
            query.top = int(self._value()) if self._peek()[0] in ("number", "param") else self._fail()
        select_at = self._at
        while self._peek()[1].upper() != "FROM":
            self._next()
        self._need("FROM")
        if self._next() != ("word", "c"):
            self._fail()
        if self._take("JOIN"):
            name = self._next()[1]
            self._need("IN")
            query.join = (name, self._path()[0])
            self._aliases.add(name)
        after = self._at
        self._at = select_at
        query.projection = self._projection()
        if self._peek()[1].upper() != "FROM":
            self._fail()
        self._at = after
        if self._take("WHERE"):
            query.where = self._either()
        if self._take("ORDER"):
            self._need("BY")
            query.order = self._order()
        if self._at != len(self._tokens):
            self._fail()
        return query

    def _projection(self) -> Callable[[Scope], Any]:
        if self._take("*"):
            return lambda scope: dict(scope["c"])
        if self._take("VALUE"):
            return self._path()[0]
        fields: dict[str, Expression] = {}
        while True:
            expression, path = self._path()
            fields[path.rpartition("/")[2]] = expression
            if not self._take(","):
                break

        def project(scope: Scope) -> dict[str, Any]:
            values = {name: expression(scope) for name, expression in fields.items()}
            return {name: value for name, value in values.items() if value is not UNDEFINED}

        return project

    def _order(self) -> list[tuple[Expression, str, bool]]:
        order = []
        while True:
            expression, path = self._path()
            descending = self._take("DESC")
            if not descending:
                self._take("ASC")
            order.append((expression, path, descending))
            if not self._take(","):
                return order

    def _either(self) -> Expression:
        parts = [self._all()]
        while self._take("OR"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else lambda scope: any(part(scope) is True for part in parts)

    def _all(self) -> Expression:
        parts = [self._condition()]
        while self._take("AND"):
            parts.append(self._condition())
        return parts[0] if len(parts) == 1 else lambda scope: all(part(scope) is True for part in parts)

    def _condition(self) -> Expression:
        if self._take("NOT"):
            inner = self._condition()
            return lambda scope: UNDEFINED if inner(scope) is UNDEFINED else not inner(scope)
        if self._take("("):
            inside = self._either()
            self._need(")")
            return inside
        left = self._operand()
        if self._take("IN"):
            return self._within(left)
        token = self._peek()
        if token[0] != "op" or token[1] not in _COMPARE:
            return left
        compare = _COMPARE[self._next()[1]]
        right = self._operand()

        def compared(scope: Scope) -> Any:
            a, b = left(scope), right(scope)
            return compare(a, b) if _comparable(a, b) else UNDEFINED

        return compared

    def _within(self, left: Expression) -> Expression:
        self._need("(")
        options = [self._operand()]
        while self._take(","):
            options.append(self._operand())
        self._need(")")
        return lambda scope: any(_comparable(left(scope), o(scope)) and left(scope) == o(scope) for o in options)

    def _operand(self) -> Expression:
        kind, text = self._peek()
        if kind == "word" and text.upper() in ("ARRAY_CONTAINS", "IS_DEFINED", "STARTSWITH"):
            return self._function(self._next()[1].upper())
        if kind == "word" and text in self._aliases:
            return self._path()[0]
        value = self._value()
        return lambda scope: value

    def _function(self, name: str) -> Expression:
        self._need("(")
        arguments = [self._operand()]
        while self._take(","):
            arguments.append(self._operand())
        self._need(")")
        if name == "IS_DEFINED" and len(arguments) == 1:
            return lambda scope: arguments[0](scope) is not UNDEFINED
        if name == "ARRAY_CONTAINS" and len(arguments) == 2:

            def contains(scope: Scope) -> Any:
                among, wanted = arguments[0](scope), arguments[1](scope)
                return wanted in among if isinstance(among, list) and wanted is not UNDEFINED else UNDEFINED

            return contains
        if name == "STARTSWITH" and len(arguments) == 2:

            def starts(scope: Scope) -> Any:
                text, prefix = arguments[0](scope), arguments[1](scope)
                return text.startswith(prefix) if isinstance(text, str) and isinstance(prefix, str) else UNDEFINED

            return starts
        return self._fail()

    def _value(self) -> Any:
        kind, text = self._next()
        if kind == "param":
            if text not in self._parameters:
                raise QueryError(f"no value for {text}")
            return self._parameters[text]
        if kind == "number":
            return float(text) if "." in text else int(text)
        if kind == "string":
            return text[1:-1]
        named = {"true": True, "false": False, "null": None}
        return named[text] if text in named else self._fail()

    def _path(self) -> tuple[Expression, str]:
        alias = self._next()[1]
        if alias not in self._aliases:
            self._fail()
        names: list[str] = []
        while self._take("."):
            names.append(self._next()[1])

        def walk(scope: Scope) -> Any:
            value = scope.get(alias, UNDEFINED)
            for name in names:
                value = value.get(name, UNDEFINED) if isinstance(value, Mapping) else UNDEFINED
            return value

        return walk, "/" + "/".join(names)

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        if token[0] == "end":
            self._fail()
        self._at += 1
        return token

    def _take(self, text: str) -> bool:
        kind, found = self._peek()
        if kind in ("word", "op") and found.upper() == text:
            self._at += 1
            return True
        return False

    def _need(self, text: str) -> None:
        if not self._take(text):
            self._fail()

    def _fail(self) -> Any:
        raise QueryError(f"near {' '.join(text for _, text in self._tokens[max(0, self._at - 3) : self._at + 3])!r}")
