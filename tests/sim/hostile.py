"""What no process of ours would ever write, and what one may write all the same: a broken disk, a strange child."""

from random import Random
from typing import Any


def absurd_outcome(rng: Random) -> Any:
    """An outcome with a value that is absurd, of a wrong type, or unknown."""
    wait = {"sensor": "Sim", "args": {"name": "p0"}, "poke_interval": 30.0, "timeout": 60.0}
    return rng.choice(
        (
            {"state": 7},
            {"state": "victory"},
            {"state": None, "error": "text"},
            {"state": "failed", "error": ["a", "list"]},
            {"state": "failed", "error": {"type": 1, "message": {"deep": []}, "retry": "perhaps"}},
            {"state": "failed", "error": {"type": "E", "message": "x" * 100_000}},
            {"state": "success", "xcoms": "abc"},
            {"state": "success", "xcoms": [["only one"]]},
            {"state": "success", "xcoms": [[None, 1], [["k"], 2]]},
            {"state": "success", "xcoms": [["k", 10**400]]},
            {"state": "success", "rendered": 5},
            {"state": "waiting"},
            {"state": "waiting", "wait": "please"},
            {"state": "waiting", "wait": wait | {"timeout": 10**12}},
            {"state": "waiting", "wait": wait | {"timeout": -5}},
            {"state": "waiting", "wait": wait | {"timeout": "soon"}},
            {"state": "waiting", "wait": wait | {"timeout": float("nan")}},
            {"state": "waiting", "wait": wait | {"poke_interval": "often"}},
            {"state": "waiting", "wait": wait | {"poke_interval": 10**300}},
            {"state": "waiting", "wait": wait | {"poke_interval": -1}},
            {"state": "waiting", "wait": wait | {"sensor": "Nobody"}},
            {"state": "waiting", "wait": wait | {"args": ["a"]}},
            {"state": "waiting", "wait": {"sensor": "Sim"}},
            "a text",
            ["success"],
        )
    )
