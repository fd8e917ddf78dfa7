"""How a recurrent layer's weights lie in memory: by vectors of units, the gates of each side by side."""

from __future__ import annotations

import numpy as np

from hasten.types import Array

__all__ = ["interleave", "pack_hidden", "pad", "padded_units"]


def padded_units(units: int, lanes: int) -> int:
    """Units up to a whole vector."""
    return -(-units // lanes) * lanes


def pad(rows: Array, padded: int) -> Array:
    """Rows of values of units, zero up to a whole vector.

    Shapes:  (n, H) → (n, H padded)
    """
    done = np.zeros((rows.shape[0], padded), np.float32)
    done[:, : rows.shape[1]] = rows
    return done


def interleave(weight: Array, count: int, padded: int, lanes: int) -> Array:
    """Gate-major columns → ``[unit vector][gate][lane]``.

    Shapes:  weight (K, G · H) · returns (K, G · H padded)
    """
    depth = weight.shape[0]
    units = weight.shape[1] // count
    done = np.zeros((depth, count, padded), np.float32)
    done[:, :, :units] = weight.reshape(depth, count, units)
    return np.ascontiguousarray(
        done.reshape(depth, count, padded // lanes, lanes).transpose(0, 2, 1, 3).reshape(depth, -1)
    )


def pack_hidden(hidden: Array, count: int, padded: int, lanes: int) -> Array:
    """(H, G, H) → ``[vector of units][from][gate][lane]``."""
    units = hidden.shape[0]
    flat = interleave(hidden.reshape(units, -1), count, padded, lanes)
    return np.ascontiguousarray(flat.reshape(units, padded // lanes, count * lanes).transpose(1, 0, 2))
