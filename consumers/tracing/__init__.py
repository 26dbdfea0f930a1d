"""Spans of what a worker does. OpenTelemetry's API only: the SDK is infra's."""
