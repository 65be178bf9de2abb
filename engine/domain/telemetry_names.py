"""Names of spans, attributes and metrics, pinned here because the GenAI semantic conventions are still in development.

Source: OpenTelemetry GenAI semantic conventions as of 2026-11 (``gen_ai.system`` is gone in favour of ``gen_ai.provider.name``).
Content attributes (messages, arguments, results) are opt-in there and deliberately absent here: content lives in the
audit evidence only. Tenant ids never stand on metrics.
"""

from __future__ import annotations

SPAN_RUN = "invoke_workflow"
SPAN_PLAN = "plan"
SPAN_TOOL = "execute_tool"
SPAN_AGENT = "invoke_agent"
SPAN_COMPOSE = "compose_answer"
SPAN_HTTP = "http"

OPERATION = "gen_ai.operation.name"
TOOL_NAME = "gen_ai.tool.name"
AGENT_NAME = "gen_ai.agent.name"
WORKFLOW_NAME = "gen_ai.workflow.name"

RUN_ID = "app.run.id"
STEP_ID = "app.step.id"
STEP_ATTEMPT = "app.step.attempt"
STEP_STATUS = "app.step.status"
PLAN_HASH = "app.plan.hash"
DEGRADED = "app.degraded"
TENANT = "app.tenant"
"""A pseudonymous id (``tenant_pseudonym``), never the tenant's name."""

METRIC_POLICY_DECISIONS = "app.policy.decisions"
METRIC_STEP_DURATION = "gen_ai.execute_tool.duration"
METRIC_RUNS_FINISHED = "app.runs.finished"
METRIC_STEPS_FINISHED = "app.steps.finished"
