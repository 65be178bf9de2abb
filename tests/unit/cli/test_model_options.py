"""`--model-endpoint` and its companions: what the host is told, and what is refused before anything starts."""

from __future__ import annotations

import argparse
import json

import pytest

from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.stack.models import add_model_options, as_typed, model_arguments, model_environment
from engine.bootstrap.settings import load_settings

LOCAL = ["--model-endpoint", "http://127.0.0.1:11434/v1", "--model", "qwen3:8b"]


def parsed(*arguments: str) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser()
    add_model_options(parser)
    return parser.parse_args(list(arguments))


def test_without_options_the_host_is_told_nothing():
    assert model_environment(parsed(), {"LIVOA_MODEL_DEPLOYMENTS": "[]"}) == {}
    assert as_typed(parsed()) == ""


def test_the_settings_made_of_the_options_are_what_the_host_reads():
    options = parsed(
        *LOCAL, "--model-key-env", "my_key", "--fallback-endpoint", "http://gpu:8000/v1", "--fallback-model", "m"
    )
    settings = load_settings({"LIVOA_ENV": "local"} | model_environment(options, {"my_key": "sk-1"}))
    first, second = settings.model_endpoints
    assert (first.deployment.name, first.url, first.deployment.model, first.key) == (
        "qwen3-8b",
        "http://127.0.0.1:11434/v1",
        "qwen3:8b",
        "sk-1",
    )
    assert (second.deployment.name, second.key, second.deployment.open_weight) == ("m.fallback", None, True)
    assert first.default_for == second.default_for == {"router", "planner", "synthesiser"}


def test_options_are_handed_on_as_they_were_given_and_hold_no_key(monkeypatch):
    monkeypatch.setenv("K", "sk-1")
    options = parsed(*LOCAL, "--model-key-env", "K")
    assert model_arguments(options) == [*LOCAL, "--model-key-env", "K"]
    assert "sk-1" not in as_typed(options)
    assert parsed(*as_typed(options).split()) == options


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "m"], "belong together"),
        (["--model-endpoint", "http://127.0.0.1:1/v1"], "belong together"),
        (["--model-key-env", "K"], "belong together"),
        ([*LOCAL, "--fallback-model", "m"], "belong together"),
        (["--fallback-endpoint", "http://127.0.0.1:1/v1", "--fallback-model", "m"], "nothing to fall back from"),
        ([*LOCAL, "--model-key-env", "MISSING"], "MISSING holds no key"),
        (["--model-endpoint", "127.0.0.1:1", "--model", "m"], "endpoint must be an http"),
        (["--model-endpoint", "http://u:sk-1@127.0.0.1:1", "--model", "m"], "no user"),
    ],
)
def test_options_that_make_no_deployment_are_refused_in_words(arguments, words):
    with pytest.raises(CliError) as caught:
        model_environment(parsed(*arguments), {"K": "sk-1"})
    assert words in str(caught.value)
    assert caught.value.exit_code is ExitCode.USAGE
    assert "sk-1" not in json.dumps(caught.value.as_json())


@pytest.mark.parametrize("command", ["up", "demo"])
def test_up_and_demo_refuse_them_before_they_start_anything(livoa, tmp_path, command):
    result = livoa(command, "--model", "m", "--data", str(tmp_path / "data"))
    assert result.code == ExitCode.USAGE
    assert "belong together" in result.err
    assert not (tmp_path / "data").exists()
