"""Passages in Azure AI Search: looking them up, and putting a tenant's pages there.

Two requests of its REST interface, through the egress guard like everything that leaves an agent. One index holds the passages of
all tenants; every request is confined to one by a filter, and every passage that comes back is looked at again.

``python -m sample_agents.search_service --settings FILE --samples FOLDER --tenant TENANT`` makes the index and brings a tenant's
passages up to date: new and changed ones are written, those whose page is gone are removed. Doing it again changes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, StringConstraints, ValidationError

from agent_kit import CapabilityError, StepContext
from agent_kit.egress import call_json
from engine.domain.ids import is_wire_id
from sample_agents.retrieval import Passage, SearchInputs, read_passages

API_VERSION = "2024-07-01"
TIMEOUT_S = 10.0
MAX_UPLOAD = 100
"""Passages of one upload."""
MAX_ROUNDS = 50
"""Rounds of removing what is gone, a thousand passages each."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,126}[a-z0-9]")
_OPERATORS = re.compile(r"[+|\-\"()*~\\^:/]")
_TEXT = {"type": "Edm.String", "searchable": True, "analyzer": "en.microsoft"}
_PLAIN = {"type": "Edm.String", "searchable": False}
FIELDS: tuple[dict[str, Any], ...] = (
    {"name": "id", "key": True, **_PLAIN},
    {"name": "tenant_id", "filterable": True, **_PLAIN},
    {"name": "generation", "filterable": True, **_PLAIN},
    {"name": "document", **_PLAIN},
    {"name": "title", **_TEXT},
    {"name": "section", **_TEXT},
    {"name": "date", **_PLAIN},
    {"name": "text", **_TEXT},
)


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """Address of the service, name of the index, and a key: for looking up a query key, for indexing an admin key."""

    endpoint: str
    index: str
    key: str = field(repr=False)


class _Found(BaseModel):
    """A passage as the service gives it."""

    score: Annotated[float, Field(alias="@search.score", ge=0, allow_inf_nan=False)]
    tenant_id: str
    document: Annotated[str, StringConstraints(max_length=120)]
    title: Annotated[str, StringConstraints(max_length=200)]
    section: Annotated[str, StringConstraints(max_length=200)]
    date: Annotated[str, StringConstraints(max_length=10)]
    text: Annotated[str, StringConstraints(max_length=4_000)]


def read_settings(file: Path) -> SearchSettings:
    """Settings from a JSON file: ``endpoint``, ``index``, ``key_file``. ``ValueError`` names what is wrong."""
    found = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or found.keys() != {"endpoint", "index", "key_file"}:
        raise ValueError(f"{file.name} must be a JSON object with endpoint, index and key_file")
    parts = urlsplit(str(found["endpoint"]))
    if not parts.hostname or not (parts.scheme == "https" or parts.hostname in ("127.0.0.1", "localhost")):
        raise ValueError(f"{file.name}: endpoint must be an https address")
    if _NAME.fullmatch(str(found["index"])) is None:
        raise ValueError(f"{file.name}: index must be lower-case letters, digits and dashes")
    key = Path(found["key_file"]).read_text(encoding="utf-8").strip()
    return SearchSettings(str(found["endpoint"]).rstrip("/"), str(found["index"]), key)


