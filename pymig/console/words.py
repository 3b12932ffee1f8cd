"""Marks words that are translated where they are shown, not where they stand."""


def noop(word: str) -> str:
    """The word itself; pymig.console.translate collects it."""
    return word
