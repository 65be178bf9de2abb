"""The reports as Databricks jobs, through Databricks' own SDK, which is loaded by the first report (requirements-databricks.txt).

A report is a job that the operator has prepared: ``jobs`` names its id. It gets ``tenant_id``, ``from`` and ``to`` as parameters
and ends its (only) notebook task with ``dbutils.notebook.exit`` of JSON ``{"columns": [...], "rows": [[...]]}``. No text of a
caller becomes SQL or code anywhere. A call that is repeated, by another attempt too, finds the run that was started for its key,
also when nobody wrote down that it was: the token follows from the key. Only a run that ended without success is followed by
another, and there are never more runs than attempts. A call that is cancelled or out of time cancels its run; an agent that
is shut down leaves it to the next attempt.

The SDK makes its own HTTP connections, to the one address that the operator configured.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from agent_kit import CapabilityError, StepContext
from sample_agents.lakehouse.reports import Report, ReportInputs, bad_result, read_rows

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 10.0
REQUEST_TIMEOUT_S = 10
RETRIES_FOR_S = 20
_FIELDS = {"host", "jobs", "token_file"}
_LOOPBACK = ("127.0.0.1", "localhost")
_OURS_TO_REPEAT = frozenset(
    {"CLOUD_FAILURE", "INTERNAL_ERROR", "CLUSTER_ERROR", "DRIVER_ERROR", "WORKSPACE_RUN_LIMIT_EXCEEDED"}
)

T = TypeVar("T")
Pause = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class DatabricksSettings:
    """The workspace, the job of each report, and a token. Without one the SDK uses the machine's own Azure identity."""

    host: str
    jobs: Mapping[str, int]
    token: str | None = field(default=None, repr=False)


def read_settings(file: Path) -> DatabricksSettings:
    """Settings from a JSON file: ``host``, ``jobs`` (report to job id), ``token_file``. ``ValueError`` for others."""
    found = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or not {"host", "jobs"} <= found.keys() <= _FIELDS:
        raise ValueError(f"{file.name} must be a JSON object with host, jobs and perhaps token_file")
    parts = urlsplit(str(found["host"]))
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)):
        raise ValueError(f"{file.name}: host must be an https address")
    jobs = found["jobs"]
    if not isinstance(jobs, dict) or not all(type(job) is int and job > 0 for job in jobs.values()):
        raise ValueError(f"{file.name}: jobs must map reports to ids of jobs")
    token_file = found.get("token_file")
    token = Path(token_file).read_text(encoding="utf-8").strip() if token_file else None
    return DatabricksSettings(str(found["host"]), jobs, token)


class _UnsuccessfulRunError(CapabilityError):
    """The job's run is over, and brought nothing."""


