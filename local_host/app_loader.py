"""Imports an app the way the platform's Python worker does, and takes it out of the process again.

Several apps can be loaded one after another in one process (tests do that), never two at once: classes in durable
payloads are found through `sys.modules` by name, so two apps with a module of the same name could not be told apart.
The alternative, a process per app, is what `python -m local_host` is; inside tests it would hide coverage,
injected clocks and debugger. What cannot be undone is what an app does to other packages while it is imported.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import azure.functions as func

from local_host.errors import HostError

_ONE_APP = threading.Lock()
_HTTP_EXTENSION = "azurefunctions.extensions.http"


@dataclass(frozen=True, slots=True)
class HttpExtension:
    """The app imported a web extension, which turns every HTTP function of the app to that framework's types.

    `web_app_type` is the extension's WebApp class (`route(handler)`, `get_app()` → ASGI app), `request_type` the
    class handlers receive, `synchronizer` copies route values into a request.
    """

    web_app_type: type[Any]
    request_type: type[Any]
    synchronizer: Any


@dataclass(frozen=True, slots=True)
class LoadedApp:
    """A freshly imported app: its directory, script module, function register and web extension."""

    app_dir: Path
    module: ModuleType
    register: Any
    http_extension: HttpExtension | None


@contextmanager
def load_app(app_dir: Path, environment: Mapping[str, str]) -> Iterator[LoadedApp]:
    """Import the app in `app_dir` and unload it at exit.

    The script file is `function_app.py` or the setting PYTHON_SCRIPT_FILE_NAME. Raises HostError:
    `host.app_not_found`, `host.app_import_failed` (with the app's own exception as cause), `host.no_function_app`,
    `host.two_function_apps`, `host.app_already_loaded`.
    """
    app_dir = app_dir.resolve()
    script = app_dir / environment.get("PYTHON_SCRIPT_FILE_NAME", "function_app.py")
    if not script.is_file():
        raise HostError("host.app_not_found", "no such script file; is this a Functions app (v2 model)?", str(script))
    if not _ONE_APP.acquire(blocking=False):
        raise HostError("host.app_already_loaded", "this process already runs an app; stop it first", str(app_dir))
    try:
        with _importable(app_dir) as belongs_to_process:
            before = set(sys.modules)
            try:
                yield _import(app_dir, script)
            finally:
                _unload(app_dir, script.stem, before, keep_packages=belongs_to_process)
    finally:
        _ONE_APP.release()


async def end_lifespan(app: LoadedApp) -> None:
    """Tell the web app inside an AsgiFunctionApp that it ends; the SDK would do it in `__del__`, where no loop runs."""
    if getattr(app.register, "startup_task_done", False):
        app.register.startup_task_done = False
        await app.register.middleware.notify_shutdown()


@contextmanager
def _importable(app_dir: Path) -> Iterator[bool]:
    """Put the app first on sys.path; yields True when the process could import from there anyway."""
    known = any(Path(entry or ".").resolve() == app_dir for entry in sys.path if entry is not None)
    sys.path.insert(0, str(app_dir))
    importlib.invalidate_caches()
    try:
        yield known
    finally:
        sys.path.remove(str(app_dir))


def _import(app_dir: Path, script: Path) -> LoadedApp:
    _forget_http_extension()
    sys.modules.pop(script.stem, None)
    try:
        module = importlib.import_module(script.stem)
    except Exception as err:
        message = f"importing the app raised {type(err).__name__}: {err}"
        raise HostError("host.app_import_failed", message, str(script)) from err
    if module.__file__ is None or Path(module.__file__).resolve() != script:
        raise HostError(
            "host.app_import_failed", f"another module of this name was found: {module.__file__}", str(script)
        )
    return LoadedApp(app_dir, module, _single_register(module, script), _http_extension())


def _single_register(module: ModuleType, script: Path) -> Any:
    registers = {id(value): name for name, value in vars(module).items() if isinstance(value, func.FunctionRegister)}
    if not registers:
        raise HostError("host.no_function_app", "no FunctionApp at module level", str(script))
    if len(registers) > 1:
        names = ", ".join(sorted(registers.values()))
        raise HostError("host.two_function_apps", f"more than one FunctionApp at module level: {names}", str(script))
    return getattr(module, next(iter(registers.values())))


def _forget_http_extension() -> None:
    """Reset the extension's process-wide switch, so that one app's choice does not reach the next app."""
    base = sys.modules.get("azurefunctions.extensions.base")
    if base is not None:
        # The switch has no public reset: the real worker never loads a second app.
        base.ModuleTrackerMeta._module = None
    for name in [name for name in sys.modules if name == _HTTP_EXTENSION or name.startswith(_HTTP_EXTENSION + ".")]:
        del sys.modules[name]


def _http_extension() -> HttpExtension | None:
    base = sys.modules.get("azurefunctions.extensions.base")
    if base is None or not base.HttpV2FeatureChecker.http_v2_enabled():
        return None
    module = sys.modules[base.ModuleTrackerMeta.get_module()]
    return HttpExtension(
        web_app_type=module.WebApp,
        request_type=base.RequestTrackerMeta.get_request_type(),
        synchronizer=base.RequestTrackerMeta.get_synchronizer(),
    )


def _unload(app_dir: Path, script_module: str, before: set[str], *, keep_packages: bool) -> None:
    """Drop the app's modules.

    With `keep_packages` (the app directory is the process's own, as when this repository runs its own app) only the
    script goes: other code of the process holds classes of the packages beside it, and a second copy of a class is
    another class.
    """
    sys.modules.pop(script_module, None)
    if keep_packages:
        return
    for name, module in list(sys.modules.items()):
        if name not in before and _is_inside(module, app_dir):
            del sys.modules[name]


def _is_inside(module: ModuleType, app_dir: Path) -> bool:
    try:
        origin = inspect.getfile(module)
    except TypeError:  # built in, or a namespace package
        paths = [str(path) for path in getattr(module, "__path__", [])]
        return bool(paths) and all(Path(path).resolve().is_relative_to(app_dir) for path in paths)
    path = Path(origin).resolve()
    return path.is_relative_to(app_dir) and "site-packages" not in path.parts
