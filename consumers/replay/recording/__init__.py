"""Recordings: a directory with `manifest.json` and one JSON object a line in `runs-00001.jsonl`, `runs-00002.jsonl`, …

selection.py   which runs are meant
capture.py     from the topics into the spool: requests, results, events
spool.py       what was read so far, on disk: joins requests, results and events in flat memory, and survives kill -9
assembling.py  one run of its request, its result and the records of its events: voided attempts left out, gaps said
splicing.py    the same of its bytes, where nothing is missing: three times cheaper
redacting.py   what must not leave: known secrets, patterns, paths; deltas.py: where they are split over pieces
writing.py     from the spool to the recording, gone on with after a kill
importing.py   the same form from a data set of one's own
manifest.py    what is in a recording
files.py       RecordingReader, RecordingWriter
"""
