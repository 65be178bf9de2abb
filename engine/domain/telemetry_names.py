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

SPAN_CHAT = "chat"
PROVIDER_NAME = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
REQUEST_SEED = "gen_ai.request.seed"
RESPONSE_MODEL = "gen_ai.response.model"
RESPONSE_FINISH_REASON = "gen_ai.response.finish_reasons"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_INPUT_TOKENS = "gen_ai.usage.cache_read.input_tokens"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - the name of an attribute
ERROR_TYPE = "error.type"
MODEL_DEPLOYMENT = "app.model.deployment"
MODEL_NODE = "app.model.node"
AUDIT_REF = "app.audit.ref"
"""The id of the audit entry that has the commitment to the content which spans must not carry."""

METRIC_TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105 - the name of a metric
METRIC_MODEL_DURATION = "gen_ai.client.operation.duration"
METRIC_BREAKER_OPENED = "app.breaker.opened"
