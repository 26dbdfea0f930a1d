"""Judging a change on the traffic of now: finished runs are recorded, played under other terms, and compared at once.

following.py   which runs have just ended: results, in a group of its own, with their requests
requests.py    finds these requests, and has the brokers send little for it
keeping.py     a recording and its replay that grow side by side, and survive kill -9
rolling.py     the comparison of the last so many pairs
shadow.py      all of it together

It only reads production's topics. What it writes to Kafka are its own group's offsets, and evaluations where asked.
"""
