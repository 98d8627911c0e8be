"""Where the parts of a log lie in its directory, and the file that names its keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from attest import canonical
from attest.durable_file import read_file, replace_file
from attest.errors import FormatError
from attest.keys import ALG_COSIGNATURE, ALG_ED25519, VerifierKey

_MAX_CONFIG_BYTES = 4096


@dataclass(frozen=True, slots=True)
class LogNames:
    """Name a log: its key, whose name is the origin, and the key of its own witness."""

    log: VerifierKey
    witness: VerifierKey

    @property
    def origin(self) -> str:
        """Return the origin line of the log's checkpoints."""
        return self.log.name


@dataclass(frozen=True, slots=True)
class Layout:
    """Give the paths of a log's parts; `tile/` and `checkpoint` are what a server would publish."""

    root: Path

    @property
    def names(self) -> Path:
        """Return the file that names the keys."""
        return self.root / "log.json"

    @property
    def places(self) -> Path:
        """Return the file that says which parts lie elsewhere."""
        return self.root / "places.json"

    @property
    def lock(self) -> Path:
        """Return the lock of whoever appends."""
        return self.root / "lock"

    @property
    def store(self) -> Path:
        """Return the database of entries."""
        return self.root / "entries.sqlite"

    @property
    def head(self) -> Path:
        """Return the newest head the log has signed."""
        return self.root / "head"

    @property
    def checkpoint(self) -> Path:
        """Return the newest head with the witness's line: the published one."""
        return self.root / "checkpoint"

    @property
    def witness(self) -> Path:
        """Return the directory of the log's own witness."""
        return self.root / "witness"

    @property
    def conflicts(self) -> Path:
        """Return the directory of refused second finals, each beside the first."""
        return self.root / "conflicts"

    def write_names(self, names: LogNames) -> None:
        """Write the file that names the keys."""
        value: canonical.JSON = {"log": names.log.to_text(), "witness": names.witness.to_text()}
        replace_file(self.names, canonical.encode(value))

    def read_names(self) -> LogNames:
        """Read the file that names the keys.

        Raises:
            InputError: if there is no log here.
            FormatError: if the file is damaged.
        """
        data = read_file(self.names, _MAX_CONFIG_BYTES)
        value = canonical.decode(data, max_bytes=_MAX_CONFIG_BYTES)
        if not isinstance(value, dict) or value.keys() != {"log", "witness"}:
            raise FormatError(f"{self.names}: does not name a log and a witness", code="fields")
        log, witness = (VerifierKey.from_text(str(value[name])) for name in ("log", "witness"))
        if (log.algorithm, witness.algorithm) != (ALG_ED25519, ALG_COSIGNATURE):
            raise FormatError(f"{self.names}: keys of the wrong algorithm", code="vkey")
        return LogNames(log, witness)
