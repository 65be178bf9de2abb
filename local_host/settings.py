"""Reads an app's settings files: `host.json` and `local.settings.json`, as the Azure tools do.

It deliberately validates only what this host acts on, and never prints or logs a value: settings hold secrets.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local_host.durable.admission import Bounds
from local_host.errors import HostError

_OVERRIDE_PREFIX = "AzureFunctionsJobHost__"
MAX_PENDING_STARTS = "LOCAL_HOST_MAX_PENDING_STARTS"
MAX_OPEN_ACTIVITIES = "LOCAL_HOST_MAX_OPEN_ACTIVITIES"
_SETTING = re.compile(r"%([^%]+)%")
_TIMESPAN = re.compile(r"^(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2})(?:\.\d+)?$")


@dataclass(frozen=True, slots=True)
class ServiceBusOptions:
    """host.json `extensions.serviceBus`; defaults are the extension's."""

    auto_complete: bool = True
    max_concurrent_calls: int = 16
    max_concurrent_sessions: int = 8
    max_batch_size: int = 1000
    max_renewal_s: float = 300.0


@dataclass(frozen=True, slots=True)
class HostConfig:
    """The parts of host.json this host acts on; `durable_task` is handed to the durable engine as it is.

    None for a limit means unlimited, which is also what the platform does outside the consumption plan. `bounds` are this
    host's own and come from two settings.
    """

    route_prefix: str = "api"
    max_outstanding_requests: int | None = None
    max_concurrent_requests: int | None = None
    function_timeout_s: float | None = None
    hub_name: str = "TestHubName"
    service_bus: ServiceBusOptions = field(default_factory=ServiceBusOptions)
    durable_task: Mapping[str, Any] = field(default_factory=dict)
    bounds: Bounds = field(default_factory=Bounds)


def read_host_config(app_dir: Path, environment: Mapping[str, str]) -> HostConfig:
    """host.json of the app, with `AzureFunctionsJobHost__a__b=value` settings laid over it.

    Raises HostError `host.bad_host_json` when the file is missing, not JSON or has a value of the wrong type, and
    `host.unsupported_setting` for bounds that are none.
    """
    path = app_dir / "host.json"
    if not path.is_file():
        raise HostError("host.bad_host_json", "the app has no host.json; every Functions app needs one", str(path))
    document = _read_json_object(path, "host.bad_host_json")
    _overlay(document, environment)
    extensions = _section(document, "extensions", path)
    http = _section(extensions, "http", path)
    durable = _section(extensions, "durableTask", path)
    prefix = http.get("routePrefix", "api")
    hub = durable.get("hubName", "TestHubName")
    if not isinstance(prefix, str) or not isinstance(hub, str):
        raise HostError("host.bad_host_json", "routePrefix and hubName must be strings", str(path))
    return HostConfig(
        route_prefix=prefix.strip("/"),
        max_outstanding_requests=_limit(http, "maxOutstandingRequests", path),
        max_concurrent_requests=_limit(http, "maxConcurrentRequests", path),
        function_timeout_s=_function_timeout_s(document, path),
        hub_name=expand_settings(hub, environment, where="host.json extensions.durableTask.hubName"),
        service_bus=_service_bus(_section(extensions, "serviceBus", path), path),
        durable_task=durable,
        bounds=_bounds(environment),
    )


def _limit(section: Mapping[str, Any], key: str, path: Path) -> int | None:
    """A positive number; absent or -1 is no limit."""
    text = str(section.get(key, -1))
    if text == "-1":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise HostError("host.bad_host_json", f"http.{key} must be a whole number of at least 1, or -1", str(path))
    return int(text)


def _bounds(environment: Mapping[str, str]) -> Bounds:
    defaults = Bounds()

    def number(name: str, default: int) -> int:
        text = environment.get(name, "").strip() or str(default)
        if not (text.isascii() and text.isdecimal()) or not 1 <= len(text) <= 9 or int(text) < 1:
            raise HostError("host.unsupported_setting", "must be a whole number of at least 1", name)
        return int(text)

    return Bounds(
        number(MAX_PENDING_STARTS, defaults.max_pending_starts),
        number(MAX_OPEN_ACTIVITIES, defaults.max_open_activities),
    )


def _function_timeout_s(document: Mapping[str, Any], path: Path) -> float | None:
    text = str(document.get("functionTimeout", "-1"))
    return None if text == "-1" else parse_timespan_s(text, where=str(path))


