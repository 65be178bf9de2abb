"""The scripted provider itself: whom it answers what, which schemas it refuses, and that it runs as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from engine.ports.models import ModelFailure, ModelReply
from tests.contract.models.conftest import SCHEMA, call
from tests.support.model_server import ModelRequest, ModelServer, as_json, faults, text
from tests.support.model_server.server import parsed

ROOT = Path(__file__).resolve().parents[3]


def an_object(**properties: Any) -> dict[str, Any]:
    """An object schema as strict output wants it."""
    return {"type": "object", "additionalProperties": False, "required": sorted(properties), "properties": properties}


def levels(count: int) -> dict[str, Any]:
    """So many objects, one inside the other."""
    inner: dict[str, Any] = {"type": "string"}
    for _ in range(count):
        inner = an_object(inner=inner)
    return inner


STRING = {"type": "string"}
TREE = {"$defs": {"node": an_object(child={"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]})}}
GOOD = {
    "flat": an_object(a=STRING, b={"type": ["integer", "null"]}, c={"type": "array", "items": STRING}),
    "five levels": levels(5),
    "a hundred properties": an_object(**{f"p{number}": STRING for number in range(100)}),
    "recursion": an_object(root={"$ref": "#/$defs/node"}) | TREE,
    "enum": an_object(a={"type": "string", "enum": ["x"], "description": "…"}),
    "nothing": an_object(),
}
BAD = {
    "no object": (STRING, "root"),
    "optional property": (an_object(a=STRING) | {"required": []}, "required"),
    "open object": (an_object(a=STRING) | {"additionalProperties": True}, "additionalProperties"),
    "silent about others": ({"type": "object", "required": ["a"], "properties": {"a": STRING}}, "additionalProperties"),
    "six levels": (levels(6), "levels"),
    "101 properties": (an_object(**{f"p{number}": STRING for number in range(101)}), "101 properties"),
    "a length": (an_object(a={"type": "string", "maxLength": 5}), "maxLength"),
    "a range": (an_object(a={"type": "integer", "minimum": 5}), "minimum"),
    "a format": (an_object(a={"type": "string", "format": "date"}), "format"),
    "a default": (an_object(a={"type": "string", "default": ""}), "default"),
    "oneOf": (an_object(a={"oneOf": [STRING]}), "oneOf"),
    "no type": (an_object(a={"description": "anything"}), "type"),
    "an array of anything": (an_object(a={"type": "array"}), "items"),
    "deep inside": (an_object(a={"type": "array", "items": an_object(b={"type": "object"})}), "#/properties/a/items"),
    "a lost reference": (an_object(a={"$ref": "#/$defs/x"}), "points at nothing"),
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_schema_within_the_subset_has_no_fault(kind):
    assert faults("output", GOOD[kind]) == []


@pytest.mark.parametrize("kind", BAD)
def test_a_schema_outside_of_it_has_its_fault_named(kind):
    schema, word = BAD[kind]
    assert any(word in fault for fault in faults("output", schema))


@pytest.mark.filterwarnings("ignore:Invalid schema for OpenAI")
async def test_a_schema_outside_of_the_subset_is_refused_on_the_wire(server, models):
    server.script([text("never given")])
    result = await models.complete(call(schema=BAD["optional property"][0]))
    assert isinstance(result, ModelFailure)
    assert (result.code, result.retryable) == ("model.unavailable", False)


async def test_answers_are_chosen_by_work_model_and_prompt(server, models):
    server.script(lambda request: text("anything"))
    server.script([as_json({"answer": "planned"})], work="plan")
    server.script([text("about Jane")], containing="Jane")
    server.script(lambda request: text("other model"), model="nobody")
    asked = (call(schema=SCHEMA, schema_name="plan"), call(schema=SCHEMA, schema_name="plan"), call(), call())
    replies = [await models.complete(one) for one in asked]
    assert [reply.text for reply in replies] == ["about Jane", '{"answer": "planned"}', "anything", "anything"]
    assert [request.work for request in server.requests] == ["plan", "plan", "text", "text"]
    assert [request.attempt for request in server.requests] == [1, 2, 1, 2]


async def test_a_script_can_act_on_what_it_is_asked(server, models):
    from engine.ports.models import Message

    def double(request: ModelRequest):
        return as_json({"answer": str(2 * parsed(request)["n"])}, headers={"x-attempt": str(request.attempt)})

    server.script(double, work="output")
    result = await models.complete(call(messages=(Message("user", '{"n": 21}'),), schema=SCHEMA))
    assert isinstance(result, ModelReply)
    assert json.loads(result.text) == {"answer": "42"}


async def test_asking_beyond_the_script_is_an_error_that_names_the_request(server, models):
    server.script([text("once")])
    assert isinstance(await models.complete(call()), ModelReply)
    result = await models.complete(call())
    assert isinstance(result, ModelFailure)
    assert result.message.endswith("501")


@pytest.mark.parametrize("kind", ["json", "py"])
def test_it_runs_as_a_process_with_a_script_from_a_file(tmp_path, kind):
    script = tmp_path / f"script.{kind}"
    if kind == "json":
        rules = [
            {"work": "text", "containing": "first", "answers": [{"status": 429, "headers": {"Retry-After": "1"}}]},
            {"answers": [{"text": "one"}, {"json": {"n": 2}}], "again": True},
        ]
        script.write_text(json.dumps({"rules": rules}))
    else:
        script.write_text(
            "from tests.support.model_server import failure, text\n"
            "def answer(request):\n"
            "    if 'first' in request.prompt: return failure(429, headers={'Retry-After': '1'})\n"
            "    return text('one' if request.attempt == 2 else '{\"n\": 2}')\n"
        )
    command = [sys.executable, "-m", "tests.support.model_server", "--script", str(script), "--json", "--key-env", "K"]
    environment = {**os.environ, "K": "the-key"}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdout is not None
            facts = json.loads(process.stdout.readline())
            assert ask(facts["url"], "first")[0] == 429
            assert [ask(facts["url"], "second") for _ in range(3)] == [
                (200, "one"),
                (200, '{"n": 2}'),
                (200, '{"n": 2}'),
            ]
        finally:
            process.terminate()
        assert process.wait(10) == 0


def ask(url: str, prompt: str) -> tuple[int, str]:
    """One chat completion, by hand."""
    body = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
    request = urllib.request.Request(
        f"{url}/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": "Bearer the-key"},
    )
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as response:
            return response.status, json.load(response)["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_a_server_demands_its_key():
    with ModelServer(key="another") as server:
        assert ask(server.url, "x")[0] == 401