class DatabricksEngine:
    """Implements ``ReportEngine``. ``pause`` waits between two looks at a run (seconds)."""

    def __init__(self, settings: DatabricksSettings, *, pause: Pause = asyncio.sleep) -> None:
        self._settings, self._pause = settings, pause
        self._client: Any = None

    async def run(self, inputs: ReportInputs, context: StepContext) -> Report:
        """See ``ReportEngine``. ``CapabilityError``: ``lakehouse.*``."""
        job = self._settings.jobs.get(inputs.report)
        if job is None:
            raise CapabilityError("lakehouse.no_job", "No job is configured for this report.")
        for earlier in range(context.request.attempt - 1):
            with suppress(_UnsuccessfulRunError):
                return await self._run(job, inputs, context, earlier)
        return await self._run(job, inputs, context, context.request.attempt - 1)

    async def _run(self, job: int, inputs: ReportInputs, context: StepContext, earlier: int) -> Report:
        """The report of the run that comes after ``earlier`` ones, started now unless it was before."""
        asked = _asked(inputs, context, earlier)
        starting = asyncio.ensure_future(self._ask(lambda jobs: jobs.run_now(job, **asked).response.run_id))
        try:
            run_id = await asyncio.shield(starting)
            task_id = await self._until_done(run_id, context)
        except asyncio.CancelledError:
            if not context.interrupted:
                # Whoever asked has gone: the run costs money and nobody will read its result.
                await asyncio.shield(self._cancel(starting))
            raise
        output = await self._ask(lambda jobs: jobs.get_run_output(task_id))
        return Report(_rows_of(output), "databricks", str(run_id))

    async def _until_done(self, run_id: int, context: StepContext) -> int:
        """Wait for the end of a run: the id of its task. Raises when it did not succeed."""
        pause_s = FIRST_PAUSE_S
        while True:
            run = await self._ask(lambda jobs: jobs.get_run(run_id))
            state = run.status.state.value if run.status is not None and run.status.state is not None else "UNKNOWN"
            if state == "TERMINATED":
                return _task_of(run)
            context.progress(message=f"the job is {state.lower()}")
            await self._pause(pause_s)
            pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)

    async def _cancel(self, starting: asyncio.Future[int]) -> None:
        with suppress(CapabilityError):
            run_id = await starting
            await self._ask(lambda jobs: jobs.cancel_run(run_id))

    async def _ask(self, work: Callable[[Any], T]) -> T:
        """One call of the SDK, in a thread, its errors as codes. Its words name addresses and are not passed on."""
        from databricks.sdk.errors import NotFound, PermissionDenied, Unauthenticated
        from databricks.sdk.errors.base import DatabricksError

        try:
            return await asyncio.to_thread(lambda: work(self._jobs()))
        except (PermissionDenied, Unauthenticated):
            raise CapabilityError("lakehouse.not_allowed", "Databricks does not let this agent do that.") from None
        except NotFound:
            raise CapabilityError("lakehouse.not_found", "Databricks knows no such job or run.") from None
        except (DatabricksError, OSError, TimeoutError, ValueError) as err:
            raise CapabilityError(
                "lakehouse.unavailable",
                f"Databricks cannot be used at the moment: {type(err).__name__}.",
                retryable=True,
            ) from None

    def _jobs(self) -> Any:
        if self._client is None:
            from databricks.sdk import WorkspaceClient
            from databricks.sdk.core import Config

            # Everything is named: the SDK would otherwise look for settings in the environment and in the home directory.
            token = self._settings.token
            who: dict[str, Any] = {"azure_use_msi": True, "auth_type": "azure-msi"}
            if token is not None:
                who = {"token": token, "auth_type": "pat"}
            who |= {"http_timeout_seconds": REQUEST_TIMEOUT_S, "retry_timeout_seconds": RETRIES_FOR_S}
            self._client = WorkspaceClient(config=Config(host=self._settings.host, **who))
        return self._client.jobs


def run_token(context: StepContext, earlier: int) -> str:
    """The token that makes a repeated start the same run: 64 characters, as long as the API takes. Without the attempt: who
    comes after an agent that died does not know what was started."""
    asked = f"{context.tenant_id}\n{context.request.idempotency_key}\n{earlier + 1}"
    return hashlib.sha256(asked.encode()).hexdigest()


def _asked(inputs: ReportInputs, context: StepContext, earlier: int) -> dict[str, Any]:
    parameters = {"tenant_id": context.tenant_id, "from": inputs.start.isoformat(), "to": inputs.end.isoformat()}
    return {"idempotency_token": run_token(context, earlier), "job_parameters": parameters}


def _task_of(run: Any) -> int:
    """The task of a run that succeeded. ``CapabilityError`` for one that did not, or that has not the agreed one task."""
    details = run.status.termination_details
    code = details.code.value if details is not None and details.code is not None else "UNKNOWN"
    if code == "SUCCESS":
        tasks = run.tasks or []
        if len(tasks) != 1:
            raise bad_result()
        return int(tasks[0].run_id)
    if code in ("CANCELED", "USER_CANCELED"):
        raise _UnsuccessfulRunError("lakehouse.job_cancelled", "Somebody cancelled the job's run in Databricks.")
    raise _UnsuccessfulRunError(
        "lakehouse.job_failed", f"The job's run ended with {code}.", retryable=code in _OURS_TO_REPEAT
    )


def _rows_of(output: Any) -> Any:
    notebook = output.notebook_output
    if notebook is None or notebook.result is None or notebook.truncated:
        raise bad_result()
    return read_rows(notebook.result.encode())
