"""A PostgreSQL server of the tests' own: in a temporary folder, on a socket in it, on no port.

Loaded by file name from this folder's conftest. PostgreSQL does not run as root; then it runs as
`nobody`.
"""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path


def find(program: str) -> str | None:
    """Return a server program, which Debian keeps out of the search path."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    known = os.pathsep.join([*map(str, folders), os.environ.get("PATH", "")])
    return shutil.which(program, path=known)


class Server:
    """Run a server with an empty database; `schema` gives each log a place of its own."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="anh-postgres-"))
        self._schemas = 0
        self._user = {"user": "nobody", "extra_groups": []} if os.geteuid() == 0 else {}
        if self._user:
            shutil.chown(self.folder, "nobody")
        self._data = self.folder / "data"
        self._run("initdb", "-D", self._data, "-A", "trust", "-U", "log", "--no-sync", "-E", "UTF8")
        self.start()

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses= -c shared_buffers=16MB"
        log = self.folder / "server.log"
        self._run("pg_ctl", "-D", self._data, "-w", "-l", log, "-o", options, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; `immediate` is a crash."""
        self._run("pg_ctl", "-D", self._data, "-w", "-m", mode, "stop")

    def close(self) -> None:
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def schema(self) -> str:
        """Make a schema and return the address that leads into it."""
        self._schemas += 1
        name = f"log{self._schemas}"
        self.run(f"CREATE SCHEMA {name}")
        return f"postgresql://log@/postgres?host={self.folder}&options=-csearch_path%3D{name}"

    def run(self, statement: str) -> None:
        """Run one statement as the tests' own hand in the database."""
        self._run("psql", "-h", self.folder, "-U", "log", "-q", "-c", statement, "postgres")

    def set(self, setting: str, value: str) -> None:
        """Change a setting of the running server."""
        self.run(f"ALTER SYSTEM SET {setting} = {value}")
        self.run("SELECT pg_reload_conf()")
        # New sessions see it once the server has read it.
        for _ in range(100):
            if self._say(f"SHOW {setting}") == value:
                return
            time.sleep(0.02)
        raise AssertionError(f"{setting} is not {value}")

    def cut_off(self) -> None:
        """End every other session."""
        self.run(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )

    def _say(self, query: str) -> str:
        words = ["-h", self.folder, "-U", "log", "-At", "-c", query, "postgres"]
        return self._run("psql", *words).strip()

    def _run(self, program: str, *words: object) -> str:
        path = find(program)
        assert path is not None
        done = subprocess.run(
            [path, *map(str, words)],
            check=True,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            # Not a pipe for the server, which would hold it open.
            stdout=subprocess.PIPE if program == "psql" else subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._user,
        )
        return (done.stdout or b"").decode()
