"""What the API refused, in words, and what can be done about it: the command that helps, with the run and options it needs."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from urllib.parse import unquote

from cli.errors import CliError
from cli.exit_codes import ExitCode
from cli.paths import known_tenants


@dataclass(frozen=True, slots=True)
class Place:
    """Where a refusal comes from. ``run_id`` is the run it is about, ``again`` are the options that lead a further command to the
    same host, with a space before each."""

    url: str
    run_id: str = "RUN"
    again: str = ""


def run_named_in(path: str) -> str:
    """The run that a path of the API is about, quoted for a shell; ``RUN`` when it is about none."""
    _, _, rest = path.partition("/api/runs/")
    return shlex.quote(unquote(rest.split("/")[0])) if rest else "RUN"


_HINTS = {
    400: "change what is named above and send it again",
    401: "the host does not accept this token: use the data folder the host uses (--data or LIVOA_HOME), or set LIVOA_TOKEN",
    403: "use a token with the role: ./livoa token --role ROLE, handed over as LIVOA_TOKEN",
    404: "./livoa runs~ lists the runs you may see; --tenant chooses another tenant",
    412: "read it again: somebody else has changed it meanwhile",
    422: "change what is named above and send it again",
    413: "put less into the request; a request holds at most 4 MiB",
    503: "try again in a few seconds; logs/host.log in the data folder tells more",
}


def _known_tenants() -> str:
    names = ", ".join(known_tenants())
    return f"choose a tenant with --tenant; the catalog here has {names}" if names else _HINTS[401]


_SOMEBODY_ELSE = "somebody else has to answer: --as NAME chooses another development user"
_ITS_STEPS = "./livoa show RUN~ lists its steps"
_MARKS = re.compile(r"(\bRUN\b|~)")
"""Stand in hints for the run and for the options of the connection."""
_HINTS_OF_CODES = {
    "approval.app_only": _SOMEBODY_ELSE,
    "approval.closed": "./livoa approvals RUN~ shows what became of it",
    "approval.not_found": "./livoa approvals~ lists what waits for an answer",
    "approval.self": _SOMEBODY_ELSE,
    "audit.no_such_content": "./livoa audit show RUN~ lists the hashes",
    "auth.tenant_suspended": "only the operator lets it go on: a higher version in catalog/tenants/TENANT.yaml, docs/tenants.md",
    "idempotency.in_flight": "the same request is being taken at this moment: send it again in a few seconds",
    "idempotency.mismatch": "this key has made a run of another request: take another --idempotency-key, or leave it out; to see "
    "the run of the first request, send that one again",
    "run.erased": "./livoa audit show RUN~ has what is left: its audit records",
    "run.finished": "./livoa show RUN~ has its end, ./livoa rerun RUN~ does it again",
    "run.cancelling": "./livoa events RUN --follow~ shows it end, ./livoa terminate RUN~ ends it at once",
    "run.not_suspended": "./livoa show RUN~ has where it stands, ./livoa suspend RUN~ holds it",
    "run.no_plan": './livoa show RUN~ has the reason; ./livoa run "…"~ submits it again',
    "run.not_finished": "./livoa cancel RUN~ asks it to stop, ./livoa terminate RUN~ ends it at once",
    "step.no_output": _ITS_STEPS,
    "step.unknown": _ITS_STEPS,
    "tenants.invalid": "mend what is named, or remove a file that is no page; pages are read again within two seconds",
}


_LIMITS_OF_A_RUN = {"plan.too_many_steps": "--max-steps", "plan.wall_time": "--deadline"}
"""Faults of a plan that an option of the run may be the reason of, and that option."""
_LIMITS_OF_A_TENANT = frozenset({"plan.capability_not_enabled", "plan.cost", "plan.depth", "plan.fan_out"})
"""Faults of a plan that the tenant's configuration is the reason of. That is not always the page in the catalog."""


def _of_the_plan(codes: set[str]) -> str:
    """What helps with a plan that has these faults."""
    options = [option for code, option in _LIMITS_OF_A_RUN.items() if code in codes]
    if not options and not codes & _LIMITS_OF_A_TENANT:
        return "./livoa plan check FILE~ tells the same without a host"
    shown = "./livoa tenant show~ has what the tenant allows"
    return f"{shown}; the run may have asked for less with {' or '.join(options)}" if options else shown


def _hint_for(code: str, status: int, codes: set[str], place: Place) -> str:
    if code == "auth.tenant_unknown":
        return _known_tenants()
    hint = _of_the_plan(codes) if code == "plan.invalid" else _HINTS_OF_CODES.get(code) or _HINTS.get(status, "")
    # The marks go first: what takes their place may hold either.
    return "".join({"RUN": place.run_id, "~": place.again}.get(part, part) for part in _MARKS.split(hint))


def problem_of(status: int, data: bytes, place: Place) -> CliError:
    """The CliError for a problem document (RFC 9457), or for whatever else came with an error status."""
    try:
        body = json.loads(data)
    except ValueError:
        body = None
    if not isinstance(body, dict) or "code" not in body:
        return CliError(
            f"{place.url} answered {status} without a problem document",
            hint="is something else listening there? Check LIVOA_URL",
            exit_code=ExitCode.FORBIDDEN if status in {401, 403} else ExitCode.FAILED,
            code=f"http.{status}",
        )
    errors = [entry for entry in body.get("errors", ()) if isinstance(entry, dict)]
    details = [f"{e.get('pointer') or '/'}  {e.get('code', '')}: {e.get('message', '')}" for e in errors]
    if body.get("incident"):
        details.append(f"incident {body['incident']}")
    return CliError(
        f"{body.get('detail') or body.get('title')} ({body['code']}, HTTP {status})",
        hint=_hint_for(str(body["code"]), status, {str(e.get("code")) for e in errors}, place),
        exit_code=ExitCode.FORBIDDEN if status in {401, 403} else ExitCode.FAILED,
        code=str(body["code"]),
        details=tuple(details),
    )
