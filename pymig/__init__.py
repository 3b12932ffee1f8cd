"""pymig: one huge narrow PostgreSQL table becomes one wide table per ship, online."""

from typing import Final

__version__: Final = "0.1.0"
