"""Workers that break one rule of the engine each, and for each a scenario in which that does harm.

They show that the checker can fail. The product has no hooks for this: a mutant is a program of its own, which changes
the engine in its own process and then runs the ordinary worker.

    python -m tests.chaos.mutants one-transactional-id-per-process
"""
