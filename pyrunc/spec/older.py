"""Convert a configuration of an older specification to the one that the compiler implements."""

from __future__ import annotations

from pyrunc.spec.names import version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.types import Config

_ZERO_IS_A_LIMIT = (1, 3, 0)  # config-linux.md, "PIDs"


def adapt(config: Config) -> None:
    """Rewrite fields whose meaning has changed; ``config`` has passed validate.check.

    Before 1.3.0, pids.limit 0 meant "no limit"; podman before 5.5 writes it for ``--pids-limit=-1``
    (docs/adr/0023-pids-limit-0.md).
    """
    pids = config.get("linux", {}).get("resources", {}).get("pids")
    if pids and pids.get("limit") == 0 and (version(config["ociVersion"]) or _ZERO_IS_A_LIMIT) < _ZERO_IS_A_LIMIT:
        pids["limit"] = -1