def _service_bus(section: Mapping[str, Any], path: Path) -> ServiceBusOptions:
    defaults = ServiceBusOptions()

    def number(key: str, default: int) -> int:
        value = section.get(key, default)
        if isinstance(value, str) and value.isdigit():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise HostError("host.bad_host_json", f"serviceBus.{key} must be a whole number of at least 1", str(path))
        return value

    auto_complete = section.get("autoCompleteMessages", True)
    return ServiceBusOptions(
        auto_complete=str(auto_complete).lower() != "false",
        max_concurrent_calls=number("maxConcurrentCalls", defaults.max_concurrent_calls),
        max_concurrent_sessions=number("maxConcurrentSessions", defaults.max_concurrent_sessions),
        max_batch_size=number("maxMessageBatchSize", defaults.max_batch_size),
        max_renewal_s=parse_timespan_s(str(section.get("maxAutoLockRenewalDuration", "00:05:00")), where=str(path)),
    )


def parse_timespan_s(text: str, *, where: str) -> float:
    """Seconds of a .NET TimeSpan `[d.]hh:mm:ss`. Raises HostError `host.bad_timespan`."""
    match = _TIMESPAN.match(text.strip())
    if match is None:
        raise HostError("host.bad_timespan", f"{text!r} is not a TimeSpan like 00:05:00", where)
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    if hours > 23 or minutes > 59 or seconds > 59:
        raise HostError("host.bad_timespan", f"{text!r} is not a TimeSpan like 00:05:00", where)
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def read_local_settings(app_dir: Path) -> dict[str, str]:
    """`Values` of local.settings.json, or of local.settings.sample.json when there is no such file.

    Raises HostError `host.bad_settings` for a broken or encrypted file; values are never quoted in the message.
    """
    for name in ("local.settings.json", "local.settings.sample.json"):
        path = app_dir / name
        if path.is_file():
            break
    else:
        return {}
    document = _read_json_object(path, "host.bad_settings")
    if document.get("IsEncrypted"):
        raise HostError("host.bad_settings", "the file is encrypted; run `func settings decrypt` first", str(path))
    values = document.get("Values", {})
    if not isinstance(values, dict):
        raise HostError("host.bad_settings", "`Values` must be an object", str(path))
    for key, value in values.items():
        if not isinstance(value, str):
            raise HostError("host.bad_settings", f"`Values.{key}` must be a string", str(path))
    return dict(values)


@contextmanager
def environment_of(values: Mapping[str, str]) -> Iterator[MutableMapping[str, str]]:
    """Puts `values` into the process environment where the name is not set yet, and takes them out again."""
    added = [name for name in values if name not in os.environ]
    os.environ.update({name: values[name] for name in added})
    try:
        yield os.environ
    finally:
        for name in added:
            os.environ.pop(name, None)


def expand_settings(text: str, environment: Mapping[str, str], *, where: str) -> str:
    """Replaces every `%NAME%` by the setting of that name. Raises HostError `host.missing_setting`."""

    def value_of(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in environment:
            raise HostError("host.missing_setting", f"the setting {name!r} is used in {text!r} but is not set", where)
        return environment[name]

    return _SETTING.sub(value_of, text)


def is_disabled(function_name: str, environment: Mapping[str, str]) -> bool:
    """True when `AzureWebJobs.<function>.Disabled` (or the `__` spelling Linux needs) is true or 1."""
    names = (
        f"AzureWebJobs.{function_name}.Disabled",
        f"AzureWebJobs__{function_name}__Disabled",
        f"AzureWebJobs_{function_name}_Disabled",
    )
    return any(environment.get(name, "").strip().lower() in {"1", "true"} for name in names)


def _read_json_object(path: Path, code: str) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as err:
        raise HostError(code, f"the file is not valid JSON: {err}", str(path)) from err
    if not isinstance(document, dict):
        raise HostError(code, "the file must hold a JSON object", str(path))
    return document


def _section(document: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    value = document.get(name, {})
    if not isinstance(value, dict):
        raise HostError("host.bad_host_json", f"`{name}` must be an object", str(path))
    return value


def _overlay(document: dict[str, Any], environment: Mapping[str, str]) -> None:
    for name, value in environment.items():
        if not name.startswith(_OVERRIDE_PREFIX):
            continue
        *parents, leaf = name.removeprefix(_OVERRIDE_PREFIX).split("__")
        target = document
        for parent in parents:
            child = target.setdefault(parent, {})
            if not isinstance(child, dict):
                raise HostError("host.bad_host_json", f"`{parent}` is not an object", name)
            target = child
        target[leaf] = value
