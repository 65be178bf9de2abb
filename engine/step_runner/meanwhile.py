"""Steps that end elsewhere while their run is suspended: recorded when they end, and not when somebody resumes the run.

The scheduler of a suspended run looks at nothing until then. It finds the record, and takes from there what came of the step.
"""

from __future__ import annotations

import logging

from engine.domain.bus import Assignment
from engine.domain.errors import LivoaError
from engine.ports.deps import Deps
from engine.step_runner.perform import perform_step
from engine.step_runner.suspension import held
from engine.step_runner.task import StepTask

_LOG = logging.getLogger("livoa.bus")


async def record_meanwhile(assignment: Assignment, deps: Deps) -> bool:
    """Record what came of an assignment that has ended, if its run is suspended; whether it is.

    Whatever fails is logged, because others wait for theirs: the sweep comes by again, and whoever resumes the run looks as well.
    """
    try:
        run = await deps.runs.get(assignment.tenant_id, assignment.run_id)
        if run is None or held(run) is None:
            return False
        of = assignment.model_dump(include={"tenant_id", "run_id", "step_id", "item", "attempt"})
        await perform_step(StepTask.model_validate(of), deps)
    except Exception as err:
        code = err.code if isinstance(err, LivoaError) else type(err).__name__
        _LOG.warning("a step of a suspended run is not recorded yet", extra={"run_id": assignment.run_id, "code": code})
        return False
    return True
