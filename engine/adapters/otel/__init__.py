"""OpenTelemetry behind the ``Telemetry`` port, and the structured log format. The SDK is imported when telemetry is set up."""
