"""Words of messages."""


def counted(number: int, noun: str) -> str:
    """`1 run`, `2,000 runs`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
