"""Turns the SDK's function objects into `FunctionSpec`s, refusing at start what the platform would refuse at load.

Deliberately strict: an unknown trigger or a binding without a parameter is an error with the function's name, not
something to discover at the first request. A function can be switched off with `AzureWebJobs.<name>.Disabled`.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import azure.functions as func
from azure.functions.meta import get_binding_registry

from local_host.app_loader import HttpExtension, LoadedApp
from local_host.errors import HostError
from local_host.ncrontab import parse_schedule
from local_host.settings import expand_settings, is_disabled
from local_host.specs import (
    ActivityTrigger,
    AuthLevel,
    Cardinality,
    ClientInput,
    EntityTrigger,
    FunctionSpec,
    HttpTrigger,
    OrchestrationTrigger,
    QueueOutput,
    QueueTrigger,
    TimerTrigger,
    Trigger,
)

_SUPPORTED = "httpTrigger, timerTrigger, serviceBusTrigger, orchestrationTrigger, activityTrigger, entityTrigger"
_OUT = 1
Environment = Mapping[str, str]


def index_app(app: LoadedApp, environment: Environment) -> tuple[FunctionSpec, ...]:
    """The app's enabled functions in declaration order.

    Calls `get_functions()` exactly once (a second call raises inside the SDK). Raises HostError
    `host.bad_function` (the SDK refused), `host.unsupported_binding`, `host.binding_mismatch`,
    `host.duplicate_name`, `host.missing_setting`, `host.bad_schedule`.
    """
    try:
        functions = app.register.get_functions()
    except Exception as err:
        raise HostError("host.bad_function", f"the SDK refused the app: {err}", str(app.module.__file__)) from err
    enabled = [function for function in functions if not is_disabled(function.get_function_name(), environment)]
    specs = tuple(_Indexer(function, environment, app.http_extension).spec() for function in enabled)
    _refuse_duplicate_durable_names(specs)
    return specs


def _refuse_duplicate_durable_names(specs: tuple[FunctionSpec, ...]) -> None:
    seen: dict[tuple[type, str], str] = {}
    for spec in specs:
        if isinstance(spec.trigger, OrchestrationTrigger | ActivityTrigger | EntityTrigger):
            key = (type(spec.trigger), spec.trigger.durable_name.lower())
            if key in seen:
                message = f"{seen[key]!r} and {spec.name!r} register the same durable name {key[1]!r}"
                raise HostError("host.duplicate_name", message, spec.name)
            seen[key] = spec.name


class _Indexer:
    """One function's way from SDK object to spec."""

    def __init__(self, function: Any, environment: Environment, extension: HttpExtension | None) -> None:
        self._function = function
        self._environment = environment
        self._extension = extension
        self._name: str = function.get_function_name()
        self._call: Callable[..., Any] = function.get_user_function()

    def spec(self) -> FunctionSpec:
        bound = FunctionSpec(
            name=self._name,
            python_name=getattr(self._call, "__name__", self._name),
            call=self._call,
            is_async=inspect.iscoroutinefunction(self._call),
            trigger=self._trigger(),
            retry_configured=self._function.get_settings_dict("retry_policy") is not None,
        )
        for binding in self._function.get_bindings():
            if binding is not self._function.get_trigger():
                bound = self._with_binding(bound, binding)
        if isinstance(bound.trigger, OrchestrationTrigger | EntityTrigger):
            return bound  # the SDK's wrapper takes one positional `context`, whatever the binding is called
        return self._checked_signature(bound)

    # -- triggers

    def _trigger(self) -> Trigger:
        trigger = self._function.get_trigger()
        match trigger.type:
            case "httpTrigger":
                return self._http(trigger)
            case "timerTrigger":
                return self._timer(trigger)
            case "serviceBusTrigger":
                return QueueTrigger(
                    param=trigger.name,
                    entity=self._entity(trigger),
                    sessions=bool(getattr(trigger, "is_sessions_enabled", False)),
                    cardinality=Cardinality(_enum_name(getattr(trigger, "cardinality", None)) or "ONE"),
                )
            case "orchestrationTrigger":
                return OrchestrationTrigger(trigger.name, getattr(trigger, "orchestration", None) or self._name)
            case "activityTrigger":
                return ActivityTrigger(trigger.name, getattr(trigger, "activity", None) or self._name)
            case "entityTrigger":
                return EntityTrigger(trigger.name, getattr(trigger, "entity_name", None) or self._name)
            case other:
                message = (
                    f"trigger {other!r} is not served by this host (served: {_SUPPORTED}); "
                    f"set AzureWebJobs.{self._name}.Disabled=1 to run the app without it"
                )
                raise HostError("host.unsupported_binding", message, self._name)

    def _http(self, trigger: Any) -> HttpTrigger:
        methods = getattr(trigger, "methods", None)
        names = frozenset(_enum_name(method) or "" for method in methods) if methods is not None else None
        route = self._expand(str(trigger.route)).strip("/")
        if route.split("/")[0].lower() in {"admin", "runtime"}:
            raise HostError("host.bad_route", f"route {route!r} begins with a reserved word", self._name)
        return HttpTrigger(
            param=trigger.name,
            route=route,
            methods=names,
            auth_level=AuthLevel(_enum_name(getattr(trigger, "auth_level", None)) or "FUNCTION"),
            returns_http=any(b.type == "http" and b.direction == _OUT for b in self._function.get_bindings()),
        )

    def _timer(self, trigger: Any) -> TimerTrigger:
        schedule = self._expand(str(trigger.schedule))
        parse_schedule(schedule, where=self._name)
        return TimerTrigger(
            param=trigger.name,
            schedule=schedule,
            run_on_startup=bool(getattr(trigger, "run_on_startup", None)),
            use_monitor=getattr(trigger, "use_monitor", None) is not False,
        )

    # -- other bindings

    def _with_binding(self, spec: FunctionSpec, binding: Any) -> FunctionSpec:
        match binding.type, binding.direction:
            case "durableClient", _:
                hub = getattr(binding, "task_hub", None)
                client = ClientInput(binding.name, self._expand(hub) if hub else None)
                return replace(spec, clients=(*spec.clients, client))
            case "serviceBus", 1:
                output = QueueOutput(
                    binding.name, self._entity(binding), is_topic=not getattr(binding, "queue_name", None)
                )
                return replace(spec, outputs=(*spec.outputs, output))
            case "http", 1 if binding.name == "$return":
                return spec
            case other, _:
                raise HostError(
                    "host.unsupported_binding",
                    f"binding {other!r} ({binding.name}) is not served by "
                    "this host (served: durableClient, serviceBus output, http return)",
                    self._name,
                )

    def _entity(self, binding: Any) -> str:
        queue = getattr(binding, "queue_name", None)
        if queue:
            return self._expand(queue)
        topic = self._expand(str(binding.topic_name))
        subscription = getattr(binding, "subscription_name", None)
        if subscription and binding.direction != _OUT:
            return f"{topic}/Subscriptions/{self._expand(subscription)}"
        return topic

    def _expand(self, text: str) -> str:
        return expand_settings(text, self._environment, where=self._name)

    # -- signature (the checks the Python worker makes when it loads a function)

    def _checked_signature(self, spec: FunctionSpec) -> FunctionSpec:
        parameters = inspect.signature(spec.call).parameters
        bindings = {binding.name for binding in self._function.get_bindings()} - {"$return"}
        wants_context = "context" in parameters and "context" not in bindings
        names = set(parameters) - ({"context"} if wants_context else set())
        if names != bindings:
            message = (
                f"parameters and bindings differ: without binding {sorted(names - bindings)}, "
                f"without parameter {sorted(bindings - names)}"
            )
            raise HostError("host.binding_mismatch", message, self._name)
        if spec.clients and not inspect.iscoroutinefunction(inspect.unwrap(spec.call)):
            raise HostError("host.binding_mismatch", "a function with a durable client must be `async def`", self._name)
        annotations = self._annotations(spec)
        for output in spec.outputs:
            if output.param != "$return" and not _is_out(annotations.get(output.param)):
                message = f"output parameter {output.param!r} must be annotated func.Out[...]"
                raise HostError("host.binding_mismatch", message, self._name)
        annotation = annotations.get(spec.trigger.param)
        return replace(spec, wants_context=wants_context, pass_through=self._check_trigger(spec, annotation))

    def _annotations(self, spec: FunctionSpec) -> dict[str, Any]:
        try:
            return typing.get_type_hints(spec.call)
        except (NameError, TypeError):
            # Names imported only for type checking: unresolvable here as in the worker, which then skips the checks.
            return {}

    def _check_trigger(self, spec: FunctionSpec, annotation: Any) -> type[str] | type[bytes] | None:
        if annotation is None or isinstance(spec.trigger, ActivityTrigger):
            return None
        if isinstance(spec.trigger, HttpTrigger) and self._extension is not None:
            expected: type[Any] = self._extension.request_type
            ok = isinstance(annotation, type) and issubclass(annotation, expected)
        elif annotation is str or annotation is bytes:
            # The worker hands the raw datum to such a parameter; an HTTP request has no raw form.
            if not isinstance(spec.trigger, HttpTrigger):
                return annotation
            ok = False
        else:
            ok = _converter_accepts(self._function.get_trigger().type, annotation)
        if not ok:
            message = f"annotation {annotation!r} of {spec.trigger.param!r} does not fit the trigger"
            raise HostError("host.binding_mismatch", message, self._name)
        return None


def _converter_accepts(binding_type: str, annotation: Any) -> bool:
    try:
        registry = get_binding_registry()  # type: ignore[no-untyped-call]  # the SDK ships no annotation for it
        return bool(registry.get(binding_type).check_input_type_annotation(annotation))
    except TypeError:  # not a class: the SDK's check uses issubclass
        return False


def _is_out(annotation: Any) -> bool:
    return annotation is None or (typing.get_origin(annotation) or annotation) is func.Out


def _enum_name(value: Any) -> str | None:
    """`GET` of HttpMethod.GET or of the plain string `get`."""
    if value is None:
        return None
    return str(getattr(value, "name", value)).upper()
