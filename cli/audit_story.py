"""The evidence of one run in words: what was asked, who decided, what was called and what came of it. Pure.

A line is a record; what is said of it are its own facts, with the first letters of the hashes that ``audit content`` takes. A
result names the record of its intent, and an intent that has none says so: that is what an auditor would otherwise look for by
hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from cli.people import People
from cli.render.text import counted, money

Record = Mapping[str, Any]

HASH_CHARS = 12
"""So many letters of a hash are shown; ``audit content`` takes them."""
_CONTENT = {
    "request_sha256": "request",
    "plan_hash": "plan",
    "prompt_sha256": "prompt",
    "output_sha256": "output",
    "answer_sha256": "answer",
}
_NO_CONTENT = ("inputs_sha256", "arguments_sha256", "facts_sha256", "policy_set", "committed_with")
"""Hashes that name something and lead to no content of their own."""
_VERDICTS = {"allow": "allowed", "deny": "denied", "escalate": "needs a second person", "transform": "must be changed"}
_ENDS = ("dispatch.result", "result.unknown")
_BEGIN = ("dispatch.intended", "planner.prompt")
_CALLED = ("step", "item", "attempt", "purpose")
_ASKED = ("work", "node", "request")


def story(records: Sequence[Record], people: People | None = None) -> list[str]:
    """Lines for people. ``records`` are those of one run, in the order of the chain; ``people`` are those who have names."""
    if not records:
        return []
    people = people or People()
    ended = {key for record in records if record["type"] in (*_ENDS, "planner.completion") and (key := _call(record))}
    begun = {key: record for record in records if record["type"] in _BEGIN and (key := _call(record))}
    width = max(len(record["type"]) for record in records)
    asker = records[0]["actor"]
    lines = [*_head(records, people), ""]
    for record in records:
        key = _call(record)
        words = _words(record, begun.get(key) if key and record["type"] not in _BEGIN else None, people)
        if record["type"] in _BEGIN and key not in ended:
            words += "; NO RESULT IS ON RECORD"
        who = "" if record["actor"] == asker else f"; by {short(record['actor'], people)}"
        lines.append(f"{record['seq']:>6}  {record['at'][11:23]}  {record['type']:<{width}}  {words}{who}".rstrip())
    return lines


def short(actor: str, people: People) -> str:
    """The person or app without its directory, and its name where one is known."""
    return people.shown(actor.rpartition(":")[2], actor)


def _head(records: Sequence[Record], people: People) -> list[str]:
    """Who asked, how it ended, what was done, and what wants looking at."""
    first, last = records[0], records[-1]
    asked, kinds = first["body"], Counter(record["type"] for record in records)
    app = f" with app {asked['client_app']}" if asked.get("client_app") else ""
    lines = [
        f"{first['run_id']} of {first['tenant_id']}: records {first['seq']} to {last['seq']}",
        f"  asked   {first['at'][:19].replace('T', ' ')} UTC by {short(first['actor'], people)}{app}",
    ]
    ends = [record for record in records if record["type"] == "run.finished"]
    if ends:
        body = ends[-1]["body"]
        code = f" ({body['code']})" if body.get("code") else ""
        degraded = ", degraded" if body.get("degraded") else ""
        spent = f", spent {money(body['spent_micro_usd'])}" if "spent_micro_usd" in body else ""
        lines.append(f"  ended   {body['status']}{code}{degraded}, after {_seconds(first, ends[-1])}{spent}")
    else:
        lines.append("  ended   not yet, or its end is not on record")
    denied = sum(record["body"].get("verdict") == "deny" for record in records)
    granted, voided = (_approvals(records, f"approval.{end}") for end in ("granted", "voided"))
    told = {
        "call": kinds["dispatch.intended"],
        "prompt": kinds["planner.prompt"],
        "denied": denied,
        "approval granted": len(granted - voided),
        "approval voided": len(voided),
        "result unknown": kinds["result.unknown"],
    }
    lines.append(
        "  holds   " + ", ".join(counted(count, name) for name, count in told.items() if count or name == "call")
    )
    return lines


def _approvals(records: Iterable[Record], kind: str) -> set[Any]:
    """The ids of the approvals that have a record of this kind."""
    return {record["body"].get("approval_id", record["seq"]) for record in records if record["type"] == kind}


def _call(record: Record) -> tuple[Any, ...] | None:
    """What a record of a call, or of a prompt, is about; None for others."""
    body = record["body"]
    if record["type"].startswith("planner."):
        return ("planner", *(body.get(name) for name in _ASKED)) if body.get("request") is not None else None
    if record["type"] == "result.unknown" and "step" not in body:
        return ("planner", *(body.get(name) for name in _ASKED))
    return tuple(body.get(name) for name in _CALLED) if "step" in body else None


def _words(record: Record, intent: Record | None, people: People) -> str:
    body = record["body"]
    match record["type"]:
        case "run.submitted":
            return _join(
                f"content {_hash(body, 'request_sha256')}",
                "with a plan of the caller's own" if body.get("own_plan") else "",
            )
        case "plan.validated" | "plan.rejected":
            return _plan(body, people)
        case "dispatch.intended":
            called = f"{body.get('capability')} {body.get('capability_version', '')}".strip()
            said = f"{_step(body)} calls {called} ({body.get('side_effect')})"
            return _join(said, _decision(body.get("decision") or {}, people))
        case "dispatch.result":
            took = f" after {_seconds(intent, record)} (record {intent['seq']})" if intent is not None else ""
            code = f" ({body['code']})" if body.get("code") else ""
            size = f"{body['output_bytes']:,} bytes" if "output_bytes" in body else ""
            output = f"output {_hash(body, 'output_sha256')}, {size}" if "output_sha256" in body else ""
            return _join(
                f"{_step(body)} {body.get('status')}{code}{took}", output, money(body.get("cost_micro_usd", 0))
            )
        case "policy.decision":
            return _join(
                f"{_step(body)} {body.get('capability', '')}: {_decision(body, people)}", body.get("code") or ""
            )
        case "synthesis":
            model = f"written by {body['model']}" if body.get("model") else "put together without a model"
            return _join(f"answer {_hash(body, 'answer_sha256')}", model)
        case _:
            return _facts(body)


def _plan(body: Mapping[str, Any], people: People) -> str:
    source = {
        "caller": "of the caller",
        "model": f"by model {body.get('model')}",
        "playbook": f"from playbook {body.get('playbook')}",
    }
    made = f"plan {_hash(body, 'plan_hash')}" if body.get("plan_hash") else "no plan"
    steps = f" of {counted(body['steps'], 'step')}" if body.get("steps") is not None else ""
    cost = f"estimated {money(body['estimated_cost_micro_usd'])}" if "estimated_cost_micro_usd" in body else ""
    codes = ", ".join(body.get("codes") or ([body["code"]] if body.get("code") else []))
    decided = _decision(body, people) if body.get("verdict") else ""
    return _join(f"{made}{steps} {source.get(body.get('source', ''), '')}".rstrip(), decided, codes, cost)


def _decision(body: Mapping[str, Any], people: People) -> str:
    """The verdict with whose it is, and what cured it."""
    by = f" by {', '.join(body['policies'])}" if body.get("policies") else ""
    cures = [f"needs {cure['kind']} {cure.get('detail', '')}".strip() for cure in body.get("cures") or ()]
    cured = [f"{what} {', '.join(body[what])}" for what in ("redacted", "masked") if body.get(what)]
    approved = f"approved by {short(body['approved_by'], people)}" if body.get("approved_by") else ""
    verdict = str(body.get("verdict", "no verdict"))
    return _join(f"{_VERDICTS.get(verdict, verdict)}{by}", *cures, *cured, approved)


def _facts(body: Mapping[str, Any]) -> str:
    """Every plain fact by its name, for what has no words of its own."""
    left_out = {*_CALLED, *_CONTENT, *_NO_CONTENT}
    plain = [
        f"{name}={value}"
        for name, value in body.items()
        if isinstance(value, str | int) and name not in left_out and value != ""
    ]
    hashes = [f"{word} {_hash(body, name)}" for name, word in _CONTENT.items() if body.get(name)]
    return "  ".join([*([_step(body)] if "step" in body else []), *plain, *hashes])


def _step(body: Mapping[str, Any]) -> str:
    item = f"[{body['item']}]" if body.get("item") is not None else ""
    more = [str(body[name]) for name in ("purpose",) if body.get(name)]
    more += [f"attempt {body['attempt']}"] if (body.get("attempt") or 1) > 1 else []
    return f"{body.get('step')}{item}" + (f" ({', '.join(more)})" if more else "")


def _hash(body: Mapping[str, Any], name: str) -> str:
    return str(body.get(name) or "")[:HASH_CHARS]


def _seconds(first: Record, last: Record) -> str:
    elapsed = datetime.fromisoformat(last["at"]) - datetime.fromisoformat(first["at"])
    return f"{elapsed.total_seconds():.1f} s"


def _join(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def hashes_of(records: Iterable[Record]) -> set[str]:
    """The hashes of content that these records commit to."""
    return {
        body[name] for record in records for name in _CONTENT if isinstance((body := record["body"]).get(name), str)
    }
