"""Finding a question by what is asked: its id is the same however often, and says nothing once the run's key is gone. And putting
on record the questions that nobody can answer any more.
"""

from __future__ import annotations

from engine.domain.approval import Approval, ApprovalBinding, ApprovalStatus, approval_id_of, asked_sha256
from engine.evidence.approvals import approval_entry
from engine.ports.deps import Deps


async def known_question(
    tenant_id: str, run_id: str, binding: ApprovalBinding, deps: Deps
) -> tuple[str, Approval | None]:
    """The id of the question, and the question itself where it was asked before. Raises as ``Commitments.get`` does."""
    asked = asked_sha256(run_id, binding)
    commitment = (await deps.commitments.get(tenant_id, run_id)).name(asked)
    # Versions before this one named questions by the hash itself: what they asked is not asked a second time.
    for approval_id in dict.fromkeys((approval_id_of(commitment), approval_id_of(asked))):
        if (known := await deps.approvals.get(tenant_id, run_id, approval_id)) is not None:
            return approval_id, known
    return approval_id_of(commitment), None


async def record_voided(tenant_id: str, run_id: str, deps: Deps) -> None:
    """Put on record which approvals of the run are void, whatever made them so: another question, or the run's end.

    From the store and not from what a write answered: whoever died between the two is made good by the next who looks.
    """
    for approval in await deps.approvals.of_run(tenant_id, run_id):
        if approval.status is ApprovalStatus.VOID:
            await deps.audit.append(approval_entry(approval))
