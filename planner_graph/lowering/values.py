"""The values of a proposal: JSON-encoded literals, references and templates, read strictly and written in the plan language.

A literal is data whatever it looks like: one that contains a member starting with ``$`` is wrapped in ``$literal``, so a model
cannot smuggle an expression in. References are parsed by the plan language's own grammar. Templates are taken apart into text
and references; their text is never formatted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from engine.domain.base import JsonValue
from engine.domain.errors import LivoaError
from engine.domain.strict_json import parse
from engine.plan.expressions import Malformed, parse_expression

MAX_LITERAL_BYTES = 400_000
MAX_LITERAL_DEPTH = 32
MAX_FIELDS = 200
_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


@dataclass(frozen=True, slots=True)
class Faulty:
    """A value that cannot be read: a stable code and words that do not repeat it."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Read:
    """A value in the plan language."""

    value: JsonValue


def literal(text: str) -> Read | Faulty:
    """A JSON-encoded literal."""
    decoded = decode(text)
    if isinstance(decoded, Faulty):
        return decoded
    return Read({"$literal": decoded.value}) if _looks_like_expression(decoded.value) else decoded


def decode(text: str) -> Read | Faulty:
    """The JSON value in ``text``, as it stands."""
    try:
        return Read(parse(text.encode("utf-8"), max_bytes=MAX_LITERAL_BYTES, max_depth=MAX_LITERAL_DEPTH))
    except UnicodeEncodeError:
        return Faulty("proposal.literal", "the value has a lone surrogate")
    except LivoaError as err:
        return Faulty("proposal.literal", f"a literal is JSON text, and text stands in double quotes ({err.code})")


def _looks_like_expression(value: JsonValue) -> bool:
    if isinstance(value, dict):
        return any(key.startswith("$") or _looks_like_expression(member) for key, member in value.items())
    return isinstance(value, list) and any(map(_looks_like_expression, value))


def reference(text: str, default: str | None = None) -> Read | Faulty:
    """A reference, with the JSON-encoded value to use when it leads nowhere."""
    expression: dict[str, JsonValue] = {"$ref": text}
    parsed = parse_expression(expression)
    if isinstance(parsed, Malformed):
        return Faulty("proposal.reference", parsed.message)
    if default is not None:
        value = decode(default)
        if isinstance(value, Faulty):
            return value
        expression["default"] = value.value
    return Read(expression)


def template(text: str) -> Read | Faulty:
    """Text with references in braces; ``{{`` and ``}}`` are braces. Without a reference it is plain text."""
    pieces: list[str] = []
    names: dict[str, str] = {}
    end = 0
    for match in _FIELD.finditer(text):
        pieces.append(text[end : match.start()])
        end = match.end()
        if match[1] is None:
            if match[0] not in ("{{", "}}"):
                return Faulty("proposal.template", "a brace is open or closed alone; write '{{' or '}}' for a brace")
            pieces.append(match[0])
            continue
        if isinstance(fault := reference(match[1]), Faulty):
            return Faulty("proposal.template", f"braces hold a reference: {fault.message}")
        pieces.append("{" + names.setdefault(match[1], f"v{len(names) + 1}") + "}")
        if len(names) > MAX_FIELDS:
            return Faulty("proposal.template", f"a template has at most {MAX_FIELDS} references")
    pieces.append(text[end:])
    if not names:
        return Read("".join(pieces).replace("{{", "{").replace("}}", "}"))
    return Read({"$template": "".join(pieces)} | {name: {"$ref": ref} for ref, name in names.items()})
