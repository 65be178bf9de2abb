"""`./livoa tenant`: the configuration of one's own tenant, for its admin: show it, narrow it, see who changed it.

What widens it is the operator's: the pages in catalog/tenants.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from cli.client import Api
from cli.connection import add_options, connect
from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.output import print_json, progress, say
from cli.tokens import DEFAULT_TENANT

EXAMPLE = """
  ./livoa tenant show --tenant contoso
  ./livoa tenant set bounds.max_steps=50 'enabled_capabilities=["rag.search"]' --tenant contoso
  ./livoa tenant set status=suspended --tenant contoso
  ./livoa tenant set --file contoso.json --tenant contoso
  ./livoa tenant versions --json

A value is JSON, or text where it is no JSON. A tenant that has suspended itself is let go on by the operator.
"""
_ROLES = ("Tenants.Admin",)


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `tenant`."""
    parser.add_argument("action", choices=["show", "set", "versions"], help="what to do")
    parser.add_argument(
        "changes", nargs="*", metavar="FIELD=VALUE", help="with set: fields to replace, dots lead inside"
    )
    parser.add_argument("--file", type=Path, help="with set: the whole configuration as JSON")
    parser.add_argument("--limit", type=int, default=20, help="with versions: how many (20, at most 100)")
    parser.add_argument("--below", type=int, help="with versions: go on below this number")
    add_options(parser)


def run(options: argparse.Namespace) -> ExitCode:
    """Show, change or look back."""
    if options.action != "set" and (options.changes or options.file):
        raise _usage(
            f"`tenant {options.action}` takes no changes", "--tenant chooses another tenant, ./livoa tenant set changes"
        )
    api, tenant = connect(options, _ROLES), options.tenant or DEFAULT_TENANT
    match options.action:
        case "versions":
            _versions(api, tenant, options)
        case "set":
            before, config = _set(api, tenant, options)
            if options.json:
                print_json(config)
                return ExitCode.OK
            for line in _differences(before, config):
                say(line)
            progress(f"version {config['version']} holds now; other hosts see it within seconds")
        case _:
            _show(api.tenant(tenant)[0], as_json=options.json)
    return ExitCode.OK


def _set(api: Api, tenant: str, options: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration as it was and as it is."""
    if bool(options.changes) == bool(options.file):
        raise _usage("say what to change: either FIELD=VALUE or --file", "./livoa tenant --help shows examples")
    pairs = [_pair(text) for text in options.changes]
    written = _read(options.file) if options.file else None
    config, tag = api.tenant(tenant)
    wanted = written if written is not None else deepcopy(config)
    for path, value in pairs:
        _replace(wanted, path, value)
    return config, api.set_tenant(tenant, wanted, tag)


def _differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """A line for each field that is another one now; its version is told apart."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after} - ({"version"} if not path else set())):
            yield from _differences(before.get(name), after.get(name), f"{path}.{name}" if path else name)
    elif before != after:
        yield f"{path}  {_json(before)} → {_json(after)}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True)


def _pair(text: str) -> tuple[list[str], Any]:
    path, equals, value = text.partition("=")
    if not equals or not all(path.split(".")):
        raise _usage(f"{text!r} is no change", "write FIELD=VALUE, for instance bounds.max_steps=50")
    try:
        return path.split("."), json.loads(value)
    except ValueError:
        return path.split("."), value


def _replace(config: dict[str, Any], path: list[str], value: Any) -> None:
    place = config
    for name in path[:-1]:
        inside = place.setdefault(name, {})
        if not isinstance(inside, dict):
            raise _usage(f"{'.'.join(path)}: {name} has no fields", "./livoa tenant show shows the configuration")
        place = inside
    place[path[-1]] = value


def _read(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except OSError as err:
        raise CliError(f"cannot read {file}: {err.strerror}", exit_code=ExitCode.USAGE, code="cli.file") from err
    except ValueError as err:
        raise CliError(f"{file} is not JSON: {err}", exit_code=ExitCode.USAGE, code="cli.file") from err
    if not isinstance(value, dict):
        raise CliError(f"{file} holds no JSON object", exit_code=ExitCode.USAGE, code="cli.file")
    return value


def _show(config: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(config)
    else:
        say(json.dumps(config, ensure_ascii=True, indent=2))


def _versions(api: Api, tenant: str, options: argparse.Namespace) -> None:
    page = api.tenant_versions(tenant, limit=options.limit, below=options.below)
    if options.json:
        print_json(page)
        return
    for entry in page["versions"]:
        say(f"{entry['version']:>6}  {entry['changed_at']}  {entry['sha256'][:16]}  {ascii(entry['changed_by'])[1:-1]}")
    progress(f"the operator's page has version {page['operator_version']}")
    if page["next_below"]:
        progress(f"more: --below {page['next_below']}")


def _usage(message: str, hint: str) -> CliError:
    return CliError(message, hint=hint, exit_code=ExitCode.USAGE, code="cli.usage")
