"""Gold plans of WorFBench, AsyncHow and BFCL in our plan language.

- WorFBench and AsyncHow are graphs without tools: each step asks for a capability that takes anything. Their START and END are
  left out: with us a step without needs starts, and one that nobody needs ends.
- BFCL's calls run side by side (parallel, multiple), or one after the other (multi-turn: the turns of a conversation with state).
  Its answers list what may be given for each argument: the first is taken, the empty text means "leave it out". Its type names
  are read as JSON Schema's; a name that has no counterpart leaves the type open.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from engine.plan.graph import longest_path, topological_order
from tests.unit.plan.samples import plan, step

from .corpus import Corpus
from .data import data_files, read_jsonl

_TYPES = {
    "dict": "object",
    "object": "object",
    "float": "number",
    "number": "number",
    "integer": "integer",
    "string": "string",
    "boolean": "boolean",
    "array": "array",
    "tuple": "array",
}
_EDGES_OF_THE_WORLD = {"START", "END"}


def graph_plan(nodes: list[str], edges: list[list[str]]) -> dict[str, Any]:
    """Steps named as the nodes, each needing what has an edge to it; an edge from or to nowhere stays one."""
    known = set(nodes)
    needs: dict[str, list[str]] = {name: [] for name in nodes}
    for before, after in edges:
        if before in _EDGES_OF_THE_WORLD or after in _EDGES_OF_THE_WORLD:
            continue
        holder = after if after in known else before
        needs.setdefault(holder, []).append(before if holder == after else after)
    return plan(*(step(name, needs=sorted(set(needs[name]))) for name in nodes))


def worfbench_plan(record: dict[str, Any]) -> dict[str, Any]:
    """A workflow graph of WorFBench."""
    return graph_plan([name for name, _ in record["nodes"]], record["edges"])


def asynchow_plan(record: dict[str, Any]) -> dict[str, Any]:
    """A household plan of AsyncHow."""
    return graph_plan(sorted(record["seconds"], key=int), record["edges"])


def asynchow_seconds(record: dict[str, Any], bound: int) -> float:
    """The time of an AsyncHow plan by our arithmetic: ``bound`` 0 with the shortest durations, 1 with the longest."""
    ids = sorted(record["seconds"])
    needs: list[set[int]] = [set() for _ in ids]
    for before, after in record["edges"]:
        if before not in _EDGES_OF_THE_WORLD and after not in _EDGES_OF_THE_WORLD:
            needs[ids.index(after)].add(ids.index(before))
    earlier = [sorted(need) for need in needs]
    order = topological_order(earlier)
    assert order is not None
    return longest_path(earlier, order, [record["seconds"][step_id][bound] for step_id in ids])[1]


def bfcl_plan(record: dict[str, Any], documents: list[dict[str, Any]]) -> tuple[Corpus, dict[str, Any]]:
    """A record's tools as a corpus, and its gold calls as a plan. ``documents`` are the tools of multi-turn records."""
    tools = {
        each["name"]: {
            "description": each["description"],
            "input": _schema(each["parameters"]) | {"additionalProperties": False},
            "output": [],
        }
        for each in record.get("function", documents)
    }
    turns = record["ground_truth"] or []
    one_by_one = bool(turns) and isinstance(turns[0], list)
    calls = list(_turn_calls(turns, tools)) if one_by_one else [_call(each, tools) for each in turns]
    steps = [
        {"id": f"c{at}", "tool": name, "args": args, "deps": [f"c{at - 1}"] if one_by_one and at else []}
        for at, (name, args) in enumerate(calls)
    ]
    corpus = Corpus("bfcl", tools, text_encoded=False, declared_types=True)
    return corpus, corpus.plan({"query": record["id"], "steps": steps})


def bfcl_documents() -> list[dict[str, Any]]:
    """The tools of the multi-turn conversations; a name that several files have is taken from the first."""
    found: dict[str, dict[str, Any]] = {}
    for path in data_files("plans/bfcl_multi_turn_func_doc", "*.json"):
        for tool in read_jsonl(f"plans/bfcl_multi_turn_func_doc/{path.name}"):
            found.setdefault(tool["name"], tool)
    return list(found.values())


def _schema(declared: dict[str, Any]) -> dict[str, Any]:
    schema = {key: declared[key] for key in ("description", "required", "enum") if key in declared}
    if declared.get("type") in _TYPES:
        schema["type"] = _TYPES[declared["type"]]
    if isinstance(declared.get("items"), dict):
        schema["items"] = _schema(declared["items"])
    if isinstance(declared.get("properties"), dict):
        schema["properties"] = {name: _schema(each) for name, each in declared["properties"].items()}
    return schema


def _call(answer: dict[str, Any], tools: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    ((name, given),) = answer.items()
    properties = tools.get(name, {}).get("input", {}).get("properties", {})
    firsts = {argument: choices[0] for argument, choices in given.items() if choices and choices[0] != ""}
    return name, {argument: _plain(value, properties.get(argument, {})) for argument, value in firsts.items()}


def _plain(value: Any, schema: dict[str, Any]) -> Any:
    """Without the lists of choices that stand inside objects too."""
    if isinstance(value, dict):
        inner = schema.get("properties", {})
        members = {key: each[0] if isinstance(each, list) and each else each for key, each in value.items()}
        return {key: _plain(each, inner.get(key, {})) for key, each in members.items() if each != ""}
    if isinstance(value, list):
        return [_plain(each, schema.get("items", {})) for each in value]
    return value


def _turn_calls(turns: list[list[str]], tools: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Calls written as Python, ``grep('a', pattern='b')``: read as literals, never run."""
    for text in (each for turn in turns for each in turn):
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call)
        name = ast.unparse(call.func)
        names = list(tools.get(name, {}).get("input", {}).get("properties", {}))
        by_place = dict(zip(names, (ast.literal_eval(each) for each in call.args), strict=False))
        yield name, by_place | {each.arg: ast.literal_eval(each.value) for each in call.keywords if each.arg}
