"""Which split a repository belongs to: decided by its name alone, so that no other repository can change it."""

import hashlib


def place_of(repo: str) -> float:
    """A number from 0 up to 1 that only the name decides, case ignored."""
    return int.from_bytes(hashlib.sha256(repo.lower().encode()).digest()[:8], "big") / 2**64
