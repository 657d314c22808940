"""What a migration kept, converted and reset, and what is left to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from sb3_vgs_ppo.checkpoint.summary import Kind


@dataclass(frozen=True)
class Notes:
    """
    What one step has to say, in sentences for a reader.

    :param kept: what is as it was
    :param converted: what says the same in another form
    :param reset: what starts afresh
    :param todo: what the user should do
    :param warnings: texts of warnings to issue
    """

    kept: tuple[str, ...] = ()
    converted: tuple[str, ...] = ()
    reset: tuple[str, ...] = ()
    todo: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __add__(self, other: Notes) -> Notes:
        return Notes(
            self.kept + other.kept,
            self.converted + other.converted,
            self.reset + other.reset,
            self.todo + other.todo,
            self.warnings + other.warnings,
        )


@dataclass(frozen=True)
class MigrationReport(Notes):
    """
    What a migration did; the first fields are those of :class:`Notes`.

    :param source: file that was read
    :param target: file that was written
    :param kind: what the source is, as :func:`inspect_checkpoint` calls it
    :param from_version: VGS version of the source, None without a scaler
    :param to_version: VGS version of the target, likewise
    """

    source: str = ""
    target: str = ""
    kind: Kind = "checkpoint"
    from_version: str | None = None
    to_version: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """
        :return: everything as plain values, for ``--json``
        """
        return asdict(self)
