"""Words about the endpoints of runs: submitting, looking, steering, approving, and plans before there is a run."""

from __future__ import annotations

from engine.domain.run import RunRequest
from engine.domain.status import RunStatus
from triggers import api_examples as examples
from triggers.api_words import (
    IDEMPOTENCY_KEY,
    JSON,
    JSON_BODY,
    LIMIT,
    NO_RUN,
    POLL,
    SSE,
    WITHIN,
    Answer,
    Doc,
    header,
    in_json,
    query,
    ref,
)
from triggers.approval_views import AnswerRequest, ApprovalList, ApprovalView, PendingApprovals
from triggers.http_control import ResumeRequest
from triggers.http_links import Link, LinkRequest
from triggers.http_rerun import RerunRequest
from triggers.plan_views import PlanPreview, RouteView
from triggers.views import (
    Accepted,
    DurableStatus,
    EventPage,
    PlanView,
    RunCountsView,
    RunList,
    RunSummary,
    RunView,
    StepList,
)

RUN_DOCS: dict[str, Doc] = {
    "submit_run": Doc(
        "Submit an intent; the run is planned and executed in the background.",
        {202: in_json("Accepted.", Accepted, examples.ACCEPTED, POLL)},
        (IDEMPOTENCY_KEY,),
        (ref(RunRequest), examples.RUN_REQUEST),
        (
            JSON_BODY,
            {
                400: ("idempotency.key_invalid",),
                409: ("idempotency.in_flight",),
                422: ("request.invalid", "plan.invalid", "idempotency.mismatch"),
                429: ("quota.submissions",),
                503: ("audit.unavailable", "engine.unavailable"),
            },
        ),
    ),
    "list_runs": Doc(
        "List runs, newest first. Without the role Runs.Read the caller's own only; pages can then be short.",
        {200: in_json("A page.", RunList, examples.RUN_LIST)},
        (
            query("status", "Only runs of this status.", {"enum": [status.value for status in RunStatus]}),
            *WITHIN,
            query("cursor", "next_cursor of the page before, with the same filters.", {"type": "string"}),
            query("limit", "Runs a page.", LIMIT | {"maximum": 200, "default": 50}),
        ),
        refusals=({400: ("query.invalid", "cursor.invalid")},),
    ),
    "count_runs": Doc(
        "How many runs of the tenant stand where; of at most 10,000, the newest.",
        {200: in_json("The counts.", RunCountsView, examples.RUN_COUNTS)},
        WITHIN,
        refusals=({400: ("query.invalid",)},),
    ),
    "get_run": Doc(
        "One run, with its answer once there is one.",
        {200: in_json("The run.", RunView, examples.RUN_VIEW)},
        refusals=(NO_RUN,),
    ),
    "get_run_status": Doc(
        "A run in the status-query shape of durable functions; the exact status is in customStatus.status.",
        {
            200: in_json("The run is over.", DurableStatus, examples.STATUS_DONE),
            202: in_json("The run is going on.", DurableStatus, examples.STATUS_RUNNING, POLL),
        },
        refusals=(NO_RUN,),
    ),
    "get_run_plan": Doc(
        "The checked plan of a run.",
        {200: in_json("The plan.", PlanView, examples.PLAN_VIEW, ("ETag",))},
        refusals=({404: ("run.not_found", "plan.not_found")},),
    ),
    "list_run_steps": Doc(
        "Every step of a run's plan, in its order; empty before there is a plan.",
        {200: in_json("The steps.", StepList, examples.STEP_LIST)},
        refusals=(NO_RUN,),
    ),
    "get_step_output": Doc(
        "The output of a step that succeeded, or of one item of a for_each step.",
        {200: Answer("The output.", {JSON: ({}, examples.STEP_OUTPUT)}, ("ETag",))},
        (query("item", "Which item, from 0.", {"type": "integer", "minimum": 0, "maximum": 9_999}),),
        refusals=(NO_RUN, {400: ("query.invalid",), 409: ("step.no_output",), 422: ("step.unknown",)}),
    ),
    "list_run_events": Doc(
        "The event log: server-sent events, or a page of JSON with Accept: application/json. Streams end after a while; "
        "resume with Last-Event-ID.",
        {
            200: Answer(
                "Events.",
                {SSE: ({"type": "string"}, examples.EVENT_STREAM), JSON: (ref(EventPage), examples.EVENT_PAGE)},
            ),
            204: Answer("Server-sent events only: the log has ended and was read to its end; do not come back."),
        },
        (
            header("Last-Event-ID", "Go on after this event; wins over after.", {"type": "integer", "minimum": 0}),
            query("after", "Go on after this event.", {"type": "integer", "minimum": 0, "default": 0}),
            query("limit", "Events a page.", LIMIT | {"maximum": 500, "default": 500}),
            query("wait_s", "JSON only: wait this long for an event.", {"type": "integer", "minimum": 0}),
        ),
        refusals=(NO_RUN, {400: ("query.invalid", "events.position_invalid")}),
    ),
    "cancel_run": Doc(
        "Cancel a run: no new steps, and it ends cancelled with what it has. Asking again changes nothing.",
        {202: in_json("The run is being cancelled.", RunSummary, examples.CANCELLING, POLL)},
        refusals=(NO_RUN, {409: ("run.finished",), 503: ("audit.unavailable", "engine.unavailable")}),
    ),
    "suspend_run": Doc(
        "Suspend a run: what has begun ends, nothing starts, its deadline holds. Asking again changes nothing.",
        {202: in_json("The run is suspended.", RunSummary, examples.SUSPENDED)},
        refusals=(NO_RUN, {409: ("run.finished", "run.cancelling"), 503: ("audit.unavailable",)}),
    ),
    "resume_run": Doc(
        "Resume a suspended run, with a higher budget in micro-USD where it was suspended for want of one.",
        {202: in_json("The run goes on.", RunSummary, examples.RESUMED)},
        body=(ref(ResumeRequest), examples.RESUME),
        refusals=(
            JSON_BODY,
            NO_RUN,
            {
                409: ("run.finished", "run.cancelling", "run.not_suspended"),
                422: ("request.invalid", "budget.out_of_bounds", "budget.not_raised"),
                503: ("audit.unavailable", "engine.unavailable"),
            },
        ),
    ),
    "make_link": Doc(
        "A link that opens the output of a step for some minutes, for whoever has it. On record.",
        {201: in_json("The link.", Link, examples.LINK)},
        body=(ref(LinkRequest), {"step_id": "spend", "valid_s": 300}),
        refusals=(
            JSON_BODY,
            NO_RUN,
            {
                409: ("step.no_output",),
                410: ("run.erased", "payload.erased"),
                422: ("request.invalid", "step.unknown"),
                429: ("quota.links",),
                503: ("audit.unavailable", "payload.key_unavailable", "link.unavailable"),
            },
        ),
    ),
    "follow_link": Doc(
        "The output that a link is for, as a download. Needs no token; its first use is on record.",
        {200: Answer("The stored bytes.", {JSON: ({}, {"rows": []})}, ("Content-Disposition",))},
        refusals=(
            {404: ("link.invalid",), 410: ("link.expired", "link.used_up"), 500: ("payload.corrupt",)},
            {503: ("audit.unavailable", "payload.unavailable", "payload.key_unavailable")},
        ),
    ),
    "rerun_run": Doc(
        "Do a finished run again: what succeeded is taken over, except a step, where one is named, and what depends on it.",
        {202: in_json("A new run, with this one as its parent.", Accepted, examples.ACCEPTED, POLL)},
        body=(ref(RerunRequest), examples.RERUN),
        parameters=(IDEMPOTENCY_KEY,),
        refusals=(
            JSON_BODY,
            NO_RUN,
            {
                400: ("idempotency.key_invalid",),
                409: ("run.not_finished", "run.no_plan", "idempotency.in_flight"),
                422: ("request.invalid", "step.unknown", "idempotency.mismatch"),
                429: ("quota.submissions",),
                503: ("audit.unavailable", "engine.unavailable"),
            },
        ),
    ),
    "terminate_run": Doc(
        "End a run at once: nothing is undone, no answer is composed, what is under way is not waited for.",
        {200: in_json("The run is over.", RunSummary, examples.TERMINATED)},
        refusals=(NO_RUN, {409: ("run.finished",), 503: ("audit.unavailable",)}),
    ),
    "list_run_approvals": Doc(
        "What of this run a person must approve, with the arguments as they will be used, and what was answered.",
        {200: in_json("The approvals, oldest first.", ApprovalList, examples.APPROVAL_LIST)},
        refusals=(NO_RUN,),
    ),
    "answer_approval": Doc(
        "Answer an approval; the subject is plan or the id of a step. The same answer again changes nothing.",
        {200: in_json("The approval with its answer.", ApprovalView, examples.APPROVAL)},
        body=(ref(AnswerRequest), examples.ANSWER_APPROVAL),
        refusals=(
            JSON_BODY,
            {
                403: ("approval.self", "approval.app_only"),
                404: ("run.not_found", "approval.not_found"),
                409: ("approval.closed",),
                410: ("approval.expired",),
                422: ("request.invalid", "approval.item_missing"),
                503: ("audit.unavailable",),
            },
        ),
    ),
    "list_pending_approvals": Doc(
        "What waits for an answer in the caller's tenant.",
        {200: in_json("The open approvals, oldest first.", PendingApprovals, examples.PENDING_APPROVALS)},
        (query("limit", "Approvals a page.", LIMIT | {"maximum": 200, "default": 50}),),
        refusals=({400: ("query.invalid",)},),
    ),
    "check_plan": Doc(
        "Look at a plan, or at the plan for an intent, without running it: findings, policy decision, critical path, cost. "
        "An intent needs the role Runs.Submit, because models may be asked.",
        {200: in_json("The findings.", PlanPreview, examples.PLAN_PREVIEW)},
        body=({"anyOf": [{"$ref": "#/components/schemas/TaskGraph"}, ref(RunRequest)]}, examples.PLAN),
        refusals=(JSON_BODY, {422: ("request.invalid",)}),
    ),
    "route_intent": Doc(
        "What an intent is about: domain, capabilities, and which router said so.",
        {200: in_json("The route.", RouteView, examples.ROUTE)},
        body=(ref(RunRequest), examples.RUN_REQUEST),
        refusals=(JSON_BODY, {422: ("request.invalid",)}),
    ),
}
