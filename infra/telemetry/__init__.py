"""Where spans and measurements leave the process: the OpenTelemetry SDK, its exporters, and the books of what was lost.

environment.py  which OTEL_* variables decide what     -> TelemetrySettings
opening.py      open_telemetry(settings)               -> Telemetry: providers, flush, state; closes within a bound
recording.py    begins spans, under the SDK's sampler  -> recorded.py: a span as plain values, until its end
delivery.py     what reached one place and what did not, and when a line in the log is due
exporters.py    the official exporters, their outcome entered in a Delivery
encoding.py     a request of spans, as bytes           -> pieces.py: what repeats in it
processors.py   a bounded queue in front of each; which span goes where
session.py      what the collector answered
spans_file.py   spans as lines of a local file, and back
probing.py      what `agentstream doctor` says about it
"""
