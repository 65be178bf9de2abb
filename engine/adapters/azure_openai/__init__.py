"""Chat models over the OpenAI wire format: Azure OpenAI, and any compatible server."""

from engine.adapters.azure_openai.endpoints import EndpointKind, ModelEndpoint
from engine.adapters.azure_openai.models import AzureOpenAiChatModels

__all__ = ["AzureOpenAiChatModels", "EndpointKind", "ModelEndpoint"]
