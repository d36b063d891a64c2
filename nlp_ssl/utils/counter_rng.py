"""Random numbers that are a pure function of where they are used: no generator, no state, no order of calls."""

from dataclasses import dataclass

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_MASK = (1 << 64) - 1


def mix_bits(state: np.ndarray) -> np.ndarray:
    """The splitmix64 finalizer: a bijection of uint64 [n] in which every input bit moves every output bit."""
    mixed: np.ndarray = state ^ (state >> np.uint64(30))
    mixed *= _FIRST
    mixed ^= mixed >> np.uint64(27)
    mixed *= _SECOND
    mixed ^= mixed >> np.uint64(31)
    return mixed


def row_keys(seed: int, epoch: int, ids: np.ndarray, salt: int = 0) -> np.ndarray:
    """One key per sample, uint64 [n], from (seed, epoch, salt, sample id) alone.

    `salt` tells apart several draws for the same sample in the same epoch (two strong views, say).
    """
    key = np.array([seed & _MASK], dtype=np.uint64)
    for part in (epoch, salt):
        key = mix_bits(key + _GOLDEN) ^ np.uint64(part & _MASK)
    return mix_bits(mix_bits(mix_bits(key + _GOLDEN) ^ np.asarray(ids).astype(np.uint64)) + _GOLDEN)


def uniform(keys: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Uniform numbers of [0, 1), float64 [n]: number `counters[i]` of the stream of `keys[i]`."""
    state = counters.astype(np.uint64)
    state *= _GOLDEN
    state += keys
    return (mix_bits(mix_bits(state) + _GOLDEN) >> np.uint64(11)) * 2.0**-53


@dataclass(frozen=True)
class AliasTable:
    """Draws from V weighted outcomes in constant time (Walker 1977): outcome `i`, or else one other outcome.

    Attributes:
        keep: probability that slot `i` gives outcome `i`, float64 [V].
        other: the outcome it gives otherwise, int64 [V].
    """

    keep: np.ndarray
    other: np.ndarray

    @classmethod
    def of(cls, mass: np.ndarray) -> "AliasTable":
        """The table of weights [V], none of them negative and one at least positive.

        Slots hold 1/V each. Light outcomes leave part of their slot free, and heavy ones fill these parts in order: the
        first heavy outcome until it has nothing left over, then the next. One that gave too much by a part of its own
        slot has that part filled by its successor.
        """
        share = mass * (len(mass) / mass.sum())
        light = share < 1.0
        light[np.argmax(share)] = False  # rounding could make them all light
        lights, heavies = np.flatnonzero(light), np.flatnonzero(~light)
        free = np.cumsum(1.0 - share[lights])
        given = np.cumsum(share[heavies] - 1.0)
        keep, other = np.ones(len(mass)), np.arange(len(mass))
        keep[lights] = share[lights]
        giver = np.searchsorted(given, free - (1.0 - share[lights]), side="right")
        other[lights] = heavies[np.minimum(giver, len(heavies) - 1)]
        # The last one has no successor: what it gave too much is rounding.
        emptied = np.searchsorted(free, given[:-1])
        short = np.append(free, given[-1])[emptied] - given[:-1]
        spent = emptied < len(free)
        keep[heavies[:-1][spent]] = 1.0 - short[spent]
        other[heavies[:-1]] = heavies[1:]
        return cls(keep, other)

    def draw(self, numbers: np.ndarray) -> np.ndarray:
        """One outcome per uniform number of [0, 1), int64 [n]."""
        place = numbers * len(self.keep)
        slot = place.astype(np.int64)
        return np.where(place - slot < self.keep[slot], slot, self.other[slot])
