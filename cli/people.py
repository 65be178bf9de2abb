"""What people are called whom the API knows by their directory's ids alone: shown beside the id, on this terminal only.

The platform keeps no names, so that none is in a record that cannot be erased. Two sources know some: the operator's own list
(``people.json`` in the data folder, or the file that ``LIVOA_PEOPLE`` names), and the development issuer, whose ids follow from
the names they were made of. Nothing is looked up elsewhere, and an id that neither knows stays an id.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path

from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.paths import home
from cli.render.text import one_line
from cli.tokens import DEFAULT_TENANT, DEFAULT_USER

SETTING = "LIVOA_PEOPLE"
FILE = "people.json"
MAX_BYTES = 4 * 1024 * 1024
DEVELOPMENT_USERS = (DEFAULT_USER, "ben", "audra")
"""Whom commands speak as on one machine unless another user is named."""
_MAX_NAME_CHARS = 60


class People:
    """Names by id: the whole subject (``DIRECTORY:OBJECT``) or the object id alone."""

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self._names = dict(names or {})

    def shown(self, subject: str, whole: str | None = None) -> str:
        """The id, with the name beside it where one is known: ``4f7c… (ana)``. ``whole`` is the subject of a shorter id."""
        subject, whole = one_line(subject), whole or subject
        name = self._names.get(whole) or self._names.get(whole.rpartition(":")[2])
        return f"{subject} ({one_line(name, _MAX_NAME_CHARS)})" if name else subject


def people_of(options: argparse.Namespace) -> People:
    """Those that are known on this machine. Raises CliError (USAGE) for a list that cannot be read as one."""
    from engine.identity.development import subject_of

    tenant = options.tenant or DEFAULT_TENANT
    users = {*DEVELOPMENT_USERS, *([options.user] if options.user else [])}
    return People({subject_of(tenant, user): user for user in users} | _listed(options.data))


def _listed(data: Path | None) -> dict[str, str]:
    named = os.environ.get(SETTING)
    file = Path(named) if named else home(data) / FILE
    try:
        with file.open("rb") as lines:
            text = lines.read(MAX_BYTES + 1)
    except FileNotFoundError as err:
        if not named:
            return {}
        raise _unusable(file, "no such file") from err
    except OSError as err:
        raise _unusable(file, err.strerror or "cannot be read") from err
    try:
        found = json.loads(text) if len(text) <= MAX_BYTES else None
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise _unusable(file, 'it must be one JSON object, {"OBJECT ID": "NAME"}')
    return found


def _unusable(file: Path, why: str) -> CliError:
    return CliError(f"the list of people {file}: {why}", exit_code=ExitCode.USAGE, code="cli.people")
