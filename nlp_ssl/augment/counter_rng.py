"""Random numbers that are a pure function of where they are used: no generator, no state, no order of calls."""

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_MASK = (1 << 64) - 1


def mix(state: np.ndarray) -> np.ndarray:
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
        key = mix(key + _GOLDEN) ^ np.uint64(part & _MASK)
    return mix(mix(mix(key + _GOLDEN) ^ np.asarray(ids).astype(np.uint64)) + _GOLDEN)


def uniform(keys: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Uniform numbers of [0, 1), float64 [n]: number `counters[i]` of the stream of `keys[i]`."""
    state = counters.astype(np.uint64)
    state *= _GOLDEN
    state += keys
    return (mix(mix(state) + _GOLDEN) >> np.uint64(11)) * 2.0**-53
