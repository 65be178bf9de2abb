"""Loading apps: what is understood, what is refused with a code, and that one app leaves nothing for the next."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from local_host.app_index import index_app
from local_host.app_loader import load_app
from local_host.durable_functions import AppDurableFunctions
from local_host.errors import HostError
from local_host.settings import environment_of, expand_settings, read_host_config, read_local_settings
from local_host.specs import (
    ActivityTrigger,
    AuthLevel,
    Cardinality,
    ClientInput,
    EntityTrigger,
    HttpTrigger,
    OrchestrationTrigger,
    QueueOutput,
    QueueTrigger,
    TimerTrigger,
)

HEADER = """
import azure.functions as func
import azure.durable_functions as df
from typing import List
app = func.FunctionApp()
bp = df.Blueprint()
"""


@pytest.fixture
def index(tmp_path: Path):
    """Write an app, load it, return its specs."""

    def load(code: str, environment: dict[str, str] | None = None):
        (tmp_path / "function_app.py").write_text(HEADER + dedent(code))
        with load_app(tmp_path, environment or {}) as app:
            return index_app(app, environment or {})

    return load


def test_every_trigger_becomes_a_spec(index):
    specs = index(
        """
        @app.route(route="a/{id}", methods=["get", "POST"])
        async def http_one(req: func.HttpRequest, context: func.Context) -> func.HttpResponse: ...

        @app.timer_trigger(arg_name="timer", schedule="%WHEN%", run_on_startup=True, use_monitor=False)
        def tick(timer: func.TimerRequest) -> None: ...

        @app.service_bus_queue_trigger(arg_name="m", connection="C", queue_name="%Q%-in", cardinality="many",
                                       is_sessions_enabled=True)
        @app.service_bus_queue_output(arg_name="out", connection="C", queue_name="%Q%-out")
        def batch(m: List[func.ServiceBusMessage], out: func.Out[str]) -> None: ...

        @app.service_bus_topic_output(arg_name="$return", connection="C", topic_name="echoes")
        @app.service_bus_topic_trigger(arg_name="m", connection="C", topic_name="t", subscription_name="s")
        def news(m: bytes) -> None: ...

        @bp.orchestration_trigger(context_name="ctx", orchestration="Orch")
        def orchestrate(ctx): yield

        @bp.activity_trigger(input_name="payload", activity="Act")
        def act(payload: dict): ...

        @bp.entity_trigger(context_name="context", entity_name="Counter")
        def count(context): ...

        @bp.route(route="start")
        @bp.durable_client_input(client_name="client", task_hub="%HUB%")
        async def start(req: func.HttpRequest, client) -> func.HttpResponse: ...

        app.register_functions(bp)
        """,
        {"WHEN": "0 0 * * * *", "Q": "orders", "HUB": "other"},
    )
    by_name = {spec.name: spec for spec in specs}
    assert by_name["http_one"].trigger == HttpTrigger(
        "req", "a/{id}", frozenset({"GET", "POST"}), AuthLevel.FUNCTION, True
    )
    assert by_name["http_one"].is_async
    assert by_name["http_one"].wants_context
    assert by_name["tick"].trigger == TimerTrigger("timer", "0 0 * * * *", True, False)
    assert by_name["batch"].trigger == QueueTrigger("m", "orders-in", True, Cardinality.MANY)
    assert by_name["batch"].outputs == (QueueOutput("out", "orders-out"),)
    assert by_name["news"].trigger == QueueTrigger("m", "t/Subscriptions/s", False, Cardinality.ONE)
    assert by_name["news"].pass_through is bytes
    assert by_name["news"].outputs == (QueueOutput("$return", "echoes", is_topic=True),)
    assert by_name["orchestrate"].trigger == OrchestrationTrigger("ctx", "Orch")
    assert by_name["act"].trigger == ActivityTrigger("payload", "Act")
    assert by_name["count"].trigger == EntityTrigger("context", "Counter")
    assert by_name["start"].clients == (ClientInput("client", "other"),)
    assert by_name["start"].is_async


def test_durable_names_resolve_by_trigger_then_function_then_python_name(index):
    specs = index(
        """
        @bp.activity_trigger(input_name="p", activity="First")
        def second(p): ...

        @bp.function_name("Named")
        @bp.activity_trigger(input_name="p", activity="Second")
        def third(p): ...

        @bp.orchestration_trigger(context_name="context")
        def orchestrate(context): yield
        app.register_functions(bp)
        """
    )
    functions = AppDurableFunctions(specs, invoker=None)
    assert all(functions.has_activity(name) for name in ("first", "SECOND", "named", "Third"))
    assert functions._activities["second"].name == "Named"  # a trigger name wins over a function name
    assert functions.has_orchestrator("Orchestrate")
    assert not functions.has_orchestrator("first")
    assert not functions.has_entity("first")
    assert hasattr(functions.orchestrator("ORCHESTRATE"), "orchestrator_function")
    with pytest.raises(KeyError):
        functions.entity("none")


@pytest.mark.parametrize(
    ("code", "expected", "where"),
    [
        ("raise RuntimeError('at import')", "host.app_import_failed", "function_app.py"),
        ("other = func.FunctionApp()", "host.two_function_apps", "function_app.py"),
        ("del app", "host.no_function_app", "function_app.py"),
        (
            "@app.route()\ndef f(req: func.HttpRequest): ...\n@app.route(route='g')\ndef f(req: func.HttpRequest): ...",
            "host.bad_function",
            "function_app.py",
        ),
        ("@app.route()\ndef f(request): ...", "host.binding_mismatch", "f"),
        ("@app.route()\ndef f(req, extra): ...", "host.binding_mismatch", "f"),
        ("@app.route()\ndef f(req: str): ...", "host.binding_mismatch", "f"),
        ("@app.route()\ndef f(req: dict): ...", "host.binding_mismatch", "f"),
        ("@app.route(route='admin/x')\ndef f(req): ...", "host.bad_route", "f"),
        ("@app.timer_trigger(arg_name='t', schedule='* * *')\ndef f(t): ...", "host.bad_schedule", "f"),
        ("@app.timer_trigger(arg_name='t', schedule='%NO%')\ndef f(t): ...", "host.missing_setting", "f"),
        ("@app.blob_trigger(arg_name='b', path='x', connection='C')\ndef f(b): ...", "host.unsupported_binding", "f"),
        (
            "@app.route()\n@app.blob_input(arg_name='b', path='x', connection='C')\ndef f(req, b): ...",
            "host.unsupported_binding",
            "f",
        ),
        (
            "@app.route()\n@app.service_bus_queue_output(arg_name='o', connection='C', queue_name='q')\ndef f(req, o: str): ...",
            "host.binding_mismatch",
            "f",
        ),
        (
            "@bp.route(route='s')\n@bp.durable_client_input(client_name='c')\ndef f(req, c): ...\napp.register_functions(bp)",
            "host.binding_mismatch",
            "f",
        ),
        (
            "@bp.activity_trigger(input_name='p', activity='A')\ndef f(p): ...\n"
            "@bp.activity_trigger(input_name='p', activity='a')\ndef g(p): ...\napp.register_functions(bp)",
            "host.duplicate_name",
            "g",
        ),
    ],
)
def test_what_cannot_run_is_refused_at_load_with_code_and_place(index, code, expected, where):
    with pytest.raises(HostError) as caught:
        index(code)
    assert caught.value.code == expected
    assert caught.value.where.endswith(where)


def test_a_disabled_function_is_neither_checked_nor_served(index):
    code = "@app.blob_trigger(arg_name='b', path='x', connection='C')\ndef f(b): ...\n@app.route()\ndef g(req): ..."
    for name in ("AzureWebJobs.f.Disabled", "AzureWebJobs__f__Disabled"):
        assert [spec.name for spec in index(code, {name: "true"})] == ["g"]


def test_a_missing_app_and_another_script_name(tmp_path):
    with pytest.raises(HostError, match=r"host\.app_not_found"), load_app(tmp_path, {}):
        pass
    (tmp_path / "main_app.py").write_text(HEADER)
    with load_app(tmp_path, {"PYTHON_SCRIPT_FILE_NAME": "main_app.py"}) as app:
        assert app.module.__name__ == "main_app"
        assert app.http_extension is None


def test_two_apps_with_modules_of_the_same_names_do_not_meet(tmp_path):
    seen = []
    path_before = list(sys.path)
    for word in ("one", "two"):
        directory = tmp_path / word
        directory.mkdir()
        (directory / "words_of_app.py").write_text(f"WORD = {word!r}")
        (directory / "function_app.py").write_text(HEADER + "import words_of_app")
        with load_app(directory, {}) as app:
            seen.append(app.module.words_of_app.WORD)
            with pytest.raises(HostError, match=r"host\.app_already_loaded"), load_app(directory, {}):
                pass
        assert "words_of_app" not in sys.modules
        assert "function_app" not in sys.modules
    assert seen == ["one", "two"]
    assert sys.path == path_before


def test_an_app_the_process_imports_from_anyway_keeps_its_packages(tmp_path, monkeypatch):
    (tmp_path / "shared_words.py").write_text("class Word: ...")
    (tmp_path / "function_app.py").write_text(HEADER + "import shared_words")
    monkeypatch.syspath_prepend(str(tmp_path))
    with load_app(tmp_path, {}) as app:
        first = app.module.shared_words.Word
    with load_app(tmp_path, {}) as app:
        assert app.module.shared_words.Word is first  # a class must not come in two copies
    sys.modules.pop("shared_words")


def test_local_settings_fill_gaps_only_and_leave_again(tmp_path, monkeypatch):
    (tmp_path / "local.settings.sample.json").write_text('{"Values": {"LH_A": "sample", "LH_B": "sample"}}')
    monkeypatch.setenv("LH_A", "environment")
    with environment_of(read_local_settings(tmp_path)) as environment:
        assert (environment["LH_A"], environment["LH_B"]) == ("environment", "sample")
    assert "LH_B" not in os.environ
    (tmp_path / "local.settings.json").write_text('{"Values": {"LH_B": "real"}}')
    assert read_local_settings(tmp_path) == {"LH_B": "real"}


@pytest.mark.parametrize("text", ["{", "[]", '{"IsEncrypted": true}', '{"Values": []}', '{"Values": {"K": 17}}'])
def test_broken_settings_are_refused_without_quoting_values(tmp_path, text):
    (tmp_path / "local.settings.json").write_text(text)
    with pytest.raises(HostError) as caught:
        read_local_settings(tmp_path)
    assert caught.value.code == "host.bad_settings"
    assert "17" not in caught.value.message


def test_host_json_is_read_with_environment_overrides(tmp_path):
    (tmp_path / "host.json").write_text(
        '{"extensions": {"http": {"routePrefix": "/v1/"}, "durableTask": {"hubName": "%HUB%", "x": 1},'
        ' "serviceBus": {"maxConcurrentCalls": 2, "autoCompleteMessages": false}}}'
    )
    config = read_host_config(tmp_path, {"HUB": "mine"})
    assert (config.route_prefix, config.hub_name, config.durable_task["x"]) == ("v1", "mine", 1)
    assert (config.service_bus.max_concurrent_calls, config.service_bus.auto_complete) == (2, False)
    overridden = read_host_config(tmp_path, {"HUB": "h", "AzureFunctionsJobHost__extensions__http__routePrefix": ""})
    assert overridden.route_prefix == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"extensions": []}',
        '{"extensions": {"http": {"routePrefix": 1}}}',
        '{"extensions": {"http": {"maxConcurrentRequests": 0}}}',
        '{"functionTimeout": "soon"}',
        '{"extensions": {"serviceBus": {"maxConcurrentCalls": 0}}}',
        '{"extensions": {"durableTask": {"hubName": "%MISSING%"}}}',
    ],
)
def test_a_bad_host_json_is_refused(tmp_path, text):
    (tmp_path / "host.json").write_text(text)
    with pytest.raises(HostError):
        read_host_config(tmp_path, {})


def test_no_host_json_is_refused(tmp_path):
    with pytest.raises(HostError, match=r"host\.bad_host_json"):
        read_host_config(tmp_path, {})


def test_settings_expand_anywhere_in_a_name():
    assert expand_settings("a-%X%-%Y%", {"X": "1", "Y": "2"}, where="f") == "a-1-2"
    assert expand_settings("100%", {}, where="f") == "100%"
