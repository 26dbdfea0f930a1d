"""`make demo`: eight scenes with a real Kafka, real workers and the real Pi, shown as they happen.

stage.py    what the scenes need: broker, topics, model, worker processes, client
scenes.py   the scenes: what is asked, what must come of it
judging.py  a change is judged on what the scenes before left on the log
shadowing.py  and while requests come, beside production
show.py     how it looks in a terminal, and as plain text
places.py   where on Kafka everything lies
"""
