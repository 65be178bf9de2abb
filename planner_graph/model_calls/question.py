"""One question to a model, fixed: its prompt as bytes with their hash, its keys, and what it may cost at most. Pure.

Tokens are estimated from bytes, three to a token, which is more than any tokeniser makes of common text: an estimate decides
what is set aside, and too little would let a run overshoot.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from engine.domain.base import JsonObject
from engine.domain.ids import is_wire_id
from engine.evidence.canonical import canonical_bytes
from engine.ports.budget import MODEL_KEYS
from engine.ports.model_results import ModelCallKey
from engine.ports.models import Message, ModelCall, ModelDeployment, ModelUsage, ModelWork
from planner_graph.model_calls.answers import CallSite, PromptFile
from planner_graph.model_calls.replies import clean_text

BYTES_PER_TOKEN = 3
TOKENS_PER_MESSAGE = 8
_PER_MILLION = 1_000_000
_SEED_BITS = 31


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, by whom, and under which key the result is kept. ``prompt`` is the canonical JSON of all that is sent."""

    site: CallSite
    work: ModelWork
    messages: tuple[Message, ...]
    schema: JsonObject | None
    schema_name: str
    max_output_tokens: int
    temperature: float
    seed: int
    prompt_file: PromptFile | None
    prompt: bytes
    prompt_sha256: str

    @property
    def key(self) -> ModelCallKey:
        """Under which the result is kept."""
        site = self.site
        return ModelCallKey(site.tenant.tenant_id, site.run_id, site.plan_version, site.node, self.prompt_sha256)

    @property
    def budget_prefix(self) -> str:
        """How the budget keys of all requests of this question begin; the number of the request follows."""
        of_share = self.site.share.prefix if self.site.share is not None else MODEL_KEYS
        return f"{of_share}{self.site.plan_version}/{self.site.node}/{self.prompt_sha256[:16]}/"

    @property
    def input_tokens(self) -> int:
        """An estimate from above, of the prompt with everything around it."""
        return -(-len(self.prompt) // BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * len(self.messages)

    def output_tokens(self, deployment: ModelDeployment) -> int:
        """How many tokens this deployment may answer with."""
        return min(self.max_output_tokens, deployment.max_output_tokens)

    def worst(self, deployment: ModelDeployment) -> ModelUsage:
        """What one request can use at most."""
        return ModelUsage(self.input_tokens, self.output_tokens(deployment), estimated=True)

    def call(self, deployment: ModelDeployment, timeout_s: float) -> ModelCall:
        """The request itself."""
        return ModelCall(
            deployment=deployment.name,
            messages=self.messages,
            max_output_tokens=self.output_tokens(deployment),
            timeout_s=timeout_s,
            schema=self.schema,
            schema_name=self.schema_name,
            temperature=self.temperature,
            seed=self.seed,
        )


def question_of(
    site: CallSite,
    work: ModelWork,
    messages: tuple[Message, ...],
    *,
    schema: JsonObject | None,
    schema_name: str,
    max_output_tokens: int,
    temperature: float,
    seed: int | None,
    prompt_file: PromptFile | None,
) -> Question:
    """Fix a question. Without a seed, one is derived from the run, the plan's version and the node.

    ``ValueError`` when the node is no wire id or nothing may be answered.
    """
    if not is_wire_id(site.node) or max_output_tokens < 1:
        raise ValueError("a question needs a node in the alphabet of wire ids, and room for an answer")
    if seed is None:
        digest = hashlib.sha256(f"{site.run_id}/{site.plan_version}/{site.node}".encode()).digest()
        seed = int.from_bytes(digest[:4], "big") >> (32 - _SEED_BITS)
    messages = tuple(Message(message.role, clean_text(message.content)) for message in messages)
    prompt = canonical_bytes(
        {
            "work": work,
            "messages": [{"role": message.role, "content": message.content} for message in messages],
            "schema": schema,
            "schema_name": schema_name,
            "max_output_tokens": max_output_tokens,
            "temperature": temperature,
            "seed": seed,
        }
    )
    return Question(
        site,
        work,
        messages,
        schema,
        schema_name,
        max_output_tokens,
        temperature,
        seed,
        prompt_file,
        prompt,
        hashlib.sha256(prompt).hexdigest(),
    )


def cost_micro_usd(deployment: ModelDeployment, usage: ModelUsage) -> int:
    """What these tokens cost, rounded up. Cached input counts in full: no deployment has a price for it."""
    price = (
        usage.input_tokens * deployment.input_micro_usd_per_mtok
        + usage.output_tokens * deployment.output_micro_usd_per_mtok
    )
    return -(-price // _PER_MILLION)
