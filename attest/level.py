"""How much a relying party may conclude: logged < witnessed < sampled < reproduced."""

import enum

__all__ = ["Level"]


class Level(enum.IntEnum):
    """Order what was checked; each level includes those before it."""

    LOGGED = 0
    WITNESSED = 1
    SAMPLED = 2
    REPRODUCED = 3

    @property
    def text(self) -> str:
        """Return the word that policies and verdicts use."""
        return self.name.lower()