class SearchService:
    """The service, as far as it is used here. Implements ``PassageSearch``."""

    def __init__(self, settings: SearchSettings) -> None:
        self._settings = settings
        parts = urlsplit(settings.endpoint)
        self._hosts = (parts.netloc if parts.port else str(parts.hostname),)

    async def search(self, inputs: SearchInputs, context: StepContext) -> list[tuple[Passage, float]]:
        """See ``PassageSearch``. ``CapabilityError``: ``rag.*`` and ``egress.*``."""
        # Without its operators a query is words, whatever its writer meant by them.
        words = _OPERATORS.sub(" ", inputs.query).strip()
        asked = {"search": words, "queryType": "simple", "searchMode": "any", "top": inputs.top_k}
        found = (
            await self._find(context.tenant_id, asked, "tenant_id,document,title,section,date,text") if words else []
        )
        try:
            read = [_Found.model_validate(each) for each in found]
        except ValidationError:
            raise _bad_answer() from None
        if any(each.tenant_id != context.tenant_id for each in read):
            raise CapabilityError("rag.foreign_passage", "The search service answered with another tenant's passage.")
        return [
            (Passage(each.document, each.title, each.section, each.date, each.text), each.score)
            for each in read[: inputs.top_k]
        ]

    async def make_index(self) -> None:
        """Make the index, or bring it up to date."""
        body = {"name": self._settings.index, "fields": list(FIELDS)}
        await self._call("PUT", "", body, accepted=(200, 201, 204))

    async def replace(self, tenant_id: str, passages: Sequence[Passage]) -> tuple[int, int]:
        """Make the index hold these passages of a tenant and no others: how many were written, how many removed."""
        generation = hashlib.sha256(repr(passages).encode()).hexdigest()[:32]
        documents = [_document(tenant_id, generation, at, passage) for at, passage in enumerate(passages)]
        await self._write([{"@search.action": "mergeOrUpload", **document} for document in documents])
        removed: set[str] = set()
        for _ in range(MAX_ROUNDS):
            gone = f"generation ne '{generation}'"
            found = await self._find(tenant_id, {"search": "*", "top": 1_000}, "id,tenant_id", also=gone)
            # The service shows what was removed for a moment longer.
            new = sorted({str(each["id"]) for each in found} - removed)
            if not new:
                break
            await self._write([{"@search.action": "delete", "id": each} for each in new])
            removed.update(new)
        return len(documents), len(removed)

    async def _find(self, tenant_id: str, asked: dict[str, Any], select: str, also: str = "") -> list[Any]:
        if not is_wire_id(tenant_id):  # it becomes part of a filter
            raise CapabilityError("rag.tenant_invalid", "There is no such tenant.")
        confined = f"tenant_id eq '{tenant_id}'" + (f" and {also}" if also else "")
        body = await self._call("POST", "/docs/search", asked | {"filter": confined, "select": select})
        found = body.get("value") if isinstance(body, dict) else None
        if not isinstance(found, list):
            raise _bad_answer()
        return found

    async def _write(self, actions: list[dict[str, Any]]) -> None:
        for start in range(0, len(actions), MAX_UPLOAD):
            body = await self._call("POST", "/docs/index", {"value": actions[start : start + MAX_UPLOAD]})
            results = body.get("value") if isinstance(body, dict) else None
            if not isinstance(results, list) or not all(isinstance(one, dict) and one.get("status") for one in results):
                message = "The search service did not take every passage."
                raise CapabilityError("rag.unavailable", message, retryable=True)

    async def _call(
        self, method: Literal["POST", "PUT"], path: str, body: Any, accepted: tuple[int, ...] = (200,)
    ) -> Any:
        url = f"{self._settings.endpoint}/indexes/{self._settings.index}{path}"
        status, answer = await call_json(
            method,
            url,
            query={"api-version": API_VERSION},
            headers={"api-key": self._settings.key},
            body=body,
            hosts=self._hosts,
            timeout_s=TIMEOUT_S,
        )
        if status in accepted:
            return answer
        if status in (401, 403):
            raise CapabilityError("rag.not_allowed", "The search service does not accept this agent's key.")
        if status == 404:
            raise CapabilityError("rag.no_index", "The search service has no such index.")
        busy = status >= 500 or status == 429 or status == 207
        raise CapabilityError("rag.unavailable", f"The search service answered {status}.", retryable=busy)


def _document(tenant_id: str, generation: str, at: int, passage: Passage) -> dict[str, str]:
    place = f"{tenant_id}/{passage.document}/{at}"
    return {
        "id": base64.urlsafe_b64encode(hashlib.sha256(place.encode()).digest()).decode().rstrip("="),
        "tenant_id": tenant_id,
        "generation": generation,
        "document": passage.document[:120],
        "title": passage.title,
        "section": passage.section,
        "date": passage.date,
        "text": passage.text,
    }


def _bad_answer() -> CapabilityError:
    return CapabilityError("rag.bad_answer", "The search service's answer does not have the agreed form.")


def main(arguments: list[str] | None = None) -> int:
    """Bring the passages of tenants up to date. Exit code 0, or 1 with the reason on stderr."""
    parser = argparse.ArgumentParser(prog="python -m sample_agents.search_service", description=main.__doc__)
    parser.add_argument(
        "--settings", type=Path, required=True, help="JSON file with endpoint, index and key_file (admin key)"
    )
    parser.add_argument("--samples", type=Path, required=True, help="folder with TENANT/briefs/*.md")
    parser.add_argument("--tenant", action="append", required=True, help="whose pages; repeatable")
    options = parser.parse_args(arguments)
    try:
        asyncio.run(_index(options))
    except (CapabilityError, OSError, ValueError) as error:
        print(f"search_service: {error}", file=sys.stderr)
        return 1
    return 0


async def _index(options: argparse.Namespace) -> None:
    service = SearchService(read_settings(options.settings))
    await service.make_index()
    for tenant_id in options.tenant:
        if not is_wire_id(tenant_id) or tenant_id.startswith("."):
            raise ValueError(f"{tenant_id!r} is no tenant")
        passages = tuple(read_passages(options.samples / tenant_id / "briefs"))
        written, removed = await service.replace(tenant_id, passages)
        print(f"{tenant_id}: {written} passages written, {removed} removed")


if __name__ == "__main__":
    sys.exit(main())
