"""Judging a change on traffic of the past: the map of the package.

recording/    from the topics, or somebody's own data set, to a directory that can be carried anywhere: `RecordedRun`s
playing/      the runs of a recording once more, under other parameters: `ReplayedRun`s
comparing/    what was replayed against what was recorded, or against another replay: evaluations and one verdict
shadowing/    all three at once, with runs that have just ended in production

They point one way: recording <- playing <- comparing <- shadowing. Nothing in here writes to the topics that were
recorded.
"""
