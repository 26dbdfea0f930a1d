"""What a worker counts and measures, by OpenTelemetry's API.

names.py        every metric
instruments.py  Metrics: what happens, as it happens
tally.py        counters, added up here
gauges.py       Gauges: how things stand, once a second
durations.py    how long runs take, learned as they end
"""
